"""What an earlier procedure has left on its server: databases that bear an intent, or none though they should."""

from __future__ import annotations

from datetime import UTC, datetime

from opsproof.errors import ProofError
from opsproof.intent import Intent
from opsproof.procedures.commands import recover_command
from opsproof.system.postgres import databases
from opsproof.system.postgres.databases import OURS, find_intents
from opsproof.system.postgres.maintenance import maintenance
from opsproof.target import Target


def require_nothing_unfinished(target: Target) -> None:
    """Refuse to begin where an earlier procedure of a target was not brought to its end.

    Raises:
        ProofError: One was not.
    """
    for name, intent in find_unfinished(target):
        raise ProofError(
            f"An earlier {intent.procedure} of {target.name} was not brought to its end",
            expected="nothing unfinished on the server",
            found=f"{name!r}: {intent.stage}, begun {intent.since} by {intent.by}, backup {intent.backup}",
            kept="nothing was changed",
            hint=recover_command(target),
        )
    orphans = find_orphans(target)
    if orphans:
        raise ProofError(
            f"An earlier procedure of {target.name} ended while it created its side database",
            expected="nothing unfinished on the server",
            found=", ".join(map(repr, orphans)),
            kept="nothing was changed",
            hint=recover_command(target),
        )


def find_unfinished(target: Target) -> list[tuple[str, Intent]]:
    """Return the databases that bear the intent of an unfinished procedure of this target, and the intents."""
    with maintenance(target.database) as connection:
        found = find_intents(connection)
    return [(name, one) for name, one in found if one.live == target.database.name and one.stage != "kept"]


def find_orphans(target: Target) -> tuple[str, ...]:
    """Return side databases and copies of a target that bear no intent: their run ended between two statements."""
    with maintenance(target.database) as connection:
        rows = connection.execute(
            # A drop of one that was cut short has left it barred, and no template any more.
            "SELECT datname FROM pg_database WHERE datistemplate OR NOT datallowconn ORDER BY 1"
        ).fetchall()
        bearing = {name for name, _ in find_intents(connection)}
    moment, name = datetime.now(UTC), target.database.name
    stems = tuple(named(name, moment)[:-14] for named in (databases.side_name, databases.parked_name))
    return tuple(one for (one,) in rows if OURS.fullmatch(one) and one.startswith(stems) and one not in bearing)
