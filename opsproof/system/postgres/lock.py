"""The lock that keeps every other run of opsproof off a database."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from opsproof.errors import DatabaseError
from opsproof.system.postgres.maintenance import find_maintenance_database, settle
from opsproof.system.postgres.server import NAME_BYTES, Connection, connect
from opsproof.target import DatabaseAddress


class Lock:
    """The right to be the only run of opsproof at work on a database."""

    def __init__(self, connection: Connection, name: str) -> None:
        self._connection = connection
        self._name = name

    def check(self) -> None:
        """Make sure that it is still held; a server that restarts, or a firewall, takes it away without a word.

        Raises:
            DatabaseError: It is lost.
        """
        try:
            held = self._connection.execute(
                "SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid() AND granted"
            ).fetchone()
        except psycopg.Error as error:
            raise self._lost(str(error).strip()) from error
        if held is None:
            raise self._lost("the session has no lock any more")

    def _lost(self, found: str) -> DatabaseError:
        return DatabaseError(
            f"The lock on database {self._name!r} is lost",
            expected="the connection that holds it",
            found=found,
            hint="look at the server's log; another run may have begun meanwhile",
        )


@contextmanager
def hold_lock(address: DatabaseAddress, purpose: str = "") -> Iterator[Lock]:
    """Keep every other run of opsproof off this database for as long as the block lasts.

    The lock is the server's (an advisory one), so that it ends with the connection, however this process ends; and it
    is taken in one fixed database, since advisory locks are per database and the name of ours may change hands.

    Args:
        address: The database.
        purpose: What the run does (`restore`), for whoever is kept off by it.

    Raises:
        DatabaseError: Another run holds it.
    """
    try:
        place = find_maintenance_database(address)
    except DatabaseError:
        place = address.name  # `connect` says what is wrong, or a backup is still to be had
    with connect(address, database=place) as connection:
        settle(connection)
        connection.execute("SELECT set_config('application_name', %s, false)", (_session_name(purpose),))
        key = f"opsproof {address.name}"
        row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (key,)).fetchone()
        if row is None or not row[0]:
            raise DatabaseError(
                f"Another run of opsproof is at work on database {address.name!r}",
                expected="one run at a time",
                found=_lock_holder(connection, key),
                kept="nothing was changed",
                hint="wait for the other run, or end it, then run this again",
            )
        yield Lock(connection, address.name)


def _session_name(purpose: str) -> str:
    """Return `opsproof {purpose} {user}@{machine}` in as many bytes of ASCII as a session's name has."""
    try:
        account = getpass.getuser()
    except (KeyError, OSError):
        account = "unknown"  # an account without a name, as containers have them
    words = f"opsproof {purpose} {account}@{socket.gethostname()}".split()
    return " ".join(words).encode("ascii", "replace")[:NAME_BYTES].decode()


def _lock_holder(connection: Connection, key: str) -> str:
    row = connection.execute(
        "SELECT pid, usename, application_name, backend_start FROM pg_locks JOIN pg_stat_activity USING (pid),"
        " hashtextextended(%s, 0) AS key WHERE locktype = 'advisory' AND granted AND objsubid = 1"
        " AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " AND classid::bigint = (key >> 32) & 4294967295 AND objid::bigint = key & 4294967295",
        (key,),
    ).fetchone()
    if row is None:
        return "it ended just now"
    pid, role, name, start = row
    # Of another role's session an ordinary role sees everything but when it began.
    since = f" since {start:%Y-%m-%d %H:%M:%S} UTC" if start else ""
    return f"{name or 'a session'}{since} (role {role}, process {pid} of the server)"
