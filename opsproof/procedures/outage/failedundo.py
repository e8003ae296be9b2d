"""What is told where an undo itself has failed: where the data is, and what brings the old state back by hand."""

from __future__ import annotations

from opsproof.errors import DatabaseError, OpsproofError
from opsproof.intent import Intent
from opsproof.procedures.commands import recover_command
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.databases import oid_of
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.services.service import services_of
from opsproof.target import Target


def explain_failed_undo(target: Target, intent: Intent, error: OpsproofError) -> OpsproofError:
    """Return the verdict of an undo that failed, with the commands that bring the old state back by hand."""
    recover = recover_command(target)
    starts = [service.start_command() for service in services_of(target, Host(target.connection))]
    return type(error)(
        f"THE UNDO FAILED: {error.summary}",
        expected=error.expected or "the state of before",
        found=error.found,
        kept=where_the_data_is(target, intent),
        hint="\n".join([error.hint, "once that is mended:", *starts, recover] if error.hint else [*starts, recover]),
    )


def where_the_data_is(target: Target, intent: Intent) -> str:
    """Say which database holds the old data, which the server itself knows best."""
    if not intent.parked:
        return f"the old data is in the safety backup {intent.safety}" if intent.safety else "there was no old data"
    try:
        with maintenance(target.database) as connection:
            holder = intent.parked if oid_of(connection, intent.parked) is not None else intent.live
    except DatabaseError:
        return f"{intent.parked!r} holds the old data; where there is no such database, {intent.live!r} does"
    return f"{holder!r} holds the old data"
