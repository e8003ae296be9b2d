"""A live database and a side database beside it, clients that come again and again, and what interferes with a swap."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import sql

from opsproof.intent import Intent
from opsproof.system.postgres import renaming
from opsproof.system.postgres.databases import create_side, find_intents, oid_of, parked_name, side_name
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection, connect, describe_database
from opsproof.system.postgres.swap import swap, swap_back
from opsproof.target import DatabaseAddress
from tests.lab.postgres_server import (
    PostgresServer,
)
from tests.lab.waiting import await_true

MOMENT = datetime(2026, 1, 31, 2, 0, 0, tzinfo=UTC)
LATER = datetime(2026, 1, 31, 2, 5, 0, tzinfo=UTC)
OWNER, PASSWORD = "swap_owner", "owner's p w"
ODD = ('Größe "x" \'s %s ' + "ä" * 30).encode()[:63].decode(errors="ignore")


@dataclass(frozen=True)
class Pair:
    """A live database, whose table `which` says old, and a side database beside it, whose table says new.

    `others` are the databases that were on the server before, other tests' among them.
    """

    server: PostgresServer
    address: DatabaseAddress
    live: str
    side: str
    parked: str
    failed: str
    intent: Intent
    others: frozenset[str]

    def swap(self, timeout: float = 20.0) -> renaming.SwapResult:
        return swap(self.address, self.live, self.side, self.parked, self.intent, timeout=timeout)

    def swap_back(self, timeout: float = 20.0) -> renaming.SwapResult:
        return swap_back(self.address, self.live, self.parked, self.failed, timeout=timeout)

    def which(self, name: str = "") -> str:
        """Say what a client finds that comes now."""
        with self.server.connect(name or self.live) as connection:
            row = connection.execute("SELECT word FROM which").fetchone()
        return str(row[0]) if row else ""

    def flags(self) -> dict[str, tuple[bool, bool, int]]:
        """Return of every database, the others left out: template, connectable, connection limit."""
        with self.server.connect() as connection:
            rows = connection.execute(
                "SELECT datname, datistemplate, datallowconn, datconnlimit FROM pg_database WHERE oid > 16383"
            ).fetchall()
        return {name: (template, open_, limit) for name, template, open_, limit in rows if name not in self.others}


def make_intent(live: str, side: str, parked: str) -> Intent:
    return Intent(
        "restore",
        "r1",
        "prod",
        "erp",
        live,
        side,
        parked,
        "b",
        "",
        "stopping",
        ("odoo",),
        "2026-01-31T02:00:00Z",
        "me@x",
    )


@contextmanager
def databases(server: PostgresServer, live: str = "app", owner: str = "postgres") -> Iterator[Pair]:
    side, parked, failed = side_name(live, MOMENT), parked_name(live, MOMENT), side_name(live, LATER)
    words = ("CREATE TABLE which (word text)", "CREATE TABLE numbered (id serial, word text)")
    with server.connect() as connection:
        others = frozenset(name for (name,) in connection.execute("SELECT datname::text FROM pg_database").fetchall())
    address = server.create_database(live, *words, "INSERT INTO which VALUES ('old')", owner=owner)
    pair = Pair(server, address, live, side, parked, failed, make_intent(live, side, parked), others)
    try:
        with connect(address) as connection:
            facts = describe_database(connection)
        with maintenance(address) as connection:
            create_side(connection, side, facts, like=live)
            connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 50").format(sql.Identifier(live)))
        with server.connect(side) as connection:
            for word in (*words, "INSERT INTO which VALUES ('new')", "INSERT INTO numbered (word) VALUES ('restored')"):
                connection.execute(word.encode())
        yield pair
    finally:
        with server.connect() as connection:
            for name in (live, side, parked, failed):
                if oid_of(connection, name) is not None:
                    option = sql.SQL("ALTER DATABASE {} IS_TEMPLATE false").format(sql.Identifier(name))
                    connection.execute(option)
                    server.drop_database(name)


@pytest.fixture
def pair(postgres: PostgresServer) -> Iterator[Pair]:
    with databases(postgres) as made:
        yield made


@pytest.fixture
def owner(postgres: PostgresServer) -> Iterator[str]:
    with postgres.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(sql.Identifier(OWNER), PASSWORD))
        yield OWNER
        connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(OWNER)))


def assert_untouched(pair: Pair) -> None:
    """Say that everything is as `databases` made it."""
    assert pair.which() == "old"
    assert pair.flags() == {pair.live: (False, True, 50), pair.side: (True, True, -1)}
    with maintenance(pair.address) as connection:
        assert find_intents(connection) == ()


def assert_swapped(pair: Pair) -> None:
    assert pair.which() == "new"
    assert pair.flags() == {pair.live: (False, True, 50), pair.parked: (False, False, 50)}


class Client(threading.Thread):
    """Connects, asks what it found, stays for a moment, and comes again whenever it is thrown out."""

    def __init__(self, pair: Pair, over: threading.Event) -> None:
        super().__init__(daemon=True)
        self.pair, self.over = pair, over
        self.found: list[str] = []

    def run(self) -> None:
        while not self.over.is_set():
            try:
                with self.pair.server.connect(self.pair.live) as connection:
                    while not self.over.is_set():
                        row = connection.execute("SELECT word FROM which").fetchone()
                        self.found.append(str(row[0]) if row else "")
                        time.sleep(0.005)
            except psycopg.Error:
                time.sleep(0.002)


@contextmanager
def clients(pair: Pair, number: int = 10) -> Iterator[list[Client]]:
    over = threading.Event()
    crowd = [Client(pair, over) for _ in range(number)]
    for client in crowd:
        client.start()
    try:
        await_true(lambda: all(client.found for client in crowd), "the clients never came in", 20)
        yield crowd
    finally:
        over.set()
        for client in crowd:
            client.join(20)
            assert not client.is_alive()


def sessions_of_opsproof(pair: Pair, query: str = "") -> int:
    with pair.server.connect() as connection:
        row = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'opsproof%%' AND query LIKE %s",
            (f"%{query}%",),
        ).fetchone()
    return int(row[0]) if row else 0


def act_at(
    monkeypatch: pytest.MonkeyPatch, pair: Pair, step: str, act: Callable[[Connection], None], *, after: bool = False
) -> None:
    """Do something just before or after a statement of the swap."""
    execute = psycopg.Connection.execute

    def interfering(self: Connection, query: Any, *arguments: Any, **options: Any) -> object:
        text = query.as_string(self) if isinstance(query, sql.Composable) else str(query)
        if step in text and not after:
            act(self)
        result = execute(self, query, *arguments, **options)
        if step in text and after:
            act(self)
        return result

    monkeypatch.setattr(psycopg.Connection, "execute", interfering)


@contextmanager
def stubborn_session(pair: Pair) -> Iterator[None]:
    """A session in the live database that does not listen to being ended."""
    with pair.server.connect(pair.live) as session:
        pid = session.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(pid, signal.SIGCONT)
