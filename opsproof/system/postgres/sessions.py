"""Sessions in databases: putting out those that are there, and naming what holds a database besides."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg

from opsproof.system.postgres.server import Connection

POLL_SECONDS = 0.02


@dataclass(frozen=True)
class _Session:
    pid: int
    role: str
    application: str
    is_ours_to_end: bool


@contextmanager
def sessions_ended(connection: Connection, oids: Sequence[int], ended: set[int]) -> Iterator[None]:
    """End the sessions of databases, again and again, for as long as the block lasts; note their processes."""
    over = threading.Event()

    def end_all() -> None:
        while not over.is_set():
            try:
                for pid in [session.pid for session in _sessions(connection, oids) if session.is_ours_to_end]:
                    row = connection.execute("SELECT pg_terminate_backend(%s)", (pid,)).fetchone()
                    if row and row[0]:
                        ended.add(pid)
            except psycopg.Error:
                return  # the rename waits in vain then, and says who is in its way
            over.wait(POLL_SECONDS)

    thread = threading.Thread(target=end_all, name="opsproof end sessions", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def who_holds(connection: Connection, oids: Sequence[int]) -> tuple[str, ...]:
    """Say what holds databases and is not ours to end, a line each."""
    prepared = connection.execute(
        "SELECT gid, owner::text, prepared FROM pg_prepared_xacts"
        " WHERE database IN (SELECT datname FROM pg_database WHERE oid = ANY(%s))",
        (list(oids),),
    ).fetchall()
    slots = connection.execute(
        "SELECT slot_name::text, active_pid FROM pg_replication_slots"
        " WHERE active AND database IN (SELECT datname FROM pg_database WHERE oid = ANY(%s))",
        (list(oids),),
    ).fetchall()
    # Whoever connects holds a RowExclusiveLock, for a moment; whoever alters, another one.
    altering = connection.execute(
        "SELECT DISTINCT pid, usename::text, application_name FROM pg_locks JOIN pg_stat_activity USING (pid)"
        " WHERE locktype = 'object' AND classid = 'pg_database'::regclass AND objid = ANY(%s) AND granted"
        " AND mode <> 'RowExclusiveLock' ORDER BY pid",
        (list(oids),),
    ).fetchall()
    held = [f"prepared transaction {gid!r} of role {role!r}, since {when}" for gid, role, when in prepared]
    held += [f"replication slot {slot!r}, in use by process {pid}" for slot, pid in slots]
    held += [f"process {pid} of role {role!r} ({name or 'no name'}), which alters it" for pid, role, name in altering]
    held += [
        f"process {session.pid} of role {session.role!r} ({session.application or 'no name'}), not ours to end"
        for session in _sessions(connection, oids)
        if not session.is_ours_to_end
    ]
    return tuple(held)


def _sessions(connection: Connection, oids: Sequence[int]) -> list[_Session]:
    """Return the sessions of databases.

    Autovacuum's have no role, and the rename ends them itself. That of a replication slot is not ended but named as
    what is in the way: it would come again, to a database of another name.
    """
    rows = connection.execute(
        "SELECT pid, usename::text, application_name,"
        " (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) OR NOT coalesce(rolsuper, true)"
        " AND (pg_has_role(usesysid, 'USAGE') OR pg_has_role('pg_signal_backend', 'USAGE'))"
        " FROM pg_stat_activity LEFT JOIN pg_roles role ON role.oid = usesysid"
        " WHERE datid = ANY(%s) AND usesysid IS NOT NULL"
        " AND pid NOT IN (SELECT active_pid FROM pg_replication_slots WHERE active_pid IS NOT NULL) ORDER BY pid",
        (list(oids),),
    ).fetchall()
    return [_Session(*row) for row in rows]
