"""The application's rows: what it reads and writes in its database."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg

from .settings import Settings

_KEPT = 4


class Records:
    """The application's database over a few connections that stay open, as a web application's do.

    A connection that was ended meanwhile (a restart of the server, a swap of databases) is replaced by a new one.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._idle: list[psycopg.Connection[Any]] = []
        self._lock = threading.Lock()

    def database(self) -> str:
        """Return the name of the database that answers."""
        with self.transaction() as connection:
            row = connection.execute("SELECT current_database()").fetchone()
        return str(row[0]) if row else ""

    def counts(self) -> dict[str, int]:
        """Return how many contacts, orders, messages and attachments there are, and how many the writer made."""
        with self.transaction() as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM res_partner), (SELECT count(*) FROM sale_order), "
                "(SELECT count(*) FROM mail_message), (SELECT count(*) FROM ir_attachment), "
                "(SELECT count(*) FROM mail_message WHERE message_type = 'notification'), "
                "(SELECT count(*) FROM ir_attachment WHERE res_model = 'mail.message')"
            ).fetchone()
        names = ("contacts", "orders", "messages", "attachments", "notifications", "notes")
        return dict(zip(names, row or (), strict=True))

    def recent_messages(self, limit: int) -> list[tuple[str, str, str]]:
        """Return date, author and subject of the latest messages."""
        with self.transaction() as connection:
            rows = connection.execute(
                "SELECT to_char(m.date, 'YYYY-MM-DD HH24:MI'), coalesce(p.name, m.email_from, ''), "
                "coalesce(m.subject, '') FROM mail_message m LEFT JOIN res_partner p ON p.id = m.author_id "
                "ORDER BY m.id DESC LIMIT %s",
                [limit],
            ).fetchall()
        return [(str(date), str(author), str(subject)) for date, author, subject in rows]

    def add_message(self, subject: str, body: str) -> int:
        """Add a notification and return its id."""
        with self.transaction() as connection:
            row = connection.execute(
                "INSERT INTO mail_message (model, message_type, subject, body, email_from, date) VALUES "
                "('sale.order', 'notification', %s, %s, 'bot@shop.example', now() AT TIME ZONE 'UTC') RETURNING id",
                [subject, body],
            ).fetchone()
        return int(row[0]) if row else 0

    def prune_notifications(self, keep: int) -> int:
        """Delete all but the latest notifications and return how many went; other messages are never deleted."""
        with self.transaction() as connection:
            return connection.execute(
                "DELETE FROM mail_message WHERE message_type = 'notification' AND id <= (SELECT id FROM mail_message "
                "WHERE message_type = 'notification' ORDER BY id DESC OFFSET %s LIMIT 1)",
                [keep],
            ).rowcount

    def add_attachment(self, name: str, mimetype: str, stored: str, size: int) -> int:
        """Add the row of a file that is in the filestore already, and return its id."""
        with self.transaction() as connection:
            row = connection.execute(
                "INSERT INTO ir_attachment (name, res_model, type, store_fname, checksum, file_size, mimetype, "
                "create_date) VALUES (%s, 'mail.message', 'binary', %s, %s, %s, %s, now() AT TIME ZONE 'UTC') "
                "RETURNING id",
                [name, stored, stored.partition("/")[2], size, mimetype],
            ).fetchone()
        return int(row[0]) if row else 0

    def attachment(self, number: int) -> Attachment | None:
        """Return an attachment's row."""
        with self.transaction() as connection:
            row = connection.execute(
                "SELECT name, mimetype, store_fname FROM ir_attachment WHERE id = %s", [number]
            ).fetchone()
        return Attachment(*row) if row else None

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Connection[Any]]:
        """Give a connection for one transaction; an exception undoes it."""
        connection = self._take()
        try:
            with connection.transaction():
                yield connection
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if len(self._idle) < _KEPT:
                self._idle.append(connection)
                return
        connection.close()

    def _take(self) -> psycopg.Connection[Any]:
        """Return a kept connection that still answers, or a new one."""
        while True:
            with self._lock:
                connection = self._idle.pop() if self._idle else None
            if connection is None:
                return self._settings.connect()
            try:
                connection.execute("SELECT 1")
            except psycopg.Error:
                connection.close()
            else:
                return connection


@dataclass(frozen=True)
class Attachment:
    """What a row of ir_attachment says of its file."""

    name: str
    mimetype: str
    stored: str
