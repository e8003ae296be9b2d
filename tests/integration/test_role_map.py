"""Loading a dump under other roles: whatever named the old one names the new one, and the proof agrees."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.errors import ProofError
from opsproof.inspection.restores.restored import prove
from opsproof.system.postgres.dumpfile import DumpFile
from opsproof.system.postgres.load import assign_roles, load_dump
from tests.lab.captured import LOCAL, clients_of, make_database, run_client
from tests.lab.postgres_server import PostgresServer

SOURCE, COPY = "map source", "map copy"
OLD, NEW, KEPT = 'Old; "Rôle" TO x', "map new", "map kept"
TABLE = "CREATE TABLE t (a int)"
SERVER = ("CREATE FOREIGN DATA WRAPPER anything", "CREATE SERVER files FOREIGN DATA WRAPPER anything")
# What makes it name the old role, and what lists the roles in its place afterwards.
PLACES = {
    "a policy": (
        (TABLE, "CREATE POLICY p ON t TO {old}", "COMMENT ON POLICY p ON t IS 'mine'"),
        "SELECT array_agg(rolname::text) FROM pg_policy, pg_roles r WHERE r.oid = ANY (polroles)"
        " AND obj_description(pg_policy.oid, 'pg_policy') = 'mine'",
    ),
    "a policy with others": (
        (TABLE, "CREATE POLICY p ON t AS RESTRICTIVE FOR UPDATE TO pg_monitor, {old}, {kept} USING (a > 1)"),
        "SELECT array_agg(rolname::text) FROM pg_policy, pg_roles r WHERE r.oid = ANY (polroles)"
        " AND rolname NOT IN ('pg_monitor', 'map kept')",
    ),
    "a policy with its heir": (
        (TABLE, "CREATE POLICY p ON t TO {old}, {new}"),
        "SELECT array_agg(rolname::text) FROM pg_policy, pg_roles r WHERE r.oid = ANY (polroles)",
    ),
    "a user mapping": (
        (
            *SERVER,
            "CREATE USER MAPPING FOR {old} SERVER files OPTIONS (word 'it''s')",
            "CREATE USER MAPPING FOR PUBLIC SERVER files",
        ),
        "SELECT array_agg(usename::text) FROM pg_user_mappings WHERE umuser <> 0 AND umoptions = ARRAY['word=it''s']"
        " AND EXISTS (SELECT FROM pg_user_mappings WHERE umuser = 0)",
    ),
    "default privileges": (
        (
            TABLE,
            "ALTER DEFAULT PRIVILEGES FOR ROLE {old} GRANT SELECT ON TABLES TO {kept}",
            "ALTER DEFAULT PRIVILEGES FOR ROLE {kept} GRANT SELECT ON TABLES TO {old}",
        ),
        "SELECT array_agg(DISTINCT name) FROM pg_default_acl, aclexplode(defaclacl),"
        " unnest(ARRAY[pg_get_userbyid(defaclrole)::text, pg_get_userbyid(grantee)::text]) name"
        " WHERE name <> 'map kept'",
    ),
    "a large object": (
        (
            "SELECT lo_from_bytea(4001, 'abc'), lo_create(4002)",
            "ALTER LARGE OBJECT 4001 OWNER TO {old}",
            "GRANT SELECT ON LARGE OBJECT 4002 TO {old}",
        ),
        "SELECT array_agg(DISTINCT name) FROM (SELECT pg_get_userbyid(lomowner)::text FROM pg_largeobject_metadata"
        " WHERE oid = 4001 UNION ALL SELECT pg_get_userbyid(grantee)::text FROM pg_largeobject_metadata m,"
        " aclexplode(lomacl) WHERE m.oid = 4002 AND grantee <> lomowner) names (name)",
    ),
    "a grant that it passed on": (
        (
            TABLE,
            "GRANT SELECT ON t TO {old} WITH GRANT OPTION",
            "SET ROLE {old}",
            "GRANT SELECT ON t TO {kept}",
            "RESET ROLE",
        ),
        "SELECT array_agg(DISTINCT pg_get_userbyid(grantor)::text) FROM pg_class, aclexplode(relacl)"
        " WHERE relname = 't' AND pg_get_userbyid(grantee) = 'map kept'",
    ),
    "an owner, of a function that speaks of owners": (
        (
            "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$BEGIN\nALTER TABLE nothing OWNER TO nobody;\nEND$$",
            "ALTER FUNCTION f() OWNER TO {old}",
        ),
        "SELECT array_agg(pg_get_userbyid(proowner)::text) FROM pg_proc WHERE proname = 'f'",
    ),
    "an owner, of a table with an odd name": (
        ('CREATE TABLE "two\nlines; ö" (a int)', 'ALTER TABLE "two\nlines; ö" OWNER TO {old}'),
        "SELECT array_agg(pg_get_userbyid(relowner)::text) FROM pg_class WHERE relname = E'two\\nlines; ö'",
    ),
}


@dataclass(frozen=True)
class Dumped:
    """A dump of somebody's, of which nothing is known but what stands in it."""

    dump: Path
    manifest: None = None
    database_format: str = "custom"

    def tables(self) -> tuple[()]:
        return ()


