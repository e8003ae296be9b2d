"""Plain SQL before a restore: the roles, extensions and tablespaces that its text names are looked at, too."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.errors import DumpError
from opsproof.inspection.restores.preflight import UNREAD, examine
from opsproof.inspection.restores.situation import Situation
from opsproof.system.postgres.dumpfile import DumpFile, read_plain_schema
from tests.lab.captured import captured, clients_of, make_database, run_client
from tests.lab.postgres_server import PostgresServer
from tests.lab.shapes import SHAPES
from tests.lab.situations import (
    LIVE,
    as_role,
    live,
    of_backup,
    ordinary_role,
    run_sql,
    situation,
    situation_of,
    the_finding,
)

__all__ = ["live", "situation"]

ROLE = "plain reader"
STATEMENTS = (
    f'CREATE ROLE "{ROLE}"',
    "CREATE TABLE u (a int)",
    "INSERT INTO u VALUES (1), (2)",
    f'ALTER TABLE u OWNER TO "{ROLE}"',
    f'GRANT SELECT ON t TO "{ROLE}"',
    "SELECT lo_from_bytea(4001, repeat('abc', 10000)::bytea)",
)


@pytest.fixture
def plain(situation: Situation, postgres: PostgresServer, tmp_path: Path) -> Iterator[Situation]:
    """A restore of plain SQL of ours that names a role, which is gone again."""
    run_sql(postgres, *STATEMENTS)
    try:
        address = situation.target.database
        made = situation_of(postgres, address, tmp_path)
        with captured(made.clients) as capture:
            path = tmp_path / "plain.sql"
            path.write_bytes(b"".join(capture.sql.unpacked()))
        yield of_backup(replace(made, dump=path, live=None), database_format="plain")
    finally:
        postgres.drop_database(LIVE)
        run_sql(postgres, f'DROP ROLE IF EXISTS "{ROLE}"', database="postgres")


def forget(server: PostgresServer) -> None:
    """Take the role away, and all that it has."""
    server.drop_database(LIVE)
    run_sql(server, f'DROP ROLE "{ROLE}"', database="postgres")


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "of others"])
def test_a_role_that_the_text_names(is_ours: bool, plain: Situation, postgres: PostgresServer) -> None:
    plain = plain if is_ours else of_backup(plain, manifest=None)
    assert examine(plain) == ()
    forget(postgres)
    finding = the_finding(plain, "roles")
    assert finding.expected == f"a role {ROLE!r}"
    # Nothing could put another in its place: psql runs the text as it stands.
    assert finding.hint == f'CREATE ROLE "{ROLE}" NOLOGIN;'
    run_sql(postgres, finding.hint, database="postgres")
    assert examine(plain) == ()


def test_map_role_has_no_effect_on_plain_sql_and_says_so(plain: Situation, postgres: PostgresServer) -> None:
    finding = the_finding(replace(plain, roles={ROLE: "postgres"}), "roles")
    assert finding.found == "plain SQL, which names that role itself"
    assert finding.hint.endswith(f'REASSIGN OWNED BY "{ROLE}" TO "postgres";')
    forget(postgres)
    both = examine(replace(plain, roles={ROLE: "postgres"}))
    assert [one.expected.split(",")[0] for one in both] == ["a custom dump", f"a role {ROLE!r}"]


def test_an_extension_that_only_the_text_names(plain: Situation) -> None:
    text = plain.dump.read_text()
    assert "CREATE EXTENSION IF NOT EXISTS hstore" in text
    plain.dump.write_text(text.replace("hstore", "gone_ext"))
    assert the_finding(plain, "extensions").expected == "gone_ext, available on the server"


def test_a_tablespace_that_the_text_names(plain: Situation) -> None:
    text = plain.dump.read_text()
    plain.dump.write_text(text.replace("SET default_tablespace = '';", 'SET default_tablespace = "fast one";'))
    assert the_finding(plain, "tablespaces").expected == "a tablespace 'fast one'"


def test_an_owner_that_the_role_may_not_give_things_to(plain: Situation, postgres: PostgresServer) -> None:
    with ordinary_role(postgres, "CREATEDB", "IN ROLE postgres") as role:
        blocking = [one for one in examine(as_role(plain, postgres, role)) if one.blocks]
    assert [one.hint for one in blocking][:1] == [f'GRANT "{ROLE}" TO "{role}";']


def test_what_was_not_looked_at_is_said(plain: Situation, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opsproof.system.postgres.dumpfile.MOST_TEXT", 100)
    assert examine(plain) == (UNREAD,)
    assert not UNREAD.blocks


def test_a_file_that_cannot_be_read_is_an_error(plain: Situation) -> None:
    with pytest.raises(DumpError, match="nowhere cannot be read"):
        examine(replace(plain, dump=Path("/nowhere")))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_text_names_what_the_dump_names(shape: str, wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    """Rows that look like statements, or like the end of rows, are neither."""
    server, name = wheel_postgres, "preflight shape"
    clients = clients_of(server, make_database(server, name))
    try:
        run_sql(server, *SHAPES[shape], "CREATE TABLE z_last (a int)", "INSERT INTO z_last VALUES (1)", database=name)
        with captured(clients) as capture:
            custom, plain = tmp_path / "custom", tmp_path / "plain"
            custom.write_bytes(b"".join(capture.dump.unpacked()))
            plain.write_bytes(b"".join(capture.sql.unpacked()))
    finally:
        server.drop_database(name)
    expected = DumpFile(custom, clients.programs, clients.host).schema
    found = read_plain_schema(plain)
    assert found is not None
    assert found.roles() == expected.roles() == {"postgres"}
    for kind in ("TABLE", "EXTENSION", "FUNCTION", "CONSTRAINT"):
        assert found.named(kind) == expected.named(kind)


@pytest.mark.parametrize("option", ["--inserts", "--column-inserts", "--rows-per-insert=2"])
def test_rows_that_are_statements(option: str, wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    """Others dump rows so; what of a row goes on in other lines hides no owner, and names none."""
    server, name, role = wheel_postgres, "preflight inserts", "inserts owner"
    address = make_database(server, name)
    try:
        run_sql(
            server,
            f'CREATE ROLE "{role}"',
            "CREATE TABLE t (a text)",
            f'ALTER TABLE t OWNER TO "{role}"',
            "INSERT INTO t VALUES (E'one\\ntwo'), (E'x\\nALTER TABLE public.t OWNER TO nobody;'), ('three')",
            database=name,
        )
        plain = tmp_path / "plain"
        run_client(server, [server.bindir / "pg_dump", option, "-f", plain, "-d", address.conninfo()])
    finally:
        server.drop_database(name)
        run_sql(server, f'DROP ROLE "{role}"', database="postgres")
    schema = read_plain_schema(plain)
    assert schema is not None
    assert schema.owners() == schema.roles() == {role}
