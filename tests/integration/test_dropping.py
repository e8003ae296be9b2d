"""Dropping a database that autovacuum is at work in, and telling one that is being dropped from one that is there."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import LockTimeout
from opsproof.system.postgres.dropping import drop, survives
from tests.lab.postgres_server import KINDS, PostgresServer, running_postgres
from tests.lab.waiting import await_true

ROLE = "app"
NAME = "shop__side_20260131020000"
# Autovacuum comes at once, and takes long.
SLOW = (
    "CREATE TABLE slow (x int) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,"
    " autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1)",
    "INSERT INTO slow SELECT generate_series(1, 100000)",
    "DELETE FROM slow WHERE x % 2 = 0",
)


@pytest.fixture(scope="module", params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server of its own: its settings are changed."""
    with running_postgres(request.param) as server:
        with server.connect() as connection:
            connection.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
            connection.execute("SELECT pg_reload_conf()")
            connection.execute(f"CREATE ROLE {ROLE} LOGIN CREATEDB PASSWORD '{ROLE}'")
        yield server


def count_sessions(server: PostgresServer, condition: str) -> int:
    with server.connect() as connection:
        query = f"SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND {condition}"
        row = connection.execute(query.encode(), (NAME,)).fetchone()
    return int(row[0]) if row else 0


def exists(server: PostgresServer) -> bool:
    with server.connect() as connection:
        return connection.execute("SELECT FROM pg_database WHERE datname = %s", (NAME,)).fetchone() is not None


def test_an_ordinary_role_drops_what_autovacuum_is_at_work_in(server: PostgresServer) -> None:
    server.create_database(NAME, *SLOW, owner=ROLE)
    await_true(lambda: count_sessions(server, "backend_type = 'autovacuum worker'") > 0, "autovacuum does not come", 30)
    with server.connect("postgres", ROLE, ROLE) as connection, server.connect(NAME, ROLE, ROLE) as own:
        with pytest.raises(pg.InsufficientPrivilege):
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(NAME)))
        drop(connection, NAME)
        with pytest.raises(psycopg.OperationalError):
            own.execute("SELECT 1")
    assert not exists(server)


def test_a_superusers_session_is_not_for_an_ordinary_role_to_end(server: PostgresServer) -> None:
    server.create_database(NAME, owner=ROLE)
    try:
        with server.connect(NAME) as session, server.connect("postgres", ROLE, ROLE) as connection:
            with pytest.raises(pg.InsufficientPrivilege):
                drop(connection, NAME)
            assert session.execute("SELECT 1").fetchone() == (1,)
    finally:
        server.drop_database(NAME)


def test_what_is_not_there_is_dropped_without_a_word(server: PostgresServer) -> None:
    with server.connect("postgres", ROLE, ROLE) as connection:
        drop(connection, NAME)
        assert not survives(connection, NAME)


def test_a_drop_that_goes_on_is_waited_for(server: PostgresServer) -> None:
    server.create_database(NAME, owner=ROLE)
    with server.connect("postgres", ROLE, ROLE) as connection, server.connect("postgres", ROLE, ROLE) as dropping:
        assert survives(connection, NAME)
        with server.connect() as holder:
            # Where the comments of databases are, which go with them.
            holder.execute("BEGIN; LOCK TABLE pg_catalog.pg_shdescription IN SHARE MODE")
            thread = threading.Thread(target=drop, args=(dropping, NAME))
            thread.start()
            with server.connect() as watcher:
                waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DROP DATABASE%'"
                await_true(lambda: watcher.execute(waiting.encode()).fetchone() is not None, "it is not at it")
            with pytest.raises(LockTimeout, match="is being dropped"):
                survives(connection, NAME, timeout=0.2)
            holder.execute("ROLLBACK")
        assert not survives(connection, NAME)
        thread.join(30)
    assert not exists(server)


def test_what_a_drop_that_was_cut_short_has_left_is_no_database(server: PostgresServer) -> None:
    server.create_database(NAME, owner=ROLE)
    with server.connect() as connection:
        # As the server itself marks what it begins to drop.
        connection.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = %s", (NAME,))
    with server.connect("postgres", ROLE, ROLE) as connection:
        assert exists(server)
        assert not survives(connection, NAME)
        drop(connection, NAME)
    assert not exists(server)
