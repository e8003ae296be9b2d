"""Capturing: whatever shape a table has, the dump's rows are the snapshot's, and the restored copy's too."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.errors import DatabaseError, DumpError, PermissionDenied
from opsproof.journal import Journal, Progress
from opsproof.system.copytext import Content, PlainDump
from opsproof.system.postgres import connect
from opsproof.system.snapshot import open_snapshot
from opsproof.target import DatabaseAddress
from tests.lab.captured import (
    captured,
    clients_of,
    contents_of,
    make_database,
    read_fingerprints,
    replay,
    restore,
    run_client,
)
from tests.lab.postgres_server import PostgresServer
from tests.lab.shapes import SHAPES

ROLE_SETTINGS = {
    "bytea_output": "escape",
    "timezone": "Asia/Tokyo",
    "datestyle": "SQL, DMY",
    "intervalstyle": "iso_8601",
    "extra_float_digits": "-10",
    "xmlbinary": "hex",
    "search_path": "public, s",
    "quote_all_identifiers": "on",
    "row_security": "on",
    "default_transaction_isolation": "serializable",
    "statement_timeout": "50ms",
}


@pytest.fixture
def address(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    """A database whose role has settings of its own that change how values are printed."""
    try:
        yield make_database(postgres, "shapes")
    finally:
        for name in ("shapes", "copy", "replayed"):
            postgres.drop_database(name)


def fill(server: PostgresServer, address: DatabaseAddress, *statements: str) -> None:
    with server.connect(address.name) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def prove_copies(server: PostgresServer, address: DatabaseAddress, encoding: str = "UTF8") -> dict[str, Content]:
    """Capture, restore the dump, replay the SQL; return the contents, which all of them agree on."""
    clients = clients_of(server, address)
    with captured(clients) as capture:
        contents = dict(contents_of(capture))
        copies = [restore(server, capture, "copy", encoding), replay(server, capture, "replayed", encoding)]
    assert read_fingerprints(clients) == contents
    for copy in copies:
        assert read_fingerprints(clients_of(server, copy)) == contents
    return contents


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_of_table_is_counted_dumped_and_restored(
    shape: str, postgres: PostgresServer, address: DatabaseAddress
) -> None:
    fill(postgres, address, *SHAPES[shape])
    contents = prove_copies(postgres, address)
    assert (sum(content.rows or 0 for content in contents.values()) > 0) == (shape != "no tables at all")


def test_rows_are_counted_table_by_table(postgres: PostgresServer, address: DatabaseAddress) -> None:
    fill(postgres, address, *SHAPES["partitioned"], *SHAPES["inherited"], *SHAPES["without columns"])
    with captured(clients_of(postgres, address)) as capture:
        rows = {label: content.rows for label, content in contents_of(capture).items()}
    assert rows == {
        "public.p1": 1,
        "public.p2a": 1,
        "public.pd": 1,
        "public.parent": 1,
        "public.child": 2,
        "public.nothing": 4,
        "public.empty_nothing": 0,
    }


def test_counting_alone_gives_rows_without_fingerprints(postgres: PostgresServer, address: DatabaseAddress) -> None:
    fill(postgres, address, *SHAPES["inherited"], *SHAPES["odd names"])
    with captured(clients_of(postgres, address), full=False) as capture:
        contents = contents_of(capture)
    assert {content.fingerprint for content in contents.values()} == {None}
    assert contents["public.child"].rows == 2
    assert contents['public."user"'].rows == 1


def test_the_roles_own_settings_change_nothing(postgres: PostgresServer, address: DatabaseAddress) -> None:
    fill(postgres, address, *SHAPES["many types"])
    plain = prove_copies(postgres, address)
    with postgres.connect() as connection:
        for name, value in ROLE_SETTINGS.items():
            statement = "ALTER ROLE postgres IN DATABASE shapes SET {} = {}"
            values = sql.SQL(", ").join(map(sql.Literal, value.split(", ")))
            connection.execute(sql.SQL(statement).format(sql.Identifier(name), values))
    with captured(clients_of(postgres, address)) as capture:
        assert contents_of(capture) == plain


def test_virtual_generated_columns(wheel_postgres: PostgresServer) -> None:
    address = make_database(wheel_postgres, "virtual")
    try:
        fill(
            wheel_postgres,
            address,
            "CREATE TABLE g (a int, b int GENERATED ALWAYS AS (a * 2) VIRTUAL, c text)",
            "INSERT INTO g (a, c) VALUES (1, 'x'), (2, 'y')",
        )
        assert prove_copies(wheel_postgres, address)["public.g"].rows == 2
    finally:
        for name in ("virtual", "copy", "replayed"):
            wheel_postgres.drop_database(name)


@pytest.mark.parametrize("encoding", ["LATIN1", "EUC_JP", "SQL_ASCII"])
def test_a_database_of_another_encoding(encoding: str, postgres: PostgresServer) -> None:
    name = {"LATIN1": "größe", "EUC_JP": "日本", "SQL_ASCII": "größe"}[encoding]
    address = make_database(postgres, f"in {encoding}", encoding)
    try:
        with postgres.connect(address.name) as connection:
            connection.execute("SET client_encoding TO 'UTF8'")  # psycopg writes ASCII alone to SQL_ASCII
            table = sql.Identifier(name)
            connection.execute(sql.SQL("CREATE TABLE {0} ({0} text)").format(table))
            connection.execute(sql.SQL("INSERT INTO {0} VALUES ({1})").format(table, name))
        assert prove_copies(postgres, address, encoding)[f'public."{name}"'].rows == 1
    finally:
        for database in (address.name, "copy", "replayed"):
            postgres.drop_database(database)


def test_rows_that_are_no_text_in_any_encoding(postgres: PostgresServer) -> None:
    address = make_database(postgres, "bytes", "SQL_ASCII")
    psql = [postgres.bindir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", address.conninfo()]
    try:
        run_client(postgres, psql, b"CREATE TABLE t (a text); INSERT INTO t VALUES ('gr\xf6\xdfe'), ('gr\xc3\xb6');")
        assert prove_copies(postgres, address, "SQL_ASCII")["public.t"].rows == 2
        run_client(postgres, psql, b'CREATE TABLE "gr\xf6\xdfe" (a text);')
        with (
            pytest.raises(DatabaseError, match="name in it that is not UTF-8"),
            captured(clients_of(postgres, address)),
        ):
            pass
    finally:
        for database in ("bytes", "copy", "replayed"):
            postgres.drop_database(database)


def test_large_objects_of_every_size(postgres: PostgresServer, address: DatabaseAddress) -> None:
    big = os.urandom(3_000_000)
    objects = {1001: b"", 1002: b"small", 1003: big, 4_294_967_294: b"the last"}
    with postgres.connect(address.name) as connection:
        for oid, data in objects.items():
            connection.execute("SELECT lo_from_bytea(%s, %s)", (oid, data))
        # A hole: nothing was ever written to its first megabyte.
        connection.execute("SELECT lo_create(1005)")
        connection.execute("SELECT lo_put(1005, 1000000, 'end')")
    objects[1005] = bytes(1_000_000) + b"end"
    clients = clients_of(postgres, address)
    with captured(clients) as capture:
        contents_of(capture)
        copy = restore(postgres, capture, "copy")
    expected = {oid: Content(len(data), hashlib.sha256(data).hexdigest()) for oid, data in objects.items()}
    assert capture.counted_objects == expected
    with connect(copy) as connection, open_snapshot(connection) as snapshot:
        assert snapshot.large_objects() == expected


def test_an_extensions_configuration_table(wheel_postgres: PostgresServer) -> None:
    """The rows that pg_dump takes of it are those of the condition that the extension gave; no contrib has one."""
    folder = wheel_postgres.bindir.parent / "share" / "extension"
    (folder / "lab_settings.control").write_text("default_version = '1'\nrelocatable = false\nschema = public\n")
    (folder / "lab_settings--1.sql").write_text(
        'CREATE TABLE lab_settings (name text, "is mine" bool);\n'
        "INSERT INTO lab_settings VALUES ('built in', false);\n"
        "SELECT pg_catalog.pg_extension_config_dump('lab_settings', 'WHERE \"is mine\"');\n"
        "CREATE TABLE lab_all (a int);\n"
        "SELECT pg_catalog.pg_extension_config_dump('lab_all', '');\n"
        "CREATE TABLE lab_private (a int);\n"
    )
    address = make_database(wheel_postgres, "extended")
    try:
        fill(
            wheel_postgres,
            address,
            "CREATE EXTENSION lab_settings",
            "INSERT INTO lab_settings VALUES ('of the user', true)",
            "INSERT INTO lab_all VALUES (1), (2)",
            "INSERT INTO lab_private VALUES (1)",
        )
        contents = prove_copies(wheel_postgres, address)
        rows = {label: content.rows for label, content in contents.items()}
        assert rows == {"public.lab_settings": 1, "public.lab_all": 2}
    finally:
        for name in ("extended", "copy", "replayed"):
            wheel_postgres.drop_database(name)


class TestRowSecurity:
    @pytest.fixture
    def secured(self, postgres: PostgresServer, address: DatabaseAddress) -> Iterator[PostgresServer]:
        """Two rows, of which everybody but the owner sees one."""
        with postgres.connect() as connection:
            connection.execute("CREATE ROLE rls_owner LOGIN PASSWORD 'owner-secret'")
            connection.execute("CREATE ROLE rls_reader LOGIN PASSWORD 'reader-secret'")
        try:
            fill(
                postgres,
                address,
                "CREATE TABLE secured (a int)",
                "INSERT INTO secured VALUES (1), (2)",
                "ALTER TABLE secured OWNER TO rls_owner",
                "ALTER TABLE secured ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY one_row ON secured USING (a = 1)",
                "GRANT SELECT ON secured TO rls_reader",
            )
            yield postgres
        finally:
            postgres.drop_database("shapes")
            with postgres.connect() as connection:
                connection.execute("DROP ROLE rls_owner")
                connection.execute("DROP ROLE rls_reader")

    def test_the_owner_sees_every_row(self, secured: PostgresServer) -> None:
        address = secured.address("shapes", "rls_owner", "owner-secret")
        with captured(clients_of(secured, address)) as capture:
            assert contents_of(capture)["public.secured"].rows == 2

    @pytest.mark.parametrize("full", [True, False], ids=["fingerprints", "counts"])
    def test_a_role_that_would_see_some_rows_is_told_so(self, secured: PostgresServer, full: bool) -> None:
        address = secured.address("shapes", "rls_reader", "reader-secret")
        clients = clients_of(secured, address)
        with pytest.raises(PermissionDenied, match="Row-level security") as caught, captured(clients, full=full):
            pass
        assert 'ALTER ROLE "rls_reader" BYPASSRLS' in caught.value.hint


@pytest.fixture(scope="module")
def real_dump(wheel_postgres: PostgresServer) -> Iterator[tuple[bytes, dict[bytes, str]]]:
    """The plain text of a real dump, and the tables of its snapshot."""
    address = make_database(wheel_postgres, "to cut")
    try:
        for name in ("odd names", "values that look like the dump", "without columns", "inherited"):
            fill(wheel_postgres, address, *SHAPES[name])
        fill(wheel_postgres, address, "SELECT lo_from_bytea(0, 'a large object')")
        clients = clients_of(wheel_postgres, address)
        with connect(address) as connection, open_snapshot(connection) as snapshot:
            tables = {table.header: table.label for table in snapshot.tables}
        with captured(clients) as capture:
            text = b"".join(capture.sql.unpacked())
        yield text, tables
    finally:
        wheel_postgres.drop_database("to cut")


def read(text: bytes, tables: dict[bytes, str]) -> PlainDump:
    dump = PlainDump(tables)
    dump.feed(text)
    dump.finish()
    return dump


def test_a_real_dump_cut_anywhere_is_an_error(real_dump: tuple[bytes, dict[bytes, str]]) -> None:
    text, tables = real_dump
    whole = text.index(b"\n-- PostgreSQL database dump complete\n--") + len("\n-- PostgreSQL database dump complete\n")
    assert set(read(text, tables).contents) == set(tables.values())
    for cut in [*range(0, whole, max(1, whole // 60)), whole - 1]:
        with pytest.raises(DumpError):
            read(text[:cut], tables)


def test_a_real_dump_reads_the_same_byte_by_byte(real_dump: tuple[bytes, dict[bytes, str]]) -> None:
    text, tables = real_dump
    dump = PlainDump(tables)
    for at in range(len(text)):
        dump.feed(text[at : at + 1])
    dump.finish()
    whole = read(text, tables)
    assert (dump.contents, dump.large_objects) == (whole.contents, whole.large_objects)


def test_progress_is_reported_while_it_runs(wheel_postgres: PostgresServer) -> None:
    address = wheel_postgres.create_database(
        "progress", "CREATE TABLE t AS SELECT n, repeat('x', 500) AS x FROM generate_series(1, 60000) n"
    )
    heard: list[Progress] = []
    journal = Journal()
    journal.listen(heard.append)
    try:
        with captured(clients_of(wheel_postgres, address), journal=journal) as capture:
            size = capture.dump.size
    finally:
        wheel_postgres.drop_database("progress")
    assert heard
    assert [one.done for one in heard] == sorted(one.done for one in heard)
    assert heard[-1].done <= size
    assert all(one.phase == "dump" for one in heard)


def test_a_capture_under_writers_is_one_moment(postgres: PostgresServer, address: DatabaseAddress) -> None:
    """Two tables that are always changed together agree in the dump, however long it takes to read them."""
    fill(
        postgres,
        address,
        "CREATE TABLE a AS SELECT n, repeat('x', 200) AS x FROM generate_series(1, 20000) n",
        "CREATE TABLE z AS SELECT n FROM generate_series(1, 20000) n",
    )
    stop = threading.Event()
    rounds = 0

    def write() -> None:
        nonlocal rounds
        with postgres.connect(address.name) as connection:
            while not stop.is_set():
                with connection.transaction():
                    connection.execute("INSERT INTO a VALUES (0, 'new'), (0, 'newer')")
                    connection.execute("INSERT INTO z VALUES (0), (0)")
                with connection.transaction():
                    connection.execute("DELETE FROM a WHERE ctid = (SELECT min(ctid) FROM a)")
                    connection.execute("DELETE FROM z WHERE ctid = (SELECT min(ctid) FROM z)")
                rounds += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            with captured(clients_of(postgres, address)) as capture:
                rows = {label: content.rows for label, content in contents_of(capture).items()}
            assert rows["public.a"] == rows["public.z"]
    finally:
        stop.set()
        writer.join()
    assert rounds > 3


def test_the_spools_hold_what_a_bundle_needs(
    postgres: PostgresServer, address: DatabaseAddress, tmp_path: Path
) -> None:
    fill(postgres, address, *SHAPES["odd names"])
    with captured(clients_of(postgres, address)) as capture:
        dump, text = b"".join(capture.dump.unpacked()), b"".join(capture.sql.unpacked())
    assert dump.startswith(b"PGDMP")
    assert (hashlib.sha256(dump).hexdigest(), len(dump)) == (capture.dump.sha256, capture.dump.size)
    assert (hashlib.sha256(text).hexdigest(), len(text)) == (capture.sql.sha256, capture.sql.size)
    assert b"-- PostgreSQL database dump complete" in text[-200:]
