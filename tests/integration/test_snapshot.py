"""The snapshot: one moment, whatever others do meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import psycopg
import pytest
from psycopg import errors as pg

from opsproof.errors import DatabaseError, LockTimeout, PermissionDenied
from opsproof.system.postgres.copytext import Content
from opsproof.system.postgres.server import connect
from opsproof.system.postgres.snapshot import Sequence, open_snapshot
from opsproof.target import DatabaseAddress
from tests.lab.captured import captured, clients_of, contents_of, make_database, print_fingerprints
from tests.lab.postgres_server import PostgresServer

TABLES = (
    "CREATE TABLE t AS SELECT n, repeat('x', 100) AS x FROM generate_series(1, 20000) n",
    "CREATE TABLE u AS SELECT n FROM generate_series(1, 100) n",
)


@pytest.fixture
def address(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    make_database(postgres, "moments")
    with postgres.connect("moments") as connection:
        for statement in TABLES:
            connection.execute(statement.encode())
    yield postgres.address("moments")
    postgres.drop_database("moments")


def test_what_is_written_afterwards_is_not_in_it(postgres: PostgresServer, address: DatabaseAddress) -> None:
    clients = clients_of(postgres, address)
    with connect(address) as connection, open_snapshot(connection) as snapshot:
        before = print_fingerprints(clients, snapshot)
        with postgres.connect("moments") as writer:
            writer.execute("INSERT INTO t VALUES (0, 'new')")
            writer.execute("DELETE FROM t WHERE n < 100")
            writer.execute("UPDATE u SET n = -n")
            writer.execute("CREATE TABLE later (a int)")
            writer.execute("CREATE SCHEMA later_still")
        assert print_fingerprints(clients, snapshot) == before
        assert snapshot.count_rows() == {"public.t": Content(20_000, None), "public.u": Content(100, None)}
    with connect(address) as connection, open_snapshot(connection) as snapshot:
        assert snapshot.count_rows()["public.t"].rows == 20_000 + 1 - 100


@pytest.mark.parametrize(
    "statement",
    ["TRUNCATE t", "DROP TABLE t", "ALTER TABLE t ADD COLUMN y int DEFAULT 7", "ALTER TABLE t ALTER n TYPE text"],
)
def test_a_table_can_neither_be_emptied_nor_rewritten(
    statement: str, postgres: PostgresServer, address: DatabaseAddress
) -> None:
    with connect(address) as connection, open_snapshot(connection) as snapshot, postgres.connect("moments") as other:
        other.execute("SET lock_timeout = '200ms'")
        with pytest.raises(pg.LockNotAvailable):
            other.execute(statement.encode())
        other.execute("INSERT INTO t (n) VALUES (1)")
        assert snapshot.count_rows()["public.t"].rows == 20_000
    with postgres.connect("moments") as other:
        other.execute("SET lock_timeout = '2s'")
        other.execute(statement.encode())  # the locks have gone with the snapshot


def test_a_dump_under_writers_and_schema_changes_is_the_snapshot(
    postgres: PostgresServer, address: DatabaseAddress
) -> None:
    stop, blocked, done = threading.Event(), 0, 0

    def disturb() -> None:
        nonlocal blocked, done
        with postgres.connect("moments") as connection:
            connection.execute("SET lock_timeout = '10ms'")
            while not stop.is_set():
                connection.execute("INSERT INTO t VALUES (0, 'new')")
                connection.execute("DELETE FROM t WHERE ctid IN (SELECT ctid FROM t LIMIT 3)")
                connection.execute("CREATE INDEX IF NOT EXISTS by_n ON u (n)")
                try:
                    connection.execute("TRUNCATE u")
                    connection.execute("INSERT INTO u SELECT generate_series(1, 100)")
                except pg.LockNotAvailable:
                    blocked += 1
                done += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        for _ in range(3):
            with captured(clients_of(postgres, address)) as capture:
                contents_of(capture)
    finally:
        stop.set()
        thread.join()
    assert done > 3
    assert blocked > 0


def test_tables_in_many_schemas_have_labels_that_tell_them_apart(
    postgres: PostgresServer, address: DatabaseAddress
) -> None:
    with postgres.connect("moments") as connection:
        for statement in (
            'CREATE SCHEMA "a.b"',
            'CREATE TABLE "a.b".c ()',
            "CREATE SCHEMA a",
            'CREATE TABLE a."b.c" ()',
        ):
            connection.execute(statement.encode())
    with connect(address) as connection, open_snapshot(connection) as snapshot:
        assert [table.label for table in snapshot.tables] == ['a."b.c"', '"a.b".c', "public.t", "public.u"]
        assert snapshot.tables_named("c") == ["a.b"]
        assert snapshot.tables_named("missing") == []


def test_more_tables_than_are_locked_at_once(wheel_postgres: PostgresServer) -> None:
    make_database(wheel_postgres, "many tables")
    try:
        with wheel_postgres.connect("many tables") as connection:
            connection.execute(
                "DO $$ BEGIN FOR n IN 1..1203 LOOP EXECUTE format('CREATE TABLE t%s (a int)', n);"
                " IF n % 200 = 0 THEN COMMIT; END IF; END LOOP; END $$"
            )
        address = wheel_postgres.address("many tables")
        with connect(address) as connection, open_snapshot(connection) as snapshot:
            assert len(snapshot.tables) == 1_203
            locked = connection.execute(
                "SELECT count(*) FROM pg_locks JOIN pg_class c ON c.oid = relation"
                " WHERE c.relname ~ '^t[0-9]+$' AND mode = 'AccessShareLock' AND pid = pg_backend_pid()"
            ).fetchone()
        assert locked == (1_203,)
    finally:
        wheel_postgres.drop_database("many tables")


def test_sequences_have_their_values(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with postgres.connect("moments") as connection:
        connection.execute('CREATE SEQUENCE "Used Up"')
        connection.execute("SELECT nextval('\"Used Up\"') FROM generate_series(1, 41)")
        connection.execute("CREATE SEQUENCE fresh")
    with connect(address) as connection, open_snapshot(connection) as snapshot:
        assert snapshot.sequences() == (Sequence('public."Used Up"', 41), Sequence("public.fresh", None))


def test_columns_are_found_and_read(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with postgres.connect("moments") as connection:
        connection.execute('CREATE TABLE "Odd %s" ("a %" text, gone int, state text)')
        connection.execute('ALTER TABLE "Odd %s" DROP COLUMN gone')
        connection.execute("INSERT INTO \"Odd %s\" VALUES ('x', 'on'), ('x', 'off'), (NULL, 'on'), ('y', 'off')")
    with connect(address) as connection, open_snapshot(connection) as snapshot:
        assert snapshot.has_column("public", "Odd %s", "a %")
        for missing in (("public", "Odd %s", "gone"), ("public", "Odd", "a %"), ("none", "Odd %s", "a %")):
            assert not snapshot.has_column(*missing)
        assert sorted(snapshot.column("public", "Odd %s", "a %")) == ["x", "y"]
        assert snapshot.column("public", "Odd %s", "a %", "state = 'on'") == ["x"]
        assert snapshot.rows("public", "Odd %s", ("state", "a %"), "state = 'off'") == [("off", "x"), ("off", "y")]


def test_nothing_can_be_written_in_it(address: DatabaseAddress) -> None:
    with pytest.raises(DatabaseError, match="read-only"), connect(address) as connection, open_snapshot(connection):
        connection.execute("INSERT INTO public.u VALUES (1)")


def test_it_ends_with_the_block_after_an_error_too(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with connect(address) as connection:
        for error in (ValueError, psycopg.errors.DivisionByZero):
            with pytest.raises(error), open_snapshot(connection):
                raise error("in between")
            with postgres.connect() as other:
                held = other.execute(
                    "SELECT count(*) FROM pg_stat_activity WHERE datname = 'moments' AND backend_xmin IS NOT NULL"
                ).fetchone()
            assert held == (0,)


def test_a_lock_that_is_not_to_be_had_is_an_error(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with postgres.connect("moments") as holder, holder.transaction():
        holder.execute("LOCK TABLE u IN ACCESS EXCLUSIVE MODE")
        with (
            pytest.raises(LockTimeout, match="not to be had in time") as caught,
            connect(address, lock_timeout=0.3) as connection,
            open_snapshot(connection),
        ):
            pass
    assert "pg_stat_activity" in caught.value.hint


def test_a_table_that_may_not_be_read_is_an_error(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with postgres.connect("moments") as connection:
        connection.execute("CREATE ROLE snap_reader LOGIN PASSWORD 'reader-secret'")
        connection.execute("GRANT SELECT ON u TO snap_reader")
    try:
        reader = postgres.address("moments", "snap_reader", "reader-secret")
        with (
            pytest.raises(PermissionDenied, match="permission denied for table t") as caught,
            connect(reader) as connection,
            open_snapshot(connection),
        ):
            pass
        assert 'GRANT pg_read_all_data TO "snap_reader"' in caught.value.hint
    finally:
        with postgres.connect("moments") as connection:
            connection.execute("DROP OWNED BY snap_reader")
            connection.execute("DROP ROLE snap_reader")


def test_the_moment_is_the_servers_in_utc(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with postgres.connect() as other, connect(address) as connection:
        before = other.execute("SELECT clock_timestamp()").fetchone()
        with open_snapshot(connection) as snapshot:
            after = other.execute("SELECT clock_timestamp()").fetchone()
            assert before is not None
            assert after is not None
            assert before[0] <= snapshot.taken <= after[0]
            assert snapshot.taken.utcoffset() is not None
            assert str(snapshot.taken).endswith("+00:00")
            assert snapshot.encoding == "UTF8"


def test_a_big_large_object_is_hashed_in_pieces_to_the_same_result(
    postgres: PostgresServer, address: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    with postgres.connect("moments") as connection:
        connection.execute("SELECT lo_from_bytea(1001, convert_to(repeat('abc', 700000), 'UTF8')), lo_create(1002)")
        connection.execute("SELECT lo_from_bytea(1003, 'x'), lo_put(1003, 3000000, 'behind a hole')")
    with connect(address) as connection, open_snapshot(connection) as snapshot:
        whole = snapshot.large_objects()
        monkeypatch.setattr("opsproof.system.postgres.snapshot.BIG_OBJECT_BYTES", 1000)
        monkeypatch.setattr("opsproof.system.postgres.snapshot.PIECE_BYTES", 65_537)
        assert snapshot.large_objects() == whole
    assert {oid: content.rows for oid, content in whole.items()} == {1001: 2_100_000, 1002: 0, 1003: 3_000_013}


def test_options_of_the_address_cannot_undo_what_text_depends_on(
    postgres: PostgresServer, address: DatabaseAddress
) -> None:
    with postgres.connect("moments") as connection:
        connection.execute("CREATE TABLE moment AS SELECT now() AS at, '\\x00ff'::bytea AS bytes")
    contrary = replace(address, parameters={"options": "-c timezone=Asia/Bahrain -c bytea_output=escape"})
    with captured(clients_of(postgres, contrary)) as capture, captured(clients_of(postgres, address)) as plain:
        assert contents_of(capture) == contents_of(plain)
