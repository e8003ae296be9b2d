"""How a deploy that was killed is brought to its end: finished where that can be proven, else taken back.

building          nothing live was changed: the release that was being made is removed
stopping          with current at the release, and no change of the database, it is tried; else it is taken back
swapped           the changed database is live: current follows it, and both are kept if they pass
"""

from __future__ import annotations

from opsproof.errors import ConfigurationError, OpsproofError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.commands import release_command
from opsproof.procedures.deploy.changing import releases_of
from opsproof.procedures.deploy.turnover import DEPLOYED, RESTORING, Turnover
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.databases import database_exists
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.store import Store
from opsproof.target import Target

RELEASE = "release"


def is_of_a_release(intent: Intent) -> bool:
    """Tell whether an intent is that of a deploy, or of a rollback to another release."""
    return RELEASE in intent.options


def plan_of(intent: Intent) -> list[str]:
    """Return what a recovery does about it, a line each."""
    release, previous = intent.options[RELEASE], intent.options["previous"] or "nothing"
    back = f"current leads to {previous}"
    removed = f"remove release {release}" if intent.options["event"] == DEPLOYED else f"release {release} stays"
    if intent.stage == "swapped" or (intent.stage == "stopping" and not intent.options["exchanges"]):
        return [f"start the services with release {release}, if it is current, and look at it", f"else {back}", removed]
    if not intent.had_live:
        return [f"drop {intent.side!r}: there was no {intent.live!r} before", back, removed]
    return [back, "start the services", removed, f"{intent.live!r} is as it was"]


def require_undoable(target: Target, intent: Intent) -> None:
    """Refuse to undo what exchanged code and data together.

    Raises:
        ConfigurationError: It is a deploy, or a rollback to another release, that came to its end.
    """
    if is_of_a_release(intent) and intent.stage == "kept":
        raise ConfigurationError(
            "A deploy is not taken back by --undo: its code and its data go together",
            expected="a rollback to the release of before",
            found=f"release {intent.options[RELEASE]}, with {intent.parked!r} from before it",
            kept="nothing was changed",
            hint=f"{release_command(target, intent.options['previous'])} --dry-run",
        )


def end_turnover(target: Target, store: Store, journal: Journal, intent: Intent) -> list[str]:
    """Finish what can be finished, undo the rest. Return what was done.

    Raises:
        OpsproofError: It could not be done; the hint is what to type.
    """
    require_undoable(target, intent)
    releases = releases_of(target)
    # Another target may have the same folder of releases, and a run at work there.
    with releases.held():
        return _end(target, store, journal, Turnover(target, Host(target.connection), releases, intent, journal))


def _end(target: Target, store: Store, journal: Journal, turnover: Turnover) -> list[str]:
    intent, releases = turnover.intent, turnover.releases
    with maintenance(target.database) as connection:
        turnover.had_live = bool(intent.parked) and database_exists(connection, intent.live)
    turnover.resume(intent.stage)
    release = intent.options[RELEASE]
    is_restored = RESTORING in intent.options
    if not is_restored and (intent.stage == "swapped" or _is_flipped(turnover, intent)):
        try:
            if releases.look().current != release:
                # A reboot may have started them, with the code of before: that would go on, and pass.
                turnover.serving.stop()
                turnover.flip()
            turnover.serving.start_those_down()
            turnover.wait_for_health()
            turnover.check_application()
            turnover.keep()
        except OpsproofError as error:
            journal.warn(f"release {release} does not pass: {error}")
        else:
            return [f"release {release} is live: the {intent.procedure} is finished"]
    return turnover.take_back(store)


def _is_flipped(turnover: Turnover, intent: Intent) -> bool:
    if intent.stage != "stopping" or intent.options["exchanges"]:
        return False
    return turnover.releases.look().current == intent.options[RELEASE]
