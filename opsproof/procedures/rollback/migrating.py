"""The outage of a schema's rollback: the live database is copied, the revisions are undone, and all of it taken back.

The intent is always a step ahead, as it is of a restore: whoever finds it knows what may have happened.
"""

from __future__ import annotations

import random
import time
from dataclasses import replace

from psycopg import sql

from opsproof.errors import LockTimeout, ProofError
from opsproof.inspection.schemas.descent import Descent
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.commands import recover_command
from opsproof.procedures.outage.exchange import Exchange, await_server
from opsproof.procedures.outage.undoing import to_undo
from opsproof.procedures.rollback.rehearsal import require_heads
from opsproof.system.alembic.migrations import Migrations, Step, VersionTable, place_of, read_heads
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.copying import copy_database
from opsproof.system.postgres.databases import clear_intent, database_exists, drop_database, write_intent
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.properties import copy_properties
from opsproof.system.postgres.server import DatabaseFacts, connect
from opsproof.system.postgres.swap import Identity, identity, park
from opsproof.target import Target

HOLD_SECONDS = 10.0
# Of one attempt: whoever waits behind us for the same table waits as long.
LOCK_SECONDS = 2.0
FIRST_WAIT, LONGEST_WAIT = 0.2, 5.0
END_SECONDS = 30.0


class Migrating:
    """One target's way down, while its services are stopped.

    Attributes:
        steps: The revisions that were undone, and how long each took.

    Args:
        target: Whose.
        exchange: Of its services; its intent says what is going on.
        migrations: The application's.
        descent: The way down.
        facts: Of the live database.
        journal: What happened.
    """

    def __init__(
        self,
        target: Target,
        exchange: Exchange,
        migrations: Migrations,
        descent: Descent,
        facts: DatabaseFacts,
        journal: Journal,
    ) -> None:
        self.steps: tuple[Step, ...] = ()
        self._target = target
        self._exchange = exchange
        self._migrations = migrations
        self._descent = descent
        self._facts = facts
        self._journal = journal
        self._is_atomic = not descent.not_atomic
        self._rehearsal = exchange.intent.side
        self._before: Identity | None = None
        self._started = 0.0
        self._has_copy = False

    def copy(self) -> str:
        """Copy the live database; the intent moves to the copy. Return the copy's name.

        Raises:
            DatabaseError: The server refused, or somebody held the database all the time.
        """
        intent, address = self._exchange.intent, self._target.database
        # What is kept is the copy of a database that is migrated itself; else it is the original.
        name = intent.parked if self._is_atomic else intent.options["copy"]
        with self._journal.phase("copy"):
            copy_database(address, intent.live, name, self._facts.owner, HOLD_SECONDS)
            stated = replace(intent, stage="migrating") if self._is_atomic else replace(intent, side=name)
            with maintenance(address) as connection:
                copy_properties(connection, self._facts, name, roles={})
                with connection.transaction():
                    write_intent(connection, name, stated)
                    clear_intent(connection, self._rehearsal)
        self._exchange.intent = stated
        self._has_copy = True
        return name

    def run(self) -> None:
        """Undo the revisions.

        Raises:
            LockTimeout: Somebody held a table all the time.
            MigrationError: A downgrade failed.
            ProofError: It ended elsewhere.
            DatabaseError: The server refused the swap.
        """
        with self._journal.phase("migrate"):
            if self._is_atomic:
                self._run_on_live()
            else:
                self._run_on_copy()
        self._journal.record("migrated", steps={one.revision: round(one.seconds, 3) for one in self.steps})

    def keep(self) -> None:
        """Say that it is finished: the database of before is kept, and says how to take it back."""
        if self._is_atomic:
            keep_copy(self._target, self._exchange.intent)
        else:
            self._exchange.keep()
        with maintenance(self._target.database) as connection:
            drop_database(connection, self._rehearsal)

    def take_back(self) -> list[str]:
        """Bring the database of before back, and its services. Return what was done.

        Raises:
            OpsproofError: It could not be brought back.
        """
        address, intent = self._target.database, self._exchange.intent
        await_server(address)
        if self._is_atomic and self._has_copy and was_migrated(self._target, intent):
            done = bring_copy_back(self._target, self._journal, intent)
        else:
            done = self._exchange.take_names_back()
            if self._before is not None and not self._is_as_before(self._before):
                raise ProofError(
                    f"{intent.live!r} is not what it was before the downgrade",
                    expected="the same files and sequences, as its transaction was undone",
                    found="others: somebody has worked on it since",
                    kept=f"a copy of the database of before: {intent.parked!r}",
                    hint=recover_command(self._target),
                )
            done += self._exchange.start_again()
            with maintenance(address) as connection:
                if self._is_atomic and self._has_copy:
                    drop_database(connection, intent.parked)
                drop_database(connection, intent.options["copy"])
        with maintenance(address) as connection:
            drop_database(connection, self._rehearsal)
        return done

    def _is_as_before(self, before: Identity) -> bool:
        address, live = self._target.database, self._exchange.intent.live
        now = identity(address, live)
        if place_of(address, live).started == self._started:
            return now == before
        # Its sequences go on with later numbers than the next ones.
        self._journal.warn("the server was started anew: its sequences are not compared")
        return replace(now, fingerprint=before.fingerprint) == before

    def _run_on_live(self) -> None:
        intent, address = self._exchange.intent, self._target.database
        place = place_of(address, intent.live)
        self._before, self._started = identity(address, intent.live), place.started
        deadline, wait = time.monotonic() + self._target.lock_timeout, FIRST_WAIT
        while True:
            patience = min(LOCK_SECONDS, self._target.lock_timeout)
            settings = {"lock_timeout": f"{patience * 1000:.0f}ms", "application_name": session_name(intent)}
            try:
                self.steps = self._migrations.downgrade(
                    place, self._descent.planned, settings=settings, permit=_permit(intent)
                )
                break
            except LockTimeout as error:
                if time.monotonic() + wait > deadline:
                    raise
                self._journal.warn(f"{error.summary}: it is tried again")
                # Jittered, so that two who wait for each other do not come back at the same moments.
                time.sleep(wait * random.uniform(0.5, 1.0))  # noqa: S311
                wait = min(2 * wait, LONGEST_WAIT)
        self._exchange.intent = mark_time(self._target, intent)

    def _run_on_copy(self) -> None:
        intent, address = self._exchange.intent, self._target.database
        settings = {"application_name": session_name(intent)}
        self.steps = self._migrations.downgrade(
            place_of(address, intent.side), self._descent.planned, settings=settings
        )
        planned = self._descent.planned
        with connect(address, database=intent.side) as connection:
            require_heads(read_heads(connection, planned.table), planned.left, intent.side)
        self._exchange.swap()


