"""The connection from which a database can be renamed or dropped: to another one, and fit to stand idle for hours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as pg

from opsproof.errors import DatabaseError
from opsproof.system.postgres.server import (
    MAINTENANCE_DATABASES,
    Connection,
    connect,
    explain_refusal,
    list_databases,
    open_connection,
)
from opsproof.target import DatabaseAddress


@contextmanager
def maintenance(address: DatabaseAddress) -> Iterator[Connection]:
    """Connect to the server without connecting to the target's database, which can then be renamed or dropped.

    Each statement is a transaction of its own, until the caller opens one.

    Raises:
        ConnectionFailed: The server did not answer, or refused the login.
        DatabaseError: The role may connect to no database but the target's own.
    """
    with connect(address, database=find_maintenance_database(address)) as connection:
        settle(connection)
        yield connection


def find_maintenance_database(address: DatabaseAddress) -> str:
    """Return a database that is not the target's, and that lets us in: the same one for every run of a role.

    Raises:
        ConnectionFailed: The server did not answer, or refused the login.
        DatabaseError: The role may connect to no database but the target's own.
    """
    others: tuple[str, ...] = MAINTENANCE_DATABASES
    tried: set[str] = {address.name}
    failure: psycopg.OperationalError | None = None
    for asked in (*MAINTENANCE_DATABASES, address.name):
        try:
            with open_connection(address, asked) as connection:
                if asked != address.name:
                    return asked
                others = list_databases(connection)
        except psycopg.OperationalError as error:
            failure = failure or error
            tried.add(asked)
            if isinstance(error, pg.ConnectionTimeout):
                break
    for name in others:
        if name in tried:
            continue
        try:
            with open_connection(address, name):
                return name
        except psycopg.OperationalError:
            continue
    if failure is not None and others is MAINTENANCE_DATABASES:
        raise explain_refusal(address, address.name, failure) from failure
    raise DatabaseError(
        f"Role {address.user!r} can connect to no database on {address.server} but {address.name!r}",
        expected="a database to work from while this one changes its name",
        found=", ".join(map(repr, others)),
        kept="nothing was changed",
        hint=f"GRANT CONNECT ON DATABASE {MAINTENANCE_DATABASES[0]} TO the role, and let it in in pg_hba.conf",
    )


def settle(connection: Connection) -> None:
    """Make a session fit to stand idle for hours between its statements."""
    connection.autocommit = True
    if connection.info.server_version >= 140000:
        connection.execute("SELECT set_config('idle_session_timeout', '0', false)")
