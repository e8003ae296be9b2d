"""How a procedure that was killed is brought to its end: finished where that can be proven, else taken back."""

from __future__ import annotations

from dataclasses import replace

from opsproof.errors import OpsproofError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.deploy.ending import end_turnover, is_of_a_release
from opsproof.procedures.outage.exchange import Exchange
from opsproof.procedures.outage.failedundo import explain_failed_undo
from opsproof.procedures.outage.staging import StagedFiles
from opsproof.procedures.outage.undoing import UNDO, to_undo
from opsproof.procedures.restore.fromsafety import restore_safety_backup
from opsproof.procedures.rollback.migrating import bring_copy_back, keep_copy, mark_time, was_migrated
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.databases import drop_database, write_intent
from opsproof.system.postgres.dropping import survives
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import connect
from opsproof.system.postgres.swap import park
from opsproof.system.store import Store
from opsproof.target import Target


class Ending:
    """Brings one target to an end, from what the intent on its server says.

    Args:
        target: What to bring to an end.
        store: Where its safety backups are.
        journal: What happened.
    """

    def __init__(self, target: Target, store: Store, journal: Journal) -> None:
        self.target = target
        self.store = store
        self.journal = journal
        self._host = Host(target.connection)

    def bring_about(self, intent: Intent) -> list[str]:
        """Finish what can be finished, undo the rest. Return what was done.

        Raises:
            OpsproofError: It could not be done; the hint is what to type.
        """
        endings = {
            "swapped": self._finish_swap,
            "in place": self._finish_in_place,
            "kept": self._take_back,
            "migrating": self._finish_migration,
        }
        # In place, whatever the stage: the old database is only in its safety backup.
        in_place = bool(intent.safety) and not intent.parked and intent.stage not in ("swapped", "kept")
        try:
            if is_of_a_release(intent):
                return end_turnover(self.target, self.store, self.journal, intent)
            return endings.get("in place" if in_place else intent.stage, self._undo_build)(intent)
        except OpsproofError as error:
            raise explain_failed_undo(self.target, intent, error) from error

    def require_whole(self) -> int:
        """Start the services that are down, and look at what is live. Return the number of its files.

        Raises:
            OpsproofError: It does not answer, a service does not keep running, or a file is missing.
        """
        target = self.target
        # First: without a database the services have nothing to run on, and would say less clearly why.
        with connect(target.database):
            pass
        nothing = Intent("recover", "", target.environment, target.name, target.database.name, "", "", "", "", "kept",
                         target.services, "", "")  # fmt: skip
        exchange = self._exchange(nothing)
        exchange.serving.start_those_down()
        exchange.wait_for_health()
        return exchange.check_application()

    def _undo_build(self, intent: Intent) -> list[str]:
        done = []
        if intent.stage == "stopping" and self._is_live(intent):
            done += self._exchange(intent).serving.start()
        elif intent.stage == "stopping":
            self._exchange(intent).serving.start_whatever_starts()
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
            exchange.serving.start_those_down()
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
                self._exchange(intent).serving.start()
                exchange.wait_for_health()
                exchange.check_application()
            except OpsproofError as error:
                self.journal.warn(f"the migrated database does not pass: {error}")
                return bring_copy_back(self.target, self.journal, intent)
            keep_copy(self.target, intent)
            return [f"the rollback to {intent.options['to'] or 'base'} is finished; before: {intent.parked!r}"]
        done = self._exchange(intent).serving.start()
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
        return [
            f"{intent.live!r} is built anew from the safety backup {intent.safety}",
            *self._exchange(intent).serving.start(),
        ]

    def _is_live(self, intent: Intent) -> bool:
        with maintenance(self.target.database) as connection:
            return survives(connection, intent.live)

    def _take_back(self, intent: Intent) -> list[str]:
        """Swap once more, the other way round: nothing is dropped, so that even this can be undone."""
        again = to_undo(intent)
        exchange = self._exchange(again)
        staged = self._staged(intent)
        exchange.swap_parked(intent.parked, staged.parked if staged else None)
        return [f"{intent.parked!r} is {intent.live!r} again; what was live since is {again.parked!r}"]

    def _exchange(self, intent: Intent) -> Exchange:
        return Exchange(self.target, self._host, intent, self.journal, self._staged(intent))

    def _staged(self, intent: Intent) -> StagedFiles | None:
        """Return the folders that are exchanged with the database; None where no folder is exchanged."""
        settings = self.target.filestore
        if settings is None or settings.content_addressed or "stamp" not in intent.options:
            return None  # a schema's rollback leaves the files alone
        return StagedFiles(self._host, settings.path, intent.options.get("stamp", ""))
