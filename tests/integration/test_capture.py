"""Capturing: whatever shape a table has, the dump's rows are the snapshot's, and the restored copy's too."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.errors import DatabaseError
from opsproof.journal import Journal, Progress
from opsproof.system.postgres.copytext import Content
from opsproof.system.postgres.server import connect
from opsproof.system.postgres.snapshot import open_snapshot
from opsproof.target import DatabaseAddress
from tests.lab.captured import (
    captured,
    clients_of,
    contents_of,
    make_database,
    restore,
    run_client,
)
from tests.lab.capturing import address, fill, prove_copies
from tests.lab.postgres_server import PostgresServer
from tests.lab.shapes import SHAPES

__all__ = ["address"]

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
