"""Renaming databases that are in use, all of them in one transaction.

While the first rename waits for the sessions of its database to end, nobody new gets in: a second connection ends
those that are there. Whatever happens before the commit (a kill, a lost connection, a server that stops) leaves
everything as it was. The transaction is short of patience, so that a machine that vanishes in the midst of it holds
nobody up for long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import ConnectionFailed, DatabaseError, DatabaseMissing
from opsproof.system.postgres.databases import explained, oid_of
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection
from opsproof.system.postgres.sessions import sessions_ended, who_holds
from opsproof.target import DatabaseAddress

PATIENCE_SECONDS = 5.0
DOUBT_SECONDS = 30.0
RETRY_SECONDS = 0.25
HELD = (pg.ObjectInUse, pg.LockNotAvailable, pg.QueryCanceled)


@dataclass(frozen=True)
class SwapResult:
    """Names that were changed.

    Attributes:
        seconds: How long it took, and so how long new connections waited at most.
        ended: How many sessions were ended.
        xid: Its transaction, 64 bits wide.
        oid: Of the database that has the live name now; where none has, of that which had it.
    """

    seconds: float
    ended: int
    xid: str
    oid: int


def rename_together(
    address: DatabaseAddress,
    moves: Sequence[tuple[str, str]],
    finish: Callable[[Connection, str], None],
    result: str,
    timeout: float,
) -> SwapResult:
    """Rename databases and do what belongs to it in one transaction; try again while somebody holds one of them.

    Args:
        address: The server, and who does it.
        moves: Names and new names, in their order.
        finish: What else is to be part of the transaction; gets its connection and its 64-bit id.
        result: The new name of the database that the result is about.
        timeout: Seconds until it gives up, with everything as it was.

    Raises:
        DatabaseMissing: One of them does not exist.
        PermissionDenied: The role may not.
        DatabaseError: Somebody who cannot be ended held one of them all the time; or a name is taken.
        ConnectionFailed: The connection was lost; `kept` says whether the names are changed.
    """
    deadline = time.monotonic() + timeout
    with maintenance(address) as connection, maintenance(address) as other:
        oids = [_require(other, name, address) for name, _ in moves]
        while True:
            held = who_holds(other, oids)
            if not held:
                try:
                    with explained(f"{_told(moves)}: the server refused"):
                        _limit_patience(connection, deadline - time.monotonic())
                        return _attempt(address, connection, other, oids, moves, finish, result)
                except DatabaseError as error:
                    if not isinstance(error.__cause__, HELD):
                        raise
                    held = who_holds(other, oids) or (error.found,)
            if time.monotonic() >= deadline:
                raise DatabaseError(
                    f"{_told(moves)}: somebody held it for {timeout:g} seconds",
                    expected="no sessions but those that this role may end, no prepared transactions, no slots in use",
                    found="\n".join(held),
                    kept="nothing was changed; all databases are open under the names that they had",
                    hint="end what holds it, as a superuser where it is one's: SELECT pg_terminate_backend(PID)",
                )
            time.sleep(RETRY_SECONDS)


def _attempt(
    address: DatabaseAddress,
    connection: Connection,
    other: Connection,
    oids: Sequence[int],
    moves: Sequence[tuple[str, str]],
    finish: Callable[[Connection, str], None],
    result: str,
) -> SwapResult:
    started, xid, oid = time.monotonic(), "", None
    ended: set[int] = set()
    committing = False
    try:
        with connection.transaction():
            row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
            xid = row[0] if row else ""
            # Only until they have their names: were the transaction to end early, newcomers must be left alone.
            with sessions_ended(other, oids, ended):
                for name, new in moves:
                    words = sql.Identifier(name), sql.Identifier(new)
                    connection.execute(sql.SQL("ALTER DATABASE {} RENAME TO {}").format(*words))
            finish(connection, xid)
            oid = oid_of(connection, result)
            committing = True
    except psycopg.OperationalError as error:
        if not (committing and connection.broken):
            raise
        _ask_whether_committed(address, xid, moves, error)
    return SwapResult(time.monotonic() - started, len(ended), xid, oid or 0)


def _limit_patience(connection: Connection, seconds: float) -> None:
    """Bound every wait of the transaction: new connections to the live database wait on it."""
    patience = f"{max(0.1, min(PATIENCE_SECONDS, seconds)) * 1000:.0f}ms"
    settings = {
        "lock_timeout": patience,
        # Renaming waits 5 seconds by itself for sessions to end.
        "statement_timeout": f"{max(1.0, min(2 * PATIENCE_SECONDS, seconds)) * 1000:.0f}ms",
        # Of this process: a machine that vanishes must not keep the names locked.
        "idle_in_transaction_session_timeout": f"{PATIENCE_SECONDS:.0f}s",
        "tcp_user_timeout": f"{PATIENCE_SECONDS:.0f}s",
        # Nor must a standby that does not answer.
        "synchronous_commit": "local",
    }
    if connection.info.server_version >= 140000:
        # The server notices that this process is gone while it waits, and not only after it.
        settings["client_connection_check_interval"] = "200ms"
    for name, value in settings.items():
        connection.execute("SELECT set_config(%s, %s, false)", (name, value))


def _require(connection: Connection, name: str, address: DatabaseAddress) -> int:
    oid = oid_of(connection, name)
    if oid is None:
        raise DatabaseMissing(
            f"Database {name!r} does not exist on {address.server}",
            expected="a database of that name, to give it another",
            found="none",
            kept="nothing was changed",
        )
    return oid


def _ask_whether_committed(
    address: DatabaseAddress, xid: str, moves: Sequence[tuple[str, str]], error: psycopg.Error
) -> None:
    """Return where a transaction whose connection broke at its commit was committed.

    Raises:
        ConnectionFailed: It was not, or the server does not say.
    """
    deadline = time.monotonic() + DOUBT_SECONDS
    status: str | None = "unknown"
    while status in ("in progress", "unknown") and time.monotonic() < deadline:
        try:
            with maintenance(address) as connection:
                row = connection.execute("SELECT pg_xact_status(%s::text::xid8)", (xid,)).fetchone()
            status = row[0] if row else None
        except DatabaseError:
            status = "unknown"
        if status in ("in progress", "unknown"):
            time.sleep(RETRY_SECONDS)
    if status == "committed":
        return
    kept = "nothing was changed" if status == "aborted" else "whether the names are changed is not known"
    raise ConnectionFailed(
        f"{_told(moves)}: the connection was lost",
        found=str(error).strip(),
        kept=kept,
        hint="look at the server's log, then: pytest actions/test_recover.py --env=NAME",
    ) from error


def _told(moves: Sequence[tuple[str, str]]) -> str:
    return "Renaming " + ", ".join(f"{name!r} to {new!r}" for name, new in moves)
