"""Who notices a restore: a cron that takes every database it finds, and clients that connect again and again."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg

from tests.lab.application import Application
from tests.lab.background import Background

CLIENT_PAUSE = 0.01


class Cron(Background):
    """Asks for databases as Odoo's cron does, for as long as the block lasts.

    Attributes:
        looks: How often it asked.
        seen: Every database that it would have worked on.
    """

    QUERY = (
        "SELECT datname FROM pg_database WHERE datdba = (SELECT usesysid FROM pg_user WHERE usename = current_user)"
        " AND NOT datistemplate AND datallowconn"
    )

    def __init__(self, application: Application) -> None:
        super().__init__()
        self.looks = 0
        self.seen: set[str] = set()
        self._application = application

    def work(self) -> None:
        """Look again and again."""
        own = self._application
        with own.server.connect("postgres", own.role, own.password) as connection:
            while not self.is_over():
                self.seen.update(name for (name,) in connection.execute(self.QUERY).fetchall())
                self.looks += 1


@dataclass
class Client:
    """One client of the live database.

    Attributes:
        answers: How many queries were answered.
        failures: How many connections were ended or refused.
        gap: The longest time without an answer, in seconds.
        oid: Of the database that answered last.
    """

    answers: int = 0
    failures: int = 0
    gap: float = 0.0
    oid: int = 0
    last: float = field(default_factory=time.monotonic)

    def work(self, application: Application, stop: threading.Event) -> None:
        """Ask, and connect again at once whenever that fails, until it is told to stop."""
        while not stop.is_set():
            try:
                with application.server.connect(application.name, application.role, application.password) as connection:
                    while not stop.wait(CLIENT_PAUSE):
                        row = connection.execute(
                            "SELECT oid::bigint FROM pg_database WHERE datname = current_database()"
                        ).fetchone()
                        now = time.monotonic()
                        self.gap, self.last = max(self.gap, now - self.last), now
                        self.answers += 1
                        self.oid = int(row[0]) if row else 0
            except psycopg.Error:
                self.failures += 1
                stop.wait(CLIENT_PAUSE)


@contextmanager
def busy_clients(application: Application, count: int) -> Iterator[list[Client]]:
    """Run clients, as the application's own role, and for a second after the block."""
    stop = threading.Event()
    clients = [Client() for _ in range(count)]
    threads = [threading.Thread(target=client.work, args=(application, stop), daemon=True) for client in clients]
    for thread in threads:
        thread.start()
    try:
        yield clients
        time.sleep(1.0)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
