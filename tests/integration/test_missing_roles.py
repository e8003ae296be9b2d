"""Roles that a backup names: each that is missing is found, and what is typed against it helps."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from opsproof.archive.manifest import Setting
from opsproof.inspection.restores.preflight import examine
from opsproof.inspection.restores.situation import Situation
from opsproof.system.postgres.dumpfile import DumpFile
from tests.lab.captured import LOCAL
from tests.lab.postgres_server import PostgresServer
from tests.lab.situations import LIVE, live, of_backup, of_manifest, run_sql, situation, situation_of, the_finding

__all__ = ["live", "situation"]


ROLES_NEEDED = {
    "of a table": ("CREATE TABLE x (a int)", "ALTER TABLE x OWNER TO {}"),
    "of a function": ("CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "ALTER FUNCTION f() OWNER TO {}"),
    "of a large object": ("SELECT lo_create(4001)", "ALTER LARGE OBJECT 4001 OWNER TO {}"),
    "granted something": ("GRANT SELECT (a) ON t TO {} WITH GRANT OPTION",),
    "granted a large object": ("SELECT lo_create(4001)", "GRANT SELECT ON LARGE OBJECT 4001 TO {}"),
    "granting by default": ("ALTER DEFAULT PRIVILEGES FOR ROLE {} REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC",),
    "granted by default": ("ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {} WITH GRANT OPTION",),
    "in a policy": ('CREATE POLICY "p TO x" ON t AS RESTRICTIVE FOR UPDATE TO pg_monitor, {} USING (a > 1)',),
    "in a user mapping": (
        "CREATE EXTENSION file_fdw",
        "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
        "CREATE USER MAPPING FOR {} SERVER files",
        "CREATE USER MAPPING FOR PUBLIC SERVER files",
    ),
    "granting on": (
        "GRANT SELECT ON t TO {} WITH GRANT OPTION",
        "SET ROLE {}",
        "GRANT SELECT ON t TO PUBLIC",
        "RESET ROLE",
    ),
}


@pytest.mark.parametrize("role", ["needed", 'Odd; "Rôle" TO x', "select"])
@pytest.mark.parametrize("place", ROLES_NEEDED)
def test_a_role_that_is_missing_is_named_with_what_to_type(
    place: str, role: str, wheel_postgres: PostgresServer, tmp_path: Path
) -> None:
    server, name = wheel_postgres, sql.Identifier(role)
    address = server.create_database(LIVE, "CREATE TABLE t (a int)")
    with server.connect(LIVE) as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
        for statement in ROLES_NEEDED[place]:
            connection.execute(sql.SQL(statement).format(name))
    try:
        situation = situation_of(server, address, tmp_path)
        named = DumpFile(situation.dump, situation.clients.programs, LOCAL).schema.roles()
        assert role in named
        assert named <= {role, "postgres", "pg_monitor"}
        assert examine(situation) == ()
        saved = situation.clients.dump_roles()
    finally:
        server.drop_database(LIVE)
        run_sql(server, sql.SQL("DROP ROLE {}").format(name).as_string(), database="postgres")
    other = shlex.quote(f"{role}=ANOTHER")
    assert (
        the_finding(replace(situation, live=None), "roles").hint
        == f"CREATE ROLE {name.as_string()} NOLOGIN; or put another in its place: --map-role {other}"
    )
    finding = the_finding(of_backup(replace(situation, live=None), saved_roles=saved), "roles")
    assert finding.expected == f"a role {role!r}"
    assert finding.hint.startswith("CREATE ROLE ")
    assert "NOSUPERUSER" in finding.hint
    assert " LOGIN" in finding.hint
    # What the hint says is what helps.
    typed = finding.hint.split(" or put ")[0]
    with server.connect() as connection:
        connection.execute(typed.encode())
    try:
        assert examine(replace(situation, live=None)) == ()
    finally:
        run_sql(server, sql.SQL("DROP ROLE {}").format(name).as_string(), database="postgres")


@pytest.mark.parametrize(
    "changes",
    [
        {"owner": "nobody here"},
        {"acl": ('"nobody here"=c/postgres',)},
        {"settings": (Setting(role="nobody here", setting="work_mem=5MB"),)},
    ],
    ids=["owner", "grant", "setting"],
)
def test_a_role_of_the_database_itself(changes: dict[str, Any], situation: Situation) -> None:
    missing = of_manifest(situation, **changes)
    assert the_finding(missing, "roles").expected == "a role 'nobody here'"
    assert examine(replace(missing, roles={"nobody here": "postgres"})) == ()
    finding = the_finding(replace(missing, roles={"nobody here": "nor here"}), "roles")
    assert finding.expected == "a role 'nor here'"
    assert "--map-role puts it in the place of 'nobody here'" in finding.found


def test_a_role_map_that_maps_nothing_is_worth_knowing(situation: Situation) -> None:
    finding = the_finding(replace(situation, roles={"postgras": "postgres"}), "roles", blocks=False)
    assert "'postgras'" in finding.expected


def test_two_user_mappings_do_not_become_one(wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    server, statements = wheel_postgres, ("CREATE ROLE one_mapped", "CREATE ROLE other_mapped")
    address = server.create_database(LIVE, *statements, "CREATE EXTENSION file_fdw",
                                     "CREATE SERVER files FOREIGN DATA WRAPPER file_fdw",
                                     "CREATE USER MAPPING FOR one_mapped SERVER files",
                                     "CREATE USER MAPPING FOR other_mapped SERVER files")  # fmt: skip
    try:
        situation = situation_of(server, address, tmp_path)
        assert examine(replace(situation, roles={"one_mapped": "postgres"})) == ()
        both = replace(situation, roles={"one_mapped": "postgres", "other_mapped": "postgres"})
        assert the_finding(both, "roles").found == "2 times USER MAPPING postgres SERVER files"
    finally:
        server.drop_database(LIVE)
        run_sql(server, "DROP ROLE one_mapped, other_mapped", database="postgres")