@contextmanager
def dumped(server: PostgresServer, folder: Path, *statements: str, encoding: str = "UTF8") -> Iterator[Dumped]:
    """Dump a database that names the old role; then there is none of that name any more."""
    names = {key: sql.Identifier(role) for key, role in {"old": OLD, "new": NEW, "kept": KEPT}.items()}
    with server.connect() as connection:
        for key in ("old", "kept", "new"):
            connection.execute(sql.SQL("CREATE ROLE {}").format(names[key]))
    try:
        address = make_database(server, SOURCE, encoding)
        with server.connect(SOURCE) as connection:
            connection.execute("SET client_encoding = 'UTF8'")
            for statement in statements:
                connection.execute(sql.SQL(statement).format(**names))
        path = folder / "database"
        run_client(server, [server.bindir / "pg_dump", "-Fc", "-f", path, "-d", address.conninfo()])
        server.drop_database(SOURCE)
        with server.connect() as connection:
            # The server that it is restored into has its roles in another order.
            connection.execute(sql.SQL("DROP ROLE {old}, {kept}").format(**names))
            connection.execute(sql.SQL("CREATE ROLE {kept}").format(**names))
        make_database(server, COPY, encoding)
        yield Dumped(path)
    finally:
        server.drop_database(SOURCE)
        server.drop_database(COPY)
        with server.connect() as connection:
            for role in names.values():
                connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(role))


@pytest.mark.parametrize("place", PLACES)
def test_the_new_role_stands_where_the_old_one_stood(place: str, postgres: PostgresServer, tmp_path: Path) -> None:
    statements, question = PLACES[place]
    with dumped(postgres, tmp_path, *statements) as backup:
        clients = clients_of(postgres, postgres.address(COPY))
        schema = DumpFile(backup.dump, clients.programs, LOCAL).schema
        assert OLD in schema.roles()
        load_dump(clients, backup.dump, 2, with_roles=False)
        assign_roles(clients, schema, {OLD: NEW})
        with postgres.connect(COPY) as connection:
            assert connection.execute(question.encode()).fetchone() == ([NEW],)
        proof = prove(clients, backup, backup.dump, {OLD: NEW})
        told = [sentence.split(":")[0] for sentence in proof.unverified]
        # Where one role has taken the place of two, it is not known what was granted to whom.
        assert told == ["rows, sequences and extensions", *(["grants"] if "heir" in place else [])]


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_names_in_other_encodings(encoding: str, postgres: PostgresServer, tmp_path: Path) -> None:
    """What is said under other roles reaches the server in the encoding that it is in."""
    statements = (
        'CREATE TABLE "Größe" (a int)',
        'ALTER TABLE "Größe" OWNER TO {kept}',
        'CREATE POLICY "für alle" ON "Größe" TO {kept}',
        'COMMENT ON POLICY "für alle" ON "Größe" IS \'ß\'',
    )
    with dumped(postgres, tmp_path, *statements, encoding=encoding) as backup:
        clients = clients_of(postgres, postgres.address(COPY))
        load_dump(clients, backup.dump, 2, with_roles=False)
        assign_roles(clients, DumpFile(backup.dump, clients.programs, LOCAL).schema, {KEPT: NEW})
        assert len(prove(clients, backup, backup.dump, {KEPT: NEW}).unverified) == 1


def test_a_policy_that_was_not_made_is_missed(wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    with dumped(wheel_postgres, tmp_path, *PLACES["a policy"][0]) as backup:
        clients = clients_of(wheel_postgres, wheel_postgres.address(COPY))
        load_dump(clients, backup.dump, 2, with_roles=False)
        with pytest.raises(ProofError) as caught:
            prove(clients, backup, backup.dump, {OLD: "postgres"})
    assert "missing: CREATE POLICY p ON public.t TO" in caught.value.found


def test_a_policy_for_several_is_the_same_on_a_server_with_its_roles_in_another_order(
    wheel_postgres: PostgresServer, tmp_path: Path
) -> None:
    with dumped(wheel_postgres, tmp_path, TABLE, "CREATE POLICY p ON t TO {kept}, {new}") as backup:
        clients = clients_of(wheel_postgres, wheel_postgres.address(COPY))
        load_dump(clients, backup.dump, 2)
        with wheel_postgres.connect(COPY) as connection:
            row = connection.execute("SELECT array_agg(rolname::text) FROM pg_roles WHERE rolname ~ '^map'").fetchone()
        assert row == (["map new", "map kept"],)
        assert prove(clients, backup, backup.dump).unverified[1:] == ()
