"""Preflight: nothing to say where a restore can come to its end, and a finding for each thing in its way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.archive.manifest import Extension
from opsproof.errors import DumpError, ProofError
from opsproof.inspection.finding import Finding, require
from opsproof.inspection.restores.preflight import examine
from opsproof.inspection.restores.situation import Situation
from opsproof.system.postgres import catalog
from opsproof.system.postgres.dump import ClientPrograms
from opsproof.system.postgres.server import connect
from opsproof.target import DatabaseAddress
from tests.lab.postgres_server import SYSTEM, WHEEL, PostgresServer, has_system_postgres, restarted_postgres
from tests.lab.situations import (
    LIVE,
    Stored,
    as_role,
    live,
    of_backup,
    of_manifest,
    ordinary_role,
    run_sql,
    situation,
    situation_of,
    the_finding,
)

__all__ = ["live", "situation"]


def test_nothing_is_in_the_way(situation: Situation) -> None:
    assert examine(situation) == ()
    assert require(examine(situation)) == ()


def test_nothing_is_in_the_way_where_nothing_is_live(postgres: PostgresServer, situation: Situation) -> None:
    postgres.drop_database(LIVE)
    assert examine(replace(situation, live=None)) == ()


def test_a_backup_of_others_is_looked_at_without_a_manifest(situation: Situation) -> None:
    assert examine(of_backup(situation, manifest=None)) == ()


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
    kind = SYSTEM if has_system_postgres() else WHEEL
    with restarted_postgres(kind, "-c wal_level=logical -c max_prepared_transactions=5") as server:
        yield server


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
