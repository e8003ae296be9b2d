"""Scratch databases: names that nothing else has, a claim that ends with its run, and the only drop that they need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from opsproof.errors import DatabaseError
from opsproof.system.postgres.databases import drop_database, scratch_name
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection
from opsproof.target import DatabaseAddress

STAMP_LETTERS = 14
_ENDING = re.compile(r".+__scratch_\d{14}", re.DOTALL)


def is_scratch(name: str) -> bool:
    """Tell whether a name is that of a scratch database."""
    return _ENDING.fullmatch(name) is not None


def is_scratch_of(name: str, database: str) -> bool:
    """Tell whether a name is one that `scratch_name` makes of this very database."""
    stem = scratch_name(database, datetime.now(UTC))[:-STAMP_LETTERS]
    stamp = name.removeprefix(stem)
    return is_scratch(name) and name.startswith(stem) and len(stamp) == STAMP_LETTERS and stamp.isdigit()


@contextmanager
def claimed(address: DatabaseAddress, name: str) -> Iterator[None]:
    """Say for as long as the block lasts that a scratch database is in use, from before it is made.

    The claim is an advisory lock, so that it ends with this process, however that ends: what nobody claims was left.

    Args:
        address: The live database.
        name: The scratch database's.

    Raises:
        DatabaseError: Another run has it.
    """
    with maintenance(address) as connection:
        connection.execute("SELECT set_config('application_name', 'opsproof scratch', false)")
        if not _claim(connection, name):
            raise DatabaseError(
                f"Another run of opsproof is at work in {name!r}",
                expected="a scratch name of this run's own",
                found="its claim",
                kept="nothing was changed",
                hint="run it again: the name has the second in it",
            )
        yield


def drop_scratch(connection: Connection, name: str) -> None:
    """Drop a scratch database and end its sessions; one that is gone already is no error.

    Args:
        connection: A maintenance connection, of the owner or a superuser.
        name: Its name, as `scratch_name` made it.

    Raises:
        DatabaseError: The name is another one, or something in it would be lost.
        PermissionDenied: The role is not its owner.
    """
    if not is_scratch(name):
        raise DatabaseError(
            f"Database {name!r} is not dropped: it is no scratch database",
            expected="a name like app__scratch_20260131020000",
            found=repr(name),
            kept="nothing was changed",
        )
    drop_database(connection, name)


def drop_abandoned(address: DatabaseAddress) -> tuple[str, ...]:
    """Drop the scratch databases of a database that nobody claims; return which.

    What a run that was killed has started may still be at work in one: that is ended.

    Raises:
        DatabaseError: One cannot be dropped.
    """
    dropped = []
    with maintenance(address) as connection:
        # A drop that was cut short has left it barred, and no template any more.
        rows = connection.execute(
            "SELECT datname FROM pg_database WHERE datistemplate OR NOT datallowconn ORDER BY 1"
        ).fetchall()
        for name in (name for (name,) in rows if is_scratch_of(name, address.name)):
            if not _claim(connection, name):
                continue
            try:
                drop_scratch(connection, name)
            finally:
                connection.execute("SELECT pg_advisory_unlock(hashtextextended(%s, 0))", (_key(name),))
            dropped.append(name)
    return tuple(dropped)


def _claim(connection: Connection, name: str) -> bool:
    row = connection.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (_key(name),)).fetchone()
    return row is not None and bool(row[0])


def _key(name: str) -> str:
    return f"opsproof scratch {name}"
