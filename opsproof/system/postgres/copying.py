"""A copy of a database, file by file, on its own server: exact, and fast as its disk is."""

from __future__ import annotations

import time

from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import DatabaseError
from opsproof.system.postgres.databases import explained, oid_of
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection
from opsproof.system.postgres.sessions import sessions_ended, who_holds
from opsproof.target import DatabaseAddress

RETRY_SECONDS = 0.25
# Up to here it costs less to write a copy through the log than to make two checkpoints.
SMALL_BYTES = 64_000_000


def copy_database(address: DatabaseAddress, name: str, copy: str, owner: str, timeout: float) -> float:
    """Copy a database whose services are stopped; whoever else is connected to it is put out. Return the seconds.

    The copy is a template from its first moment on, so that no application takes it for its own. It has the original's
    content, encoding and locale; its comment, its grants and its settings are not copied.

    Args:
        address: The server, and who does it: the owner with CREATEDB, or a superuser.
        name: The original.
        copy: The copy's name.
        owner: Whose it will be.
        timeout: Seconds for which somebody who cannot be put out may hold it.

    Raises:
        DatabaseError: Somebody held it all the time; or the server refused.
    """
    started = time.monotonic()
    with maintenance(address) as connection, maintenance(address) as other:
        oid = oid_of(other, name)
        if connection.info.server_version >= 140000:
            # A copy whose run was killed must not be finished after somebody has cleared up behind that run.
            connection.execute("SELECT set_config('client_connection_check_interval', '200ms', false)")
        query = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {} IS_TEMPLATE true{}").format(
            sql.Identifier(copy), sql.Identifier(name), sql.Identifier(owner), _strategy(other, name)
        )
        while True:
            try:
                # While it is being made, newcomers to the original wait; those who are there have to go.
                with sessions_ended(other, [oid or 0], set()), explained(f"{name!r} cannot be copied to {copy!r}"):
                    connection.execute(query)
                return time.monotonic() - started
            except DatabaseError as error:
                if not isinstance(error.__cause__, pg.ObjectInUse) or time.monotonic() - started > timeout:
                    error.found = "\n".join([error.found, *who_holds(other, [oid or 0])])
                    error.expected = error.expected or "nobody in it whom this role cannot put out"
                    error.hint = error.hint or "end what is named, as a superuser; then the same command again"
                    raise
            time.sleep(RETRY_SECONDS)


def _strategy(connection: Connection, name: str) -> sql.SQL:
    row = connection.execute("SELECT pg_database_size(%s)", (name,)).fetchone()
    is_small = row is None or row[0] < SMALL_BYTES
    version = connection.info.server_version
    return sql.SQL("" if version < 150000 or is_small else " STRATEGY file_copy")