def was_migrated(target: Target, intent: Intent) -> bool:
    """Tell whether a downgrade of the live database was committed, once none of its sessions is left.

    Raises:
        ProofError: The database is neither where it was nor where it was to be; or a session does not end.
    """
    _end_sessions(target, intent)
    with connect(target.database) as connection:
        found = sorted(read_heads(connection, _versioning(intent)))
    if found == sorted(intent.options["to"].split()):
        return True
    if found == sorted(intent.options["from"].split()):
        return False
    raise ProofError(
        f"{intent.live!r} is neither at the revision of before nor at the one of afterwards",
        expected=f"{intent.options['from']}, or {intent.options['to'] or 'base'}",
        found=", ".join(found) or "base",
        kept=f"a copy of the database of before: {intent.parked!r}",
        hint=f"find out who has migrated it, then: {recover_command(target)}",
    )


def keep_copy(target: Target, intent: Intent) -> None:
    """Park the copy of the database of before, with the way to take it back on it.

    Raises:
        DatabaseError: The server refused.
    """
    kept = replace(mark_time(target, intent), stage="kept")
    with maintenance(target.database) as connection, connection.transaction():
        park(connection, intent.parked)
        write_intent(connection, intent.parked, kept)


def bring_copy_back(target: Target, journal: Journal, intent: Intent) -> list[str]:
    """Make the copy of the database of before the live one, and drop the one that was migrated. Return what was done.

    Raises:
        OpsproofError: It could not be done.
    """
    address = target.database
    again = to_undo(replace(mark_time(target, intent), stage="kept"))
    with maintenance(address) as connection, connection.transaction():
        park(connection, intent.parked)
        write_intent(connection, intent.parked, again)
    exchange = Exchange(target, Host(target.connection), again, journal)
    exchange.swap_parked(intent.parked, None)
    with connect(address) as connection:
        found = read_heads(connection, _versioning(intent))
    require_heads(found, intent.options["from"].split(), intent.live, kept=f"what was migrated is {again.parked!r}")
    exchange.wait_for_health()
    with maintenance(address) as connection:
        drop_database(connection, again.parked)
    return [f"{intent.live!r} is the copy of the database of before"]


def mark_time(target: Target, intent: Intent) -> Intent:
    """Write down that whatever is written from now on would be lost with the downgraded database.

    Call it before the services are started. An intent that says so already is left as it is.

    Raises:
        DatabaseError: The server refused.
    """
    if intent.swap_xid:
        return intent
    with maintenance(target.database) as connection:
        row = connection.execute("SELECT pg_current_xact_id()::text").fetchone()
        marked = replace(intent, swap_xid=row[0] if row else "")
        write_intent(connection, intent.parked, marked)
    return marked


def session_name(intent: Intent) -> str:
    """Return what the sessions of a downgrade are called on the server."""
    return f"opsproof rollback {intent.run}"


def _end_sessions(target: Target, intent: Intent) -> None:
    """End what is left of a downgrade: its transaction is undone, or was committed already."""
    deadline = time.monotonic() + END_SECONDS
    with maintenance(target.database) as connection:
        if not database_exists(connection, intent.live):
            return
        while True:
            left = connection.execute(
                "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = %s AND pid <> pg_backend_pid()",
                (session_name(intent),),
            ).fetchall()
            if not left:
                return
            if time.monotonic() > deadline:
                raise ProofError(
                    "A session of the downgrade does not end",
                    expected="no session of it on the server",
                    found=", ".join(f"process {pid}" for pid, _ in left),
                    kept=f"a copy of the database of before: {intent.parked!r}",
                    hint=f"end it as a superuser, then: {recover_command(target)}",
                )
            time.sleep(0.1)


def _versioning(intent: Intent) -> VersionTable:
    return VersionTable(intent.options["version_table"], intent.options["version_table_schema"] or None)


def _permit(intent: Intent) -> str:
    """Return a query that has a row for as long as this run's intent stands."""
    return (
        sql.SQL(
            "SELECT 1 FROM pg_database WHERE datname = {} AND strpos(shobj_description(oid, 'pg_database'), {}) > 0"
        )
        .format(sql.Literal(intent.parked), sql.Literal(intent.run))
        .as_string()
    )
