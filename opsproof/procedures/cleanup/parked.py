"""Parked databases past their time: what was live before a restore or a rollback, kept for an undo."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from opsproof.errors import DatabaseMissing, ProofError
from opsproof.intent import Intent
from opsproof.system.postgres.databases import OURS, STAMP, drop_database, find_intents, read_intent
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection
from opsproof.target import Target

STAMP_LETTERS = 14


@dataclass(frozen=True)
class Parked:
    """A database that `test_recover.py --undo` would take, its intent, and how many bytes it has."""

    name: str
    intent: Intent
    bytes: int
    is_past: bool

    @property
    def description(self) -> str:
        """Return what it is, for a plan."""
        return f"{self.name!r}, live before the {self.intent.procedure} of {self.intent.since}"


def find_parked(target: Target, now: datetime) -> tuple[Parked, ...]:
    """Return the parked databases of a target; of each whether its time is past.

    Args:
        target: Whose.
        now: The present time.

    Raises:
        DatabaseError: The server does not answer, or an intent cannot be read.
    """
    with maintenance(target.database) as connection:
        return tuple(
            Parked(name, intent, _bytes_of(connection, name), _is_past(intent, now, target.policies.retention.parked))
            for name, intent in find_intents(connection)
            if _is_parked(target, name, intent)
        )


def drop_parked(target: Target, parked: Parked) -> None:
    """Drop a parked database, if it is still the one that was found, and the live one is there.

    Raises:
        ProofError: There is no live database, or the parked one is another by now.
        DatabaseError: The server refused.
    """
    with maintenance(target.database) as connection:
        row = connection.execute(
            "SELECT datallowconn FROM pg_database WHERE datname = %s", (target.database.name,)
        ).fetchone()
        if row is None or not row[0]:
            raise ProofError(
                f"{parked.name!r} is not dropped: {target.database.name!r} is not live",
                expected=f"a database {target.database.name!r} that takes connections",
                found="one that does not" if row else "none",
                kept="nothing was dropped",
            )
        try:
            intent = read_intent(connection, parked.name)
        except DatabaseMissing:
            return
        if intent != parked.intent:
            raise ProofError(
                f"{parked.name!r} is not dropped: it is another database by now",
                expected=f"the one that a {parked.intent.procedure} of {parked.intent.since} has parked",
                found="one without an intent" if intent is None else f"{intent.procedure}, {intent.stage}",
                kept="nothing was dropped",
                hint="run the same command again, and read its plan",
            )
        drop_database(connection, parked.name)


def _is_parked(target: Target, name: str, intent: Intent) -> bool:
    return (
        intent.stage == "kept"
        and name == intent.parked
        and name != target.database.name
        and OURS.fullmatch(name) is not None
        and (intent.live, intent.environment, intent.target) == (target.database.name, target.environment, target.name)
    )


def _is_past(intent: Intent, now: datetime, span: timedelta) -> bool:
    """Tell whether it was parked longer ago; what an undo parked has the time of the restore, but a name of its own."""
    try:
        since = datetime.fromisoformat(intent.since)
        named = datetime.strptime(intent.parked[-STAMP_LETTERS:], STAMP).replace(tzinfo=UTC)
    except ValueError:
        return False
    since = since.replace(tzinfo=UTC) if since.tzinfo is None else since
    return now - max(since, named) > span


def _bytes_of(connection: Connection, name: str) -> int:
    # Its size is its owner's to know, and that of whoever may connect, which nobody may to a parked one.
    row = connection.execute(
        "SELECT pg_database_size(oid) FROM pg_database WHERE datname = %s"
        " AND (pg_has_role(datdba, 'USAGE') OR pg_has_role('pg_read_all_stats', 'USAGE'))",
        (name,),
    ).fetchone()
    return 0 if row is None else int(row[0])
