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
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from opsproof.errors import ConfigurationError, OpsproofError, ProofError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.commands import drop_command, listing_command, recover_command, restore_command
from opsproof.procedures.examination import drop_abandoned_scratch, find_orphans, find_unfinished
from opsproof.procedures.exchange import UNDO, Exchange, explain_failed_undo
from opsproof.procedures.leftovers import clear_leftovers
from opsproof.procedures.migrating import bring_copy_back, keep_copy, mark_time, was_migrated
from opsproof.procedures.safety import restore_safety_backup
from opsproof.procedures.staging import StagedFiles
from opsproof.procedures.workspace import remove_abandoned
from opsproof.system.databases import STAMP, drop_database, find_intents, parked_name, write_intent
from opsproof.system.dropping import survives
from opsproof.system.fileadding import remove_unfinished
from opsproof.system.filestore import Filestore
from opsproof.system.host import Host
from opsproof.system.lock import Lock, hold_lock
from opsproof.system.maintenance import maintenance
from opsproof.system.postgres import connect
from opsproof.system.store import Store
from opsproof.system.swap import park, rows_written_since
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
        self.lock: Lock
        self._confirmed = confirmed
        self._host = Host(target.connection)
        self._undo_stack = ExitStack()
        self._orphans: tuple[str, ...] = ()

    def find_unfinished(self) -> list[str]:
        """Find what a run left on the server, or with `undo` the restore that can be taken back. Return it in words.

        Raises:
            ProofError: More than one procedure is unfinished; or there is nothing to undo.
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
            with connect(self.target.database) as connection:
                self.lost = rows_written_since(connection, self.unfinished[1].swap_xid)
            for table, rows in self.lost.items():
                self.journal.warn(f"the undo loses {rows:,} rows written to {table} since the restore")
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
            intent = self.unfinished[1]
            steps = {
                "swapped": self._finish_swap,
                "in place": self._finish_in_place,
                "kept": self._take_back_restore,
                "migrating": self._finish_migration,
            }
            # In place, whatever the stage: the old database is only in its safety backup.
            in_place = bool(intent.safety) and not intent.parked and intent.stage not in ("swapped", "kept")
            try:
                done += steps.get("in place" if in_place else intent.stage, self._undo_build)(intent)
            except OpsproofError as error:
                raise explain_failed_undo(self.target, intent, error) from error
        with maintenance(self.target.database) as connection:
            for name in self._orphans:
                drop_database(connection, name)
                done.append(f"{name!r} is dropped")
        done += [f"{name!r}, a scratch database, is dropped" for name in drop_abandoned_scratch(self.target)]
        done += self._clear_away()
        for line in done:
            self.journal.warn(f"recovered: {line}")
        is_whole = f"{self.target.database.name!r} is whole"
        again = [AGAIN] if self._is_in_the_way_of_an_undo() else []
        self.verdict = (*done, is_whole, *again) if done else ("nothing was unfinished",)
        return done

    def check_application(self) -> int:
        """Look at what is live: it answers, takes connections, its services run and its files are all there.

        Raises:
            OpsproofError: Something is wrong.
        """
        exchange = self._exchange(None)
        for service in exchange.services:
            if not service.is_running():
                service.start()
        exchange.wait_for_health()
        found = exchange.check_application()
        left = find_unfinished(self.target)
        if left:
            raise ProofError(
                f"Something of {self.target.name} is still unfinished, or was begun meanwhile",
                expected="no intent on the server",
                found="\n".join(f"{name!r}: {one.procedure}, {one.stage}, since {one.since}, by {one.by}"
                                for name, one in left),
                kept=f"{self.target.database.name!r} is live, works, and finds its files",
                hint=recover_command(self.target),
            )  # fmt: skip
        return found

    def close(self) -> None:
        """Give the lock back."""
        self._undo_stack.close()

    def _clear_away(self) -> list[str]:
        """Remove what a killed run has left beside the database; what cannot be reached is only told."""
        settings = self.target.filestore
        try:
            filestore = Filestore(self._host, settings) if settings else None
            done = [f"{one} is removed" for one in clear_leftovers(self.target, filestore, self.store)]
            if settings:
                done += [f"{path} is removed" for path in remove_unfinished(Path(settings.path))]
        except OpsproofError as error:
            self.journal.warn(f"what a killed run may have left stays: {error}")
            return []
        return done

    def _undo_build(self, intent: Intent) -> list[str]:
        done = []
        if intent.stage == "stopping" and self._is_live(intent):
            done += self._start(intent)
        elif intent.stage == "stopping":
            self._exchange(intent).start_whatever_starts()
        return [*done, self._put_aside(intent), f"{intent.live!r} is as it was"]

    def _put_aside(self, intent: Intent) -> str:
        """Drop what a restore built; but what an undo was to make live again is kept, and says what it said before."""
        staged = self._staged(intent)
        with maintenance(self.target.database) as connection:
            if UNDO not in intent.options:
                if staged is not None:
                    staged.discard()
                drop_database(connection, intent.side)
                return f"{intent.side!r} is dropped"
            before = Intent.from_json(intent.options[UNDO])
            files = self._staged(before)
            if staged is not None and files is not None:
                staged.release(files.parked)
            with connection.transaction():
                park(connection, before.parked)
                write_intent(connection, before.parked, before)
            return f"{before.parked!r} is kept as before"

    def _finish_swap(self, intent: Intent) -> list[str]:
        exchange = self._exchange(intent)
        exchange.resume_after_swap()
        exchange.had_live = bool(intent.parked)
        try:
            for service in exchange.services:
                if not service.is_running():
                    service.start()
            exchange.wait_for_health()
            exchange.check_application()
        except OpsproofError as error:
            self.journal.warn(f"the new database does not pass: {error}")
            done = exchange.take_names_back()
            if not intent.parked and intent.safety:
                # In place: the old database is only in its safety backup.
                return [*done, *self._finish_in_place(replace(intent, stage="in place"))]
            return [*done, *exchange.start_again(), self._put_aside(intent)]
        exchange.keep()
        old = f"the old database is {intent.parked!r}" if intent.parked else "no old database is kept"
        how = f"taken back; what was live since is {intent.parked!r}" if UNDO in intent.options else f"finished; {old}"
        return [f"the restore of {intent.backup} is {how}"]

    def _finish_migration(self, intent: Intent) -> list[str]:
        """Finish a downgrade of the live database that was committed; clear up after one that was not."""
        exchange = self._exchange(intent)
        if was_migrated(self.target, intent):
            intent = mark_time(self.target, intent)
            try:
                self._start(intent)
                exchange.wait_for_health()
                exchange.check_application()
            except OpsproofError as error:
                self.journal.warn(f"the migrated database does not pass: {error}")
                return bring_copy_back(self.target, self.journal, intent)
            keep_copy(self.target, intent)
            return [f"the rollback to {intent.options['to'] or 'base'} is finished; before: {intent.parked!r}"]
        done = self._start(intent)
        with maintenance(self.target.database) as connection:
            drop_database(connection, intent.parked)
        return [*done, f"{intent.parked!r}, a copy, is dropped", f"{intent.live!r} is as it was"]

    def _finish_in_place(self, intent: Intent) -> list[str]:
        if self._is_live(intent):
            return self._undo_build(replace(intent, stage="stopping"))
        staged = self._staged(intent)
        if staged is not None:
            staged.discard()
        restore_safety_backup(self.target, self.store, self.journal, intent)
        return [f"{intent.live!r} is built anew from the safety backup {intent.safety}", *self._start(intent)]

    def _is_live(self, intent: Intent) -> bool:
        with maintenance(self.target.database) as connection:
            return survives(connection, intent.live)

    def _start(self, intent: Intent) -> list[str]:
        """Start the services; those that run too, for one that dies again and again seems to at times."""
        done = []
        for service in self._exchange(intent).services:
            was_running = service.is_running()
            service.start()
            done += [] if was_running else [f"{service.describe()} runs again"]
        return done

    def _take_back_restore(self, intent: Intent) -> list[str]:
        """Swap once more, the other way round: nothing is dropped, so that even this can be undone."""
        moment = datetime.now(UTC)
        stamp = {"stamp": moment.strftime(STAMP)} if "stamp" in intent.options else {}
        again = replace(
            intent, side=intent.parked, parked=parked_name(intent.live, moment), stage="stopping",
            options={**stamp, UNDO: intent.to_json()},
        )  # fmt: skip
        exchange = self._exchange(again)
        staged = self._staged(intent)
        exchange.swap_parked(intent.parked, staged.parked if staged else None)
        return [f"{intent.parked!r} is {intent.live!r} again; what was live since is {again.parked!r}"]

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
        return max(kept, key=lambda one: one[1].since)

    def _exchange(self, intent: Intent | None) -> Exchange:
        blank = Intent("recover", "", self.target.environment, self.target.name, self.target.database.name, "", "", "",
                       "", "kept", self.target.services, "", "")  # fmt: skip
        one = intent or blank
        return Exchange(self.target, self._host, one, self.journal, self._staged(one) if intent else None)

    def _staged(self, intent: Intent) -> StagedFiles | None:
        """Return the folders that are exchanged with the database; None where no folder is exchanged."""
        settings = self.target.filestore
        if settings is None or settings.content_addressed or "stamp" not in intent.options:
            return None  # a schema's rollback leaves the files alone
        return StagedFiles(Path(settings.path), intent.options.get("stamp", ""))

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
