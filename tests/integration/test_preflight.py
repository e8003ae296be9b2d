"""Preflight: nothing to say where a restore can come to its end, and a finding for each thing in its way."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from psycopg import sql

from opsproof.archive.manifest import Extension, Manifest, Member, ServerRecord, Setting
from opsproof.errors import DumpError, ProofError
from opsproof.inspection.preflight import Finding, Situation, examine, require, roles_needed
from opsproof.system import catalog
from opsproof.system.dump import ClientPrograms
from opsproof.system.postgres import connect, describe_database, read_server
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, FilestoreSettings, Target
from tests.lab.captured import LOCAL, clients_of, run_client
from tests.lab.manifests import database_record, manifest_of
from tests.lab.postgres_server import PostgresServer, has_system_postgres, running_postgres

LIVE = "preflight live"
SECRET = "preflight-secret"


@dataclass(frozen=True)
class Stored:
    """A backup, as far as preflight looks at it."""

    manifest: Manifest | None
    database_bytes: int = 1000
    files_bytes: int = 0
    database_format: str = "custom"
    members: tuple[Member, ...] = ()
    saved_roles: bytes | None = field(default=None)

    def file_members(self) -> tuple[Member, ...]:
        return self.members

    def roles(self) -> bytes | None:
        return self.saved_roles


@pytest.fixture
def live(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    yield postgres.create_database(LIVE, "CREATE TABLE t (a int)", "CREATE EXTENSION hstore")
    postgres.drop_database(LIVE)


@pytest.fixture
def situation(postgres: PostgresServer, live: DatabaseAddress, tmp_path: Path) -> Situation:
    """A restore that nothing is in the way of."""
    return situation_of(postgres, live, tmp_path)


def situation_of(server: PostgresServer, address: DatabaseAddress, folder: Path) -> Situation:
    with connect(address) as connection:
        version, facts = read_server(connection), describe_database(connection)
    manifest = manifest_of(
        server=ServerRecord(
            version=version.version, version_num=version.version_num, system_identifier="1", client_version="1"
        ),
        database=database_record(
            owner="postgres",
            acl=("=Tc/postgres", "postgres=CTc/postgres"),
            collate=facts.collate,
            ctype=facts.ctype,
            extensions=tuple(Extension(name=n, version=v, schema_name=s) for n, v, s in facts.extensions),
        ),
    )
    return Situation(
        target=Target("erp", "prod", address, DirectoryStoreSettings(folder), "acme"),
        server=version,
        live=facts,
        clients=clients_of(server, server.address(address.name)),
        backup=Stored(manifest),
        dump=dump(server, address.name, folder),
    )


def dump(server: PostgresServer, name: str, folder: Path) -> Path:
    path = folder / "database"
    run_client(server, [server.bindir / "pg_dump", "-Fc", "-f", path, "-d", server.address(name).conninfo()])
    return path


def of_manifest(situation: Situation, **changes: Any) -> Situation:
    """Return the same with another database in the manifest."""
    backup = situation.backup
    assert isinstance(backup, Stored)
    assert backup.manifest is not None
    database = backup.manifest.database.model_copy(update=changes)
    return replace(
        situation, backup=replace(backup, manifest=backup.manifest.model_copy(update={"database": database}))
    )


def of_backup(situation: Situation, **changes: Any) -> Situation:
    assert isinstance(situation.backup, Stored)
    return replace(situation, backup=replace(situation.backup, **changes))


def the_finding(situation: Situation, subject: str, *, blocks: bool = True) -> Finding:
    """Return the only finding, which is about a subject."""
    (finding,) = examine(situation)
    assert (finding.subject, finding.blocks) == (subject, blocks), finding
    assert finding.hint
    return finding


@contextmanager
def ordinary_role(server: PostgresServer, *options: str) -> Iterator[str]:
    """Make a role that is no superuser; what it owns in the live database goes with it."""
    role = "preflight ordinary"
    with server.connect() as connection:
        words = sql.SQL(" ".join(("CREATE ROLE {} LOGIN PASSWORD {}", *options)))
        connection.execute(words.format(sql.Identifier(role), SECRET))
    try:
        yield role
    finally:
        server.drop_database(LIVE)
        with server.connect() as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def as_role(situation: Situation, server: PostgresServer, role: str) -> Situation:
    address = server.address(situation.target.database.name, role, SECRET)
    return replace(situation, target=replace(situation.target, database=address))


def run_sql(server: PostgresServer, *statements: str, database: str = LIVE) -> None:
    with server.connect(database) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def test_nothing_is_in_the_way(situation: Situation) -> None:
    assert examine(situation) == ()
    assert require(examine(situation)) == ()


def test_nothing_is_in_the_way_where_nothing_is_live(postgres: PostgresServer, situation: Situation) -> None:
    postgres.drop_database(LIVE)
    assert examine(replace(situation, live=None)) == ()


def test_a_backup_of_others_is_looked_at_without_a_manifest(situation: Situation) -> None:
    assert examine(of_backup(situation, manifest=None)) == ()
    plain = of_backup(situation, manifest=None, database_format="plain")
    assert examine(replace(plain, dump=Path("/nowhere"))) == ()


@pytest.mark.parametrize(("step", "blocks"), [(1, True), (-1, False)], ids=["newer", "older"])
def test_a_backup_from_another_major(step: int, blocks: bool, situation: Situation) -> None:
    origin = situation.server.major + step
    assert isinstance(situation.backup, Stored)
    assert situation.backup.manifest is not None
    server = situation.backup.manifest.server.model_copy(update={"version_num": origin * 10000 + 3})
    changed = situation.backup.manifest.model_copy(update={"server": server})
    finding = the_finding(of_backup(situation, manifest=changed), "server", blocks=blocks)
    assert f"PostgreSQL {origin}" in finding.expected
    assert finding.found == f"PostgreSQL {situation.server.version}"


def test_client_programs_of_another_major(situation: Situation) -> None:
    other = ClientPrograms(situation.clients.programs.bindir, "13.9")
    finding = the_finding(replace(situation, clients=replace(situation.clients, programs=other)), "client programs")
    assert finding.found.startswith("13.9 in ")


def test_a_dump_that_a_newer_pg_dump_wrote_cannot_be_read(situation: Situation, tmp_path: Path) -> None:
    data = bytearray(situation.dump.read_bytes())
    data[6] = 99  # the archive's minor version
    newer = tmp_path / "newer"
    newer.write_bytes(data)
    with pytest.raises(DumpError, match="cannot read the dump newer") as caught:
        examine(replace(situation, dump=newer))
    assert "unsupported version (1.99)" in caught.value.found


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
        assert role in roles_needed(situation.dump, situation.clients.programs, LOCAL)
        assert roles_needed(situation.dump, situation.clients.programs, LOCAL) <= {role, "postgres", "pg_monitor"}
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


def test_an_extension_that_the_server_lacks(situation: Situation) -> None:
    lacking = of_manifest(situation, extensions=(Extension(name="postgis", version="3.4", schema_name="public"),))
    assert the_finding(lacking, "extensions").expected == "postgis 3.4, available on the server"


def test_another_version_of_an_extension_is_worth_knowing(situation: Situation) -> None:
    other = of_manifest(situation, extensions=(Extension(name="hstore", version="9.9", schema_name="public"),))
    finding = the_finding(other, "extensions", blocks=False)
    assert finding.expected == "hstore 9.9"
    assert finding.found.startswith("the server creates 1.")


def test_a_tablespace_that_is_missing(postgres: PostgresServer, live: DatabaseAddress, tmp_path: Path) -> None:
    place = postgres.folder / "space"
    place.mkdir()
    owner = (postgres.folder / "data").stat()
    os.chown(place, owner.st_uid, owner.st_gid)
    location = sql.Literal(str(place)).as_string()
    run_sql(postgres, f'CREATE TABLESPACE "fast one" LOCATION {location}', 'ALTER TABLE t SET TABLESPACE "fast one"')
    try:
        situation = situation_of(postgres, live, tmp_path)
        assert examine(situation) == ()
    finally:
        run_sql(postgres, "ALTER TABLE t SET TABLESPACE pg_default", 'DROP TABLESPACE "fast one"')
        place.rmdir()
    finding = the_finding(situation, "tablespaces")
    assert finding.expected == "a tablespace 'fast one'"
    assert finding.hint.startswith('CREATE TABLESPACE "fast one"')


def test_an_encoding_that_the_server_does_not_know(situation: Situation) -> None:
    assert the_finding(of_manifest(situation, encoding="KLINGON"), "encoding").expected == "KLINGON"


def test_a_locale_that_the_server_does_not_have(situation: Situation) -> None:
    finding = the_finding(of_manifest(situation, collate="tlh_QO.utf8", ctype="tlh_QO.utf8"), "locale")
    assert "tlh_QO.utf8" in finding.expected
    assert "could not create locale" in finding.found
    with connect(situation.target.database) as connection:
        assert not connection.execute("SELECT FROM pg_collation WHERE collname LIKE 'opsproof%'").fetchall()


def test_a_locale_for_another_encoding_is_not_looked_at(situation: Situation) -> None:
    other = of_manifest(situation, encoding="LATIN1", collate="de_DE.iso88591", ctype="de_DE.iso88591")
    assert the_finding(other, "locale", blocks=False).found.startswith("not looked at: ")
    assert examine(of_manifest(situation, encoding="LATIN1", collate="C", ctype="C")) == ()


def test_a_provider_that_came_later(situation: Situation) -> None:
    builtin = of_manifest(situation, locale_provider="builtin", locale="C.UTF-8")
    if situation.server.major >= 17:
        assert examine(builtin) == ()
    else:
        assert "PostgreSQL 17 or newer" in the_finding(builtin, "locale").expected


def test_a_role_that_may_not_do_what_it_takes(postgres: PostgresServer, situation: Situation) -> None:
    with ordinary_role(postgres) as role:
        findings = examine(as_role(situation, postgres, role))
        blocking = {finding.hint for finding in findings if finding.blocks}
        assert blocking == {
            'ALTER ROLE "preflight ordinary" CREATEDB;',
            'GRANT "postgres" TO "preflight ordinary";',
        }
        # Hints are what helps: typed in, nothing but what is worth knowing is left.
        run_sql(postgres, *blocking, database="postgres")
        left = {(one.subject, one.blocks) for one in examine(as_role(situation, postgres, role))}
        assert left == {("room", False), ("sessions", False)}


def test_the_owner_without_further_rights_is_enough(
    postgres: PostgresServer, live: DatabaseAddress, tmp_path: Path
) -> None:
    with ordinary_role(postgres, "CREATEDB") as role:
        run_sql(
            postgres,
            f'ALTER DATABASE "{LIVE}" OWNER TO "{role}"',
            f'ALTER TABLE t OWNER TO "{role}"',
            "DROP EXTENSION hstore",
        )
        situation = as_role(situation_of(postgres, live, tmp_path), postgres, role)
        findings = examine(situation)
        assert require(findings) == findings
        assert {finding.subject for finding in findings} == {"sessions", "room"}
        run_sql(postgres, f'GRANT pg_signal_backend TO "{role}"', "GRANT pg_read_all_settings TO " + f'"{role}"')
        assert examine(situation) == ()


def test_a_session_that_we_may_not_end(postgres: PostgresServer, live: DatabaseAddress, tmp_path: Path) -> None:
    with ordinary_role(postgres, "CREATEDB") as role:
        run_sql(
            postgres,
            f'ALTER DATABASE "{LIVE}" OWNER TO "{role}"',
            f'ALTER TABLE t OWNER TO "{role}"',
            "DROP EXTENSION hstore",
            f'GRANT pg_signal_backend, pg_read_all_settings TO "{role}"',
        )
        situation = as_role(situation_of(postgres, live, tmp_path), postgres, role)
        with postgres.connect(LIVE):
            assert the_finding(situation, "sessions").found == "a session of 'postgres'"


@pytest.mark.parametrize(
    ("statements", "named"),
    [
        (
            (
                "CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$",
                "CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION watch()",
            ),
            "each event trigger in the dump: watching",
        ),
        (("CREATE EXTENSION file_fdw",), "who alone may create file_fdw"),
    ],
    ids=["event trigger", "extension"],
)
def test_what_only_a_superuser_may_create(
    statements: tuple[str, ...], named: str, postgres: PostgresServer, live: DatabaseAddress, tmp_path: Path
) -> None:
    run_sql(postgres, *statements)
    situation = situation_of(postgres, live, tmp_path)
    assert examine(situation) == ()
    with ordinary_role(postgres, "CREATEDB", "IN ROLE postgres") as role:
        findings = [one for one in examine(as_role(situation, postgres, role)) if one.blocks]
        assert [named in finding.expected for finding in findings] == [True]


def test_a_standby_takes_no_restore(situation: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    read = catalog.read_rights
    monkeypatch.setattr(catalog, "read_rights", lambda connection: replace(read(connection), is_standby=True))
    assert the_finding(situation, "server").expected == "a primary"


def test_subscriptions_block_and_publications_are_worth_knowing(
    postgres: PostgresServer, live: DatabaseAddress, situation: Situation
) -> None:
    run_sql(
        postgres,
        "CREATE PUBLICATION news FOR TABLE t",
        "CREATE SUBSCRIPTION feed CONNECTION 'host=127.0.0.1' PUBLICATION x WITH (connect = false)",
    )
    try:
        findings = {(finding.found, finding.blocks) for finding in examine(situation)}
    finally:
        run_sql(postgres, "ALTER SUBSCRIPTION feed SET (slot_name = NONE)", "DROP SUBSCRIPTION feed")
    assert findings == {("'feed'", True), ("publication 'news'", False)}


@pytest.fixture(scope="module")
def logical_postgres() -> Iterator[PostgresServer]:
    """A server of its own, started again with settings that only count from the start."""
    with running_postgres("system" if has_system_postgres() else "wheel") as server:
        account = (server.folder / "data").stat()
        user: dict[str, Any] = (
            {"user": account.st_uid, "group": account.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        data = ["-D", str(server.folder / "data"), "-w"]
        settings = "-c wal_level=logical -c max_prepared_transactions=5"
        for words in (["stop", *data], ["start", *data, "-o", settings, "-l", str(server.folder / "data" / "log2")]):
            subprocess.run([server.bindir / "pg_ctl", *words], check=True, timeout=60, cwd="/", **user,
                           stdout=subprocess.DEVNULL)  # fmt: skip
        try:
            yield server
        finally:
            subprocess.run([server.bindir / "pg_ctl", "stop", *data, "-m", "fast"], check=True, timeout=60, cwd="/",
                           **user, stdout=subprocess.DEVNULL)  # fmt: skip


def test_slots_and_prepared_transactions_are_not_left_behind(logical_postgres: PostgresServer, tmp_path: Path) -> None:
    server = logical_postgres
    address = server.create_database(LIVE, "CREATE TABLE t (a int)")
    situation = situation_of(server, address, tmp_path)
    assert examine(situation) == ()
    run_sql(
        server,
        "SELECT pg_create_logical_replication_slot('reader', 'pgoutput')",
        "BEGIN",
        "INSERT INTO t VALUES (1)",
        "PREPARE TRANSACTION 'it''s half'",
    )
    findings = {finding.found: finding for finding in examine(situation)}
    assert list(findings) == ["slot 'reader'", '"it\'s half" would be left in the old database']
    assert all(finding.blocks for finding in findings.values())
    assert "SELECT pg_drop_replication_slot('reader');" in findings["slot 'reader'"].hint
    run_sql(server, "ROLLBACK PREPARED 'it''s half'", "SELECT pg_drop_replication_slot('reader')")
    assert examine(situation) == ()


def test_a_database_that_does_not_fit(situation: Situation) -> None:
    finding = the_finding(of_manifest(situation, bytes=10**18), "room")
    assert f"{10**18:,} for the database in " in finding.expected
    assert the_finding(of_backup(situation, manifest=None, database_bytes=10**18), "room").blocks


def test_in_place_needs_room_for_the_difference_only(situation: Situation) -> None:
    assert situation.live is not None
    huge = replace(situation.live, bytes=10**18)
    assert examine(replace(of_manifest(situation, bytes=10**18), live=replace(huge, bytes=2))) != ()
    in_place = replace(of_manifest(situation, bytes=10**18), live=huge, in_place=True)
    assert "0 for the database" in the_finding(in_place, "room").expected


def test_files_need_room_unless_they_are_there(situation: Situation, tmp_path: Path) -> None:
    root = tmp_path / "filestore"
    (root / "ab").mkdir(parents=True)
    (root / "ab" / "abc").write_bytes(b"x")
    settings = FilestoreSettings(PurePosixPath(root), content_addressed=True, origin="odoo.conf")
    there = Member(path="ab/abc", bytes=10**18, sha256="")
    missing = Member(path="cd/cde", bytes=10**18, sha256="")
    with_files = replace(situation, target=replace(situation.target, filestore=settings))
    assert examine(of_backup(with_files, members=(there,))) == ()
    assert f"{10**18:,} for files in {root}" in the_finding(of_backup(with_files, members=(missing,)), "room").expected
    staged = replace(with_files, target=replace(situation.target, filestore=replace(settings, content_addressed=False)))
    assert the_finding(of_backup(staged, members=(there,), files_bytes=10**18), "room").blocks


def test_what_falls_on_one_disk_is_added_up(
    situation: Situation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    root = tmp_path / "not" / "there" / "yet"
    settings = FilestoreSettings(PurePosixPath(root), content_addressed=True, origin="odoo.conf")
    free = os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize
    assert situation.live is not None
    # Neither alone is too much: the spool is half of what is live.
    live = replace(situation.live, bytes=int(free * 1.2))
    member = Member(path="ab/abc", bytes=int(free * 0.6), sha256="")
    target = replace(situation.target, filestore=settings)
    with_files = of_backup(replace(situation, live=live, target=target), members=(member,))
    expected = the_finding(with_files, "room").expected
    assert "for the safety backup in" in expected
    assert f"for files in {tmp_path}" in expected


def test_a_server_elsewhere_has_a_disk_that_cannot_be_looked_at(situation: Situation) -> None:
    address = situation.target.database
    elsewhere = replace(address, host="db.example.com", parameters={"hostaddr": "127.0.0.1"})
    target = replace(situation.target, database=elsewhere)
    assert "cannot be looked at" in the_finding(replace(situation, target=target), "room", blocks=False).found


def test_everything_in_the_way_is_told_at_once(situation: Situation) -> None:
    hopeless = of_manifest(situation, bytes=10**18, owner="nobody here", encoding="KLINGON",
                           extensions=(Extension(name="hstore", version="9.9", schema_name="public"),))  # fmt: skip
    with pytest.raises(ProofError, match="3 things stand in the way of a restore") as caught:
        require(examine(hopeless))
    error = caught.value
    assert [line[:2] for line in error.found.splitlines()] == ["1.", "2.", "3."]
    assert [line[:2] for line in error.hint.splitlines()] == ["1.", "2.", "3."]
    assert error.found.startswith("1. roles: none")
    assert "hstore" not in error.found
    assert error.kept == "nothing was changed"


def test_what_does_not_block_is_returned() -> None:
    warning = Finding("a", "b", "c", "d", blocks=False)
    assert require([warning]) == (warning,)
    with pytest.raises(ProofError, match="1 thing stands"):
        require([warning, replace(warning, blocks=True)])
