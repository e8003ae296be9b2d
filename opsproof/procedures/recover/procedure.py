"""Bring a target that a killed run left halfway to a proven end; or take its last restore back.

Each public method is one step of `actions/test_recover.py`, in the order in which they stand here. The intent on the
server says how far the run had come, whatever machine it ran on:

    building, built   the live database is as it was: the side database is dropped
    stopping          the same, and the services are started again
    swapped           the new database is live: it is checked, and kept if it passes, else the old one comes back
    in place          the live database may be gone: it is built anew from the safety backup
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path, PurePosixPath

from opsproof.errors import ConfigurationError, OpsproofError, ProofError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.commands import drop_command, listing_command, recover_command, restore_command
from opsproof.procedures.deploy.changing import releases_of
from opsproof.procedures.deploy.ending import is_of_a_release, plan_of, require_undoable
from opsproof.procedures.leftovers import clear_leftovers, drop_looks
from opsproof.procedures.outage.undoing import UNDO
from opsproof.procedures.recover.ending import Ending
from opsproof.procedures.restore.workspace import remove_abandoned
from opsproof.procedures.scratchcopy import remove_abandoned_folders
from opsproof.procedures.unfinished import find_orphans, find_unfinished
from opsproof.system.files.adding import remove_unfinished
from opsproof.system.files.faradding import remove_unfinished_there
from opsproof.system.files.filestore import Filestore
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.databases import database_exists, drop_database, find_intents
from opsproof.system.postgres.lock import Lock, hold_lock
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import connect
from opsproof.system.postgres.swap import rows_written_since
from opsproof.system.store import Store
from opsproof.target import Target

AGAIN = "nothing is taken back yet: the same command again does that"


class Recover:
    """One recovery of one target, or the undo of its last restore.

    Args:
        target: What to bring to an end.
        store: Where its backups are.
        journal: What happened.
        undo: Take the last finished restore back.
        confirmed: The target was named, as a protected environment wants it.

    Attributes:
        unfinished: The database that bears an intent, and the intent; None where nothing is unfinished.
        verdict: What was done and found, a line each.
        is_live: Whether there is a live database in the end; a first deploy that is taken back leaves none.
    """

    def __init__(
        self, target: Target, store: Store, journal: Journal, *, undo: bool = False, confirmed: bool = False
    ) -> None:
        self.target = target
        self.store = store
        self.journal = journal
        self.undo = undo
        self.unfinished: tuple[str, Intent] | None = None
        self.lost: dict[str, int] = {}
        self.verdict: tuple[str, ...] = ()
        self.is_live = True
        self.lock: Lock
        self._confirmed = confirmed
        self._ending = Ending(target, store, journal)
        self._undo_stack = ExitStack()
        self._orphans: tuple[str, ...] = ()

    def find_unfinished(self) -> list[str]:
        """Find what a run left on the server, or with `undo` the restore that can be taken back. Return it in words.

        Raises:
            ProofError: More than one procedure is unfinished; or there is nothing to undo.
            ConfigurationError: What would be undone is a deploy.
        """
        found = find_unfinished(self.target)
        if len({intent.run for _, intent in found}) > 1:
            raise ProofError(
                f"More than one procedure of {self.target.name} is unfinished",
                expected="one at most",
                found="\n".join(f"{name!r}: {one.procedure}, {one.stage}, since {one.since}" for name, one in found),
                kept="nothing was changed",
                hint="\n".join([*_ways_to_drop(found), f"{recover_command(self.target)}   once only one is left"]),
            )
        if found:
            # Of the two databases that bear it after a swap, the one under the live name tells the stage.
            self.unfinished = next((one for one in found if one[0] == self.target.database.name), found[0])
        elif self.undo:
            self.unfinished = self._last_restore()
            require_undoable(self.target, self.unfinished[1])
        self._orphans = find_orphans(self.target)
        return self.describe()

    def describe(self) -> list[str]:
        """Return what was found, a line each."""
        lines = [f"{name!r}: a side database of a run that ended while creating it" for name in self._orphans]
        if self.unfinished is not None:
            name, one = self.unfinished
            what = f"undo of the {one.procedure}" if UNDO in one.options else one.procedure
            lines.append(f"{name!r}: {what} of {one.backup}, {one.stage}, since {one.since}, by {one.by}")
        return lines or ["nothing is unfinished"]

    def plan(self) -> list[str]:
        """Return what will be done, a line each."""
        if self.unfinished is None:
            return ["look whether the live database, its files and its services are as they must be"]
        _, one = self.unfinished
        if is_of_a_release(one):
            return plan_of(one)
        put_aside = f"{'keep' if UNDO in one.options else 'drop'} {one.side!r}; {one.live!r} is as it was"
        plans = {
            "building": [put_aside],
            "built": [put_aside],
            "stopping": ["start the services", put_aside],
            "swapped": ["start the services and look at the new database", "keep it if it passes, else swap back"],
            "migrating": ["see whether the revisions were undone: if so, keep that if it passes", "else", put_aside],
            "in place": [f"build {one.live!r} anew from the safety backup {one.safety}, if it is gone"],
            "kept": [f"stop the services, make {one.parked!r} {one.live!r} again", "start the services"],
        }
        lost = [f"LOSE {rows:,} rows written to {table} since" for table, rows in self.lost.items()]
        return [*plans[one.stage], *lost, *([AGAIN] if self._is_in_the_way_of_an_undo() else [])]

    def count_losses(self) -> dict[str, int]:
        """Count the rows that an undo would lose: written since the swap, table by table.

        Raises:
            DatabaseError: The live database does not answer.
        """
        if self.undo and self.unfinished is not None and self.unfinished[1].stage == "kept":
            one = self.unfinished[1]
            with connect(self.target.database) as connection:
                self.lost = rows_written_since(connection, one.swap_xid)
            for table, rows in self.lost.items():
                self.journal.warn(f"the undo loses {rows:,} rows written to {table} since the {one.procedure}")
        return self.lost

    def require_confirmation(self) -> None:
        """Let nobody undo a restore of a protected environment by accident.

        Raises:
            ConfigurationError: The environment is protected, and the target was not named.
        """
        if self.undo and self.target.protected and not self._confirmed:
            raise ConfigurationError(
                f"{self.target.environment} is protected: nothing was done",
                expected=f"--confirm={self.target.name}, once you have read the plan",
                found="\n".join(f"{number}. {line}" for number, line in enumerate(self.plan(), 1)),
                kept="everything",
                hint=f"the same command with --confirm={self.target.name}",
            )

    def take_lock(self) -> Lock:
        """Keep other runs off this target; a run that is still at work is not recovered from.

        Raises:
            DatabaseError: Another run is at work on it.
            ProofError: One was, until now, and has left something else than what was found at first.
        """
        self.lock = self._undo_stack.enter_context(hold_lock(self.target.database, "recover"))
        planned = self.unfinished, self._orphans
        self.unfinished = None
        self.find_unfinished()
        if planned != (self.unfinished, self._orphans):
            raise ProofError(
                f"Another run was still at work on {self.target.name}: the plan is not true any more",
                expected="what was found at first",
                found="\n".join(self.describe()),
                kept="nothing was changed",
                hint="run the same command again, and read its plan",
            )
        return self.lock

    def bring_to_an_end(self) -> list[str]:
        """Finish what can be finished, undo the rest. Return what was done.

        Raises:
            OpsproofError: It could not be done; the hint is what to type.
        """
        done = [f"{folder} is removed" for folder in remove_abandoned()]
        if self.unfinished is not None:
            done += self._ending.bring_about(self.unfinished[1])
        with maintenance(self.target.database) as connection:
            for name in self._orphans:
                drop_database(connection, name)
                done.append(f"{name!r} is dropped")
        done += [f"{name!r}, a scratch database, is dropped" for name in drop_looks(self.target, self.journal)]
        done += self._clear_away()
        for line in done:
            self.journal.warn(f"recovered: {line}")
        # A first deploy that is taken back leaves none. A restore that has brought none back is no good end.
        begun = self.unfinished[1] if self.unfinished else None
        self.is_live = self._exists() or begun is None or begun.had_live or not is_of_a_release(begun)
        again = [AGAIN] if self._is_in_the_way_of_an_undo() else []
        self.verdict = (*done, *again) if done else ("nothing was unfinished",)
        return done

    def check_application(self) -> int:
        """Look at what is live: it answers, takes connections, its services run and its files are all there.

        Raises:
            OpsproofError: Something is wrong.
        """
        found = self._ending.require_whole() if self.is_live else 0
        left = find_unfinished(self.target)
        if left:
            raise ProofError(
                f"Something of {self.target.name} is still unfinished, or was begun meanwhile",
                expected="no intent on the server",
                found="\n".join(f"{name!r}: {one.procedure}, {one.stage}, since {one.since}, by {one.by}"
                                for name, one in left),
                kept="what is live works, and finds its files" if self.is_live else "no database is live, as before",
                hint=recover_command(self.target),
            )  # fmt: skip
        name = self.target.database.name
        self.verdict += (f"{name!r} is whole" if self.is_live else f"there is no database {name!r}, as before",)
        return found

    def close(self) -> None:
        """Give the lock back."""
        self._undo_stack.close()

    def _exists(self) -> bool:
        with maintenance(self.target.database) as connection:
            return database_exists(connection, self.target.database.name)

    def _clear_away(self) -> list[str]:
        """Remove what a killed run has left beside the database; what cannot be reached is only told."""
        settings, host = self.target.filestore, Host(self.target.connection)
        try:
            filestore = Filestore(host, settings, self.target.database.name) if settings else None
            done = [f"{one} is removed" for one in clear_leftovers(self.target, filestore, self.store)]
            done += [f"{path}, a drill's, is removed" for path in remove_abandoned_folders(host, self.target)]
            if settings:
                done += [f"{path} is removed" for path in self._remove_unfinished(settings.path)]
            if self.target.deploy_folder:
                releases = releases_of(self.target)
                with releases.held():
                    done += [f"release {one} is removed" for one in releases.clear_unfinished()]
        except OpsproofError as error:
            self.journal.warn(f"what a killed run may have left stays: {error}")
            return []
        return done

    def _remove_unfinished(self, root: PurePosixPath) -> list[str]:
        host = Host(self.target.connection)
        if host.is_local:
            return [str(path) for path in remove_unfinished(Path(root))]
        return remove_unfinished_there(host, root)

    def _last_restore(self) -> tuple[str, Intent]:
        with maintenance(self.target.database) as connection:
            kept = [
                (name, one)
                for name, one in find_intents(connection)
                if one.live == self.target.database.name and one.stage == "kept" and name == one.parked
            ]
        if not kept:
            raise ProofError(
                f"There is no restore of {self.target.name} to take back",
                expected="a database that a restore has kept",
                found="none: it was cleaned up, or never was",
                kept="nothing was changed",
                hint=f"{listing_command(self.target)}   shows what can be restored instead\n"
                + restore_command(self.target, "ID"),
            )
        # The server counts its transactions; the times are those of the machines that the runs were on.
        return max(kept, key=lambda one: (int(one[1].swap_xid or 0), one[1].since))

    def _is_in_the_way_of_an_undo(self) -> bool:
        """Tell whether something else has to be brought to its end before a restore can be taken back."""
        if not self.undo or self.unfinished is None:
            return False
        one = self.unfinished[1]
        return one.stage != "kept" and not (one.stage == "swapped" and UNDO in one.options)


def _ways_to_drop(found: list[tuple[str, Intent]]) -> list[str]:
    """Return the commands that drop what is only being built; the other databases hold what may be needed."""
    return [
        f"{drop_command(name)}   drops what the one was building"
        for name, one in found
        if one.stage in ("building", "built") and name == one.side
    ]
