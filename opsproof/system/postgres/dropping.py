"""Ending a database: whatever is at work in it, and whoever asked for it."""

from __future__ import annotations

import time
from contextlib import suppress

from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import LockTimeout
from opsproof.system.postgres.server import Connection

DROP_SECONDS = 30.0
GONE_SECONDS = 60.0
POLL_SECONDS = 0.1
# What the server writes there when it begins to drop a database: if it does not come to the end, nobody can connect.
INVALID = -2


def drop(connection: Connection, name: str) -> None:
    """Drop a database, which may be gone, and end its sessions.

    Args:
        connection: A maintenance connection, of the owner or a superuser; each statement a transaction of its own.
        name: The database's.

    Raises:
        psycopg.errors.InsufficientPrivilege: The role is not its owner, or may not end a session in it.
        psycopg.Error: The server refused for another reason.
    """
    deadline, attempts = time.monotonic() + DROP_SECONDS, 0
    while True:
        try:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        except pg.InsufficientPrivilege:
            # Autovacuum has no role, so that an ordinary one may not end it by FORCE. It may have ended by itself.
            is_over = attempts > 0 and not _is_vacuumed(connection, name)
            if is_over or time.monotonic() >= deadline:
                raise
        else:
            return
        attempts += 1
        if _is_vacuumed(connection, name):
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND usesysid IS NOT NULL",
                (name,),
            )
            # Without FORCE the server ends autovacuum, and waits for others for a few seconds.
            with suppress(pg.ObjectInUse):
                connection.execute(sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(name)))


def survives(connection: Connection, name: str, timeout: float = GONE_SECONDS) -> bool:
    """Tell whether a database is there and can be worked with, once a drop of it that goes on has ended.

    The server goes on dropping when the run that asked for it is killed. If it is cut short itself, it leaves something
    under the name that can only be dropped.

    Args:
        connection: A maintenance connection.
        name: The database's.
        timeout: Seconds to wait for a drop that goes on.

    Raises:
        LockTimeout: It has not ended by then.
    """
    deadline = time.monotonic() + timeout
    while True:
        row = connection.execute(
            "SELECT datconnlimit, (SELECT min(pid) FROM pg_locks WHERE locktype = 'object' AND objid = d.oid"
            " AND classid = 'pg_database'::regclass AND mode = 'AccessExclusiveLock' AND granted)"
            " FROM pg_database d WHERE datname = %s",
            (name,),
        ).fetchone()
        if row is None or row[1] is None:
            return row is not None and row[0] != INVALID
        if time.monotonic() >= deadline:
            raise LockTimeout(
                f"Database {name!r} is being dropped or renamed",
                expected=f"an end of that within {timeout:.0f} seconds",
                found=f"process {row[1]} of the server is at it",
                kept="nothing was changed",
                hint="wait until pg_stat_activity does not show that process any more, then run the same again",
            )
        time.sleep(POLL_SECONDS)


def _is_vacuumed(connection: Connection, name: str) -> bool:
    row = connection.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND usesysid IS NULL", (name,)
    ).fetchone()
    return row is not None and row[0] > 0
