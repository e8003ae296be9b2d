"""A database that is only looked at: a read-only session that waits for nobody for long, and what it comes to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import ConnectionFailed, DatabaseError, OpsproofError, PermissionDenied, ProofError
from opsproof.system.postgres.server import Connection, connect
from opsproof.target import DatabaseAddress

STATEMENT_SECONDS = 30.0
LOCK_SECONDS = 2.0
READ_ONLY = "-c default_transaction_read_only=on"
SHOWN = 10
UNTOUCHED = "everything: a check only looks"


class Unanswered(OpsproofError):
    """What was asked cannot be told here: that is neither a pass nor a fault. A check that meets it is skipped."""


@contextmanager
def look_at(address: DatabaseAddress, *, seconds: float = STATEMENT_SECONDS) -> Iterator[Connection]:
    """Connect to a database in order to look: nothing can be written, and nobody waits.

    Each statement is a transaction of its own, so that no snapshot is held between them; names without a schema mean
    what they mean to the application.

    Args:
        address: Where and as whom.
        seconds: The most that a statement may take; for a lock it waits 2 seconds.

    Raises:
        ConnectionFailed: The server did not answer within 10 seconds, or refused the login.
        DatabaseMissing: The server has no such database.
        PermissionDenied: The role may not connect to it.
        DatabaseError: Something between here and the server lets the session write.
    """
    # At the start, never by SET: a pooler would hand a session that cannot write on to the application.
    options = f"{address.parameters.get('options', '')} {READ_ONLY}".strip()
    reading = replace(address, parameters={**address.parameters, "options": options})
    with connect(reading, lock_timeout=LOCK_SECONDS) as connection:
        connection.autocommit = True
        if ask(connection, "SHOW transaction_read_only") != [("on",)]:
            raise DatabaseError(
                f"The session in {address.name!r} could write",
                expected=f"a server that takes the option {READ_ONLY}",
                found="transaction_read_only is off: a pooler in between has dropped the option",
                kept=UNTOUCHED,
                hint="name PostgreSQL's own port in the inventory instead of the pooler's",
            )
        timeout = f"{seconds * 1000:.0f}"
        connection.execute("SELECT pg_catalog.set_config('statement_timeout', %s, false)", (timeout,))
        connection.execute(
            "SELECT pg_catalog.set_config('search_path', reset_val, false) FROM pg_catalog.pg_settings"
            " WHERE name = 'search_path'"
        )
        yield connection


def ask(connection: Connection, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    """Return a query's rows.

    Raises:
        PermissionDenied: The role may not see what was asked for.
        ConnectionFailed: The connection was lost.
        DatabaseError: The query took too long, waited for a lock, or failed.
    """
    with explained(connection):
        return connection.execute(query.encode(), arguments or None).fetchall()


@contextmanager
def explained(connection: Connection) -> Iterator[None]:
    """Let the server's errors of a block be ours; see `ask`."""
    try:
        yield
    except psycopg.Error as error:
        raise explain(connection, error) from error


def explain(connection: Connection, error: psycopg.Error) -> OpsproofError:
    """Turn an error of a look into one that says what to do."""
    message = str(error).strip()
    user, name = connection.info.user, connection.info.dbname
    if isinstance(error, pg.InsufficientPrivilege):
        return PermissionDenied(
            f"Role {user!r} may not look at what a check of {name!r} asks for",
            found=message,
            kept=UNTOUCHED,
            hint=f"{grant('pg_monitor', connection)}\n{grant('pg_read_all_data', connection)}   from PostgreSQL 14 on",
        )
    if isinstance(error, (pg.QueryCanceled, pg.LockNotAvailable)):
        return DatabaseError(
            f"Database {name!r} did not answer a check in time",
            expected="an answer before statement_timeout and lock_timeout",
            found=message,
            kept=UNTOUCHED,
            hint="SELECT pid, state, wait_event_type, query FROM pg_stat_activity WHERE state <> 'idle';",
        )
    if connection.closed:
        return ConnectionFailed(
            f"The connection to database {name!r} was lost",
            found=message,
            kept=UNTOUCHED,
            hint="look at the server's log, then run it again",
        )
    return DatabaseError(f"Database {name!r}: {message.splitlines()[0]}", found=message, kept=UNTOUCHED)


def require_none(
    summary: str, expected: str, found: Sequence[str], hints: Sequence[str], beside: Sequence[str] = ()
) -> None:
    """Make sure that nothing was found.

    Args:
        summary: One sentence for the error.
        expected: What should have been so.
        found: What was so instead, a line for each; the first ten are shown.
        hints: What to type, a line for each; repeated ones are shown once.
        beside: What the error has to mention where there is one.

    Raises:
        ProofError: Something was.
    """
    if found:
        raise ProofError(
            summary,
            expected=expected,
            found="\n".join([*_first(found), *beside]),
            kept=UNTOUCHED,
            hint="\n".join(_first(list(dict.fromkeys(hints)))),
        )


def grant(role: str, connection: Connection) -> str:
    """Return the statement that gives our role another's rights."""
    return sql.SQL("GRANT {} TO {};").format(sql.Identifier(role), sql.Identifier(connection.info.user)).as_string()


def _first(lines: Sequence[str]) -> list[str]:
    more = [f"... and {len(lines) - SHOWN:,} more"] if len(lines) > SHOWN else []
    return [*lines[:SHOWN], *more]
