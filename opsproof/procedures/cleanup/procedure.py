"""Clean up one target: its old backups, and what runs and migrations have left; what is in doubt stays.

Each public method is one step of `actions/test_cleanup.py`, in the order in which they stand here.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opsproof.archive.catalogue.holdings import Holding
from opsproof.archive.catalogue.index import read_contents, write_index
from opsproof.errors import ProofError, StoreError
from opsproof.journal import Journal
from opsproof.procedures.cleanup import artifacts
from opsproof.procedures.cleanup.parked import drop_parked, find_parked
from opsproof.procedures.cleanup.planning import Planning
from opsproof.procedures.cleanup.removal import (
    Removed,
    delete_listed,
    find_old_versions,
    remove_backups,
    remove_old_versions,
)
from opsproof.procedures.cleanup.shelf import renew_index, require_readable
from opsproof.procedures.cleanup.stocktaking import take_stock
from opsproof.procedures.commands import backup_command, listing_command
from opsproof.procedures.restore.workspace import remove_abandoned
from opsproof.procedures.unfinished import require_nothing_unfinished
from opsproof.system.postgres.lock import Lock, hold_lock
from opsproof.system.store import Store
from opsproof.target import Target


class Cleanup(Planning):
    """One cleanup of one target; the arguments are those of `Planning`.

    Attributes:
        removed: What became of the backups.
        verdict: What was done, a line each; empty until the end.
    """

    lock: Lock

    def __init__(
        self, target: Target, store: Store, journal: Journal, *, older_than: timedelta | None = None, logs: Path
    ) -> None:
        super().__init__(target, store, journal, older_than=older_than, logs=logs)
        self.removed = Removed()
        self.verdict: tuple[str, ...] = ()
        self._done: list[str] = []
        self._stack = ExitStack()
        self._going: list[Holding] = []

    def take_lock(self) -> Lock:
        """Keep other runs off this target; what another one has used or taken meanwhile is looked at again.

        Raises:
            DatabaseError: Another run is at work on it.
        """
        self.lock = self._stack.enter_context(hold_lock(self.target.database, "cleanup"))
        require_nothing_unfinished(self.target)
        planned = {one.known.id: one for one in self.stock.going}
        again = take_stock(self.target, self.store, self.rules, self._find_used(), self._now)
        # Nothing goes that the plan did not name, nor what there is a reason to keep by now.
        self._going = [one for one in again.going if planned.get(one.known.id) == one]
        self.stock = again
        return self.lock

    def remove_backups(self) -> Removed:
        """Remove the backups of the plan, each manifest first; with the policy's word their old versions, too.

        Raises:
            ProofError: The last verified backup, which others go for, cannot be read: nothing was removed.
            StoreError: The store failed.
        """
        gone = self._gone_before()
        if self._going:
            # What others go for has to be more than a line of the index.
            self._require_last()
            if self.stock.contents.read:
                # Whoever is killed over it leaves bundles without a manifest: the index tells whose they are.
                write_index(self.store, self.stock.contents.lines.values(), datetime.now(UTC))
            self.lock.check()
            with self.journal.phase("remove backups"):
                self.removed = remove_backups(self.store, self._going, self.journal, check_locks=self.stock.check_locks)
        delete_listed(self.store, self.stock.lone, self.removed.left)
        if self.target.policies.retention.noncurrent:
            self._remove_old_versions({*gone, *self.removed.backups})
        removed = self.removed
        self._done.append(f"{_backups(len(removed.backups))} removed, {removed.bytes:,} bytes")
        if removed.versions:
            self._done.append(f"{removed.versions:,} old versions removed")
        self._done += [f"not removed: {line}" for line in (*removed.left, *removed.refused)]
        return removed

    def remove_uploads(self) -> int:
        """Remove the unfinished uploads of runs that were killed. Return how many.

        Raises:
            StoreError: The store refused.
        """
        for one in self.remains.uploads:
            self.store.abort_leftover(one)
            self._done.append(f"the unfinished upload {one.location} removed")
        return len(self.remains.uploads)

    def drop_parked(self) -> int:
        """Drop the databases that were live before a restore or rollback, and whose time for an undo is past.

        Raises:
            OpsproofError: One is not what it was, or the server refused.
        """
        going = [one for one in self.remains.parked if one.is_past]
        for one in going:
            self.lock.check()
            drop_parked(self.target, one)
            self._done.append(f"{one.description}, dropped")
        return len(going)

    def clear_machine(self) -> int:
        """Remove folders of killed restores, and old logs, from this machine. Return how many of both."""
        removed = [*remove_abandoned()]
        for path in self.remains.logs:
            with suppress(FileNotFoundError):
                path.unlink()
                removed.append(path)
        if removed:
            self._done.append(f"{len(removed):,} old logs and abandoned folders removed from this machine")
        return len(removed)

    def clean_database(self) -> dict[str, int]:
        """Delete the rows and drop the tables that migrations have left. Return the rows by statement.

        Raises:
            ProofError: A table is another by now.
            DatabaseError: The server refused.
        """
        found = self.remains.artifacts
        if not found.is_anything:
            return {}
        # Somebody may have found the backup to be damaged meanwhile.
        self.require_fresh_backup()
        self.lock.check()
        deleted = artifacts.delete_rows(self.target, found.rows) if found.rows else {}
        artifacts.drop_tables(self.target, found.going, self._require_covered)
        self._done += [f"{deleted[one.statement]:,} rows deleted by: {one.shown}" for one in found.rows]
        self._done += [f"table {one.name} dropped, {one.rows:,} rows" for one in found.going]
        return deleted

    def check_result(self) -> int:
        """Look again: what should be gone is gone, what should be there is there, the last backup can be read.

        Return the number of the target's backups that are there.

        Raises:
            ProofError: It is not so.
        """
        contents = read_contents(self.store)
        gone, staying = set(self.removed.backups), self.stock.own_staying
        parts = [each for one in self._going if one.known.id in gone for each in (one.bundle, one.sidecar) if each]
        there = [*self.removed.refused, *(each.name for each in parts if each.name in contents.listed)]
        there += [f"table {name}" for name in artifacts.find_left(self.target, self.remains.artifacts.going)]
        past = [one.name for one in self.remains.parked if one.is_past]
        there += [f"database {one.name!r}" for one in find_parked(self.target, self._now) if one.name in past]
        missing = [each.name for one in staying for each in one.objects if each.name not in contents.listed]
        if there or missing:
            raise ProofError(
                "The cleanup did not come to what it should",
                expected="all that was removed to be gone, and all else to be there",
                found="\n".join([*(f"still there: {one}" for one in there), *(f"missing: {one}" for one in missing)]),
                kept="what is there now",
                hint=listing_command(self.target),
            )
        self._require_last()
        try:
            renew_index(self.store, contents)
        except StoreError as error:
            # It is a cache: nothing but time is lost without it.
            self.journal.warn(f"the index of the store is not renewed: {error}")
        verb = "is" if len(staying) == 1 else "are"
        self._done.append(f"{_backups(len(staying))} of {self.target.name} {verb} there, the last is readable")
        self.verdict = tuple(self._done)
        self.journal.record("cleaned up", removed=sorted(gone), left=self.removed.left, done=self._done)
        return len(staying)

    def close(self) -> None:
        """Give the lock back."""
        self._stack.close()

    def _require_last(self) -> None:
        last = next((one for one in self.stock.holdings if one.known == self.stock.last), None)
        if last is not None:
            require_readable(self.store, last, backup_command(self.target))

    def _remove_old_versions(self, backups: set[str]) -> None:
        present = {one.name for one in self.store.list()}
        # What hides a version is listed once nothing is left to hide.
        for _ in range(2):
            versions = tuple(find_old_versions(self.store, backups, present))
            if not versions or not remove_old_versions(self.store, versions, self.removed):
                return


def _backups(count: int) -> str:
    return "1 backup" if count == 1 else f"{count:,} backups"
