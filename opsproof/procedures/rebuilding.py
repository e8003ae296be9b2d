"""The copy that a drill builds: a database and a folder under scratch names, proven, neutralized, and removed again.

Each public method is a step of `actions/test_drill.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from opsproof.inspection.restored import Proof
from opsproof.inspection.structure import Sound, checking_structure
from opsproof.journal import Journal
from opsproof.procedures.building import SideDatabase
from opsproof.procedures.drilling import Drilling, DrillRequest
from opsproof.procedures.examination import Request
from opsproof.procedures.neutralizing import Neutralized
from opsproof.procedures.scratchcopy import (
    find_abandoned_folders,
    remove_scratch_folder,
    scratch_database,
    scratch_folder,
)
from opsproof.system.fileadding import FilesAdded
from opsproof.system.lock import Lock, hold_lock
from opsproof.system.scratch import drop_abandoned
from opsproof.system.store import Store
from opsproof.target import Target

MOST_TABLES = 40


class Rebuilding(Drilling):
    """The rebuilding of one backup beside what is live; the arguments are those of `Drilling`."""

    proof: Proof
    lock: Lock
    side: SideDatabase
    soundness: Callable[[], Sound]
    procedure = "drill"

    def __init__(self, target: Target, store: Store, journal: Journal, request: Request, wish: DrillRequest) -> None:
        super().__init__(target, store, journal, request, wish)
        self._checks: list[str] = []
        self._unverified: list[str] = []
        self._identity = ""
        self._rows: dict[str, tuple[int, int]] = {}
        self._aside = ThreadPoolExecutor(1, "opsproof removal")
        self._removal: Future[None] | None = None

    def take_lock(self) -> Lock:
        """Keep other runs off this target, and remove what a killed drill has left.

        Raises:
            DatabaseError: Another run is at work on it.
            FilestoreError: A folder cannot be removed.
        """
        self._undo.enter_context(self._aside)
        self.lock = self._undo.enter_context(hold_lock(self.target.database, self.procedure))
        for name in drop_abandoned(self.target.database):
            self.journal.warn(f"An earlier drill was killed and left {name!r}: dropped")
        filestore = self.target.filestore
        for name in find_abandoned_folders(self.host, self.target):
            if filestore is not None:
                remove_scratch_folder(self.host, filestore, name)
                self.journal.warn(f"An earlier drill was killed and left {scratch_folder(filestore, name)}: removed")
        return self.lock

    def build_copy(self) -> SideDatabase:
        """Build the scratch database from the backup.

        Raises:
            DatabaseError: The server refused.
            DumpError: A statement of the dump failed.
        """
        self.lock.check()
        self._undo.callback(self._remove_files)
        with self._judged("restore"):
            self.side = self._undo.enter_context(
                scratch_database(self.clients, self.name, self.backup, self.facts, self.journal, self.request.roles)
            )
            record = self.backup.manifest.database if self.backup.manifest else None
            owner = self.facts.owner if self.facts else (record.owner if record else self.server.user)
            roles = {} if self.facts else self.request.roles
            self.side.load(self.backup, self.dump, roles.get(owner, owner), self.request.roles)
        return self.side

    def prove_copy(self) -> Proof:
        """Hold the copy against what was counted when the backup was taken.

        Raises:
            ProofError: It differs.
        """
        with self._judged("restore"):
            self.proof = self.side.prove(self.backup, self.dump, self.request.roles)
        # Nobody needs it any more, and to remove a big file takes its time.
        self._aside.submit(self.unpacked.unlink)
        self._unverified += [*self.backup.unverified, *self.proof.unverified]
        biggest = sorted(self.backup.tables(), key=lambda one: (-one.rows, one.table))[:MOST_TABLES]
        # As many as the backup says: that is what was just proven.
        self._rows = {one.table: (one.rows, one.rows) for one in biggest}
        return self.proof

    def neutralize(self) -> Neutralized:
        """Make the copy harmless while no application sees it.

        Raises:
            OpsproofError: A statement failed, or something of the copy would still act.
        """
        with self._judged("restore"), self.journal.phase("neutralize"):
            done = self.neutralizing.perform(self.side.address)
        self._identity = done.shown
        if not done.done:
            self._unverified.append(f"that the copy harms nobody: {done.why}")
        return done

    def bring_files(self) -> FilesAdded:
        """Bring the files back, beside the live ones; amcheck begins to look through the database meanwhile.

        Raises:
            FilestoreError: They cannot be written.
            ArchiveError: One is not what was backed up.
        """
        self.lock.check()
        # That every row is in every index was so a moment ago, when the server built them.
        self.soundness = self._undo.enter_context(checking_structure(self.copy.database, rows=False))
        copied = self.copy.filestore
        with self._judged("restore"), self.journal.phase("files"):
            if copied is not None and self._has_files and not self.backup.files_count:
                # An empty folder, where the rows may name files all the same.
                self.host.run("mkdir", "--", str(copied.path))
            added = self._files.add(self.backup, None, lasting=False)
        self._statuses["restore"] = "passed"
        return added

    def _remove_copy(self) -> None:
        """Remove the database, and its files meanwhile; then everything else that was begun."""
        if self.target.filestore is not None:
            self._removal = self._aside.submit(remove_scratch_folder, self.host, self.target.filestore, self.name)
        self._undo.pop_all().close()

    def _remove_files(self) -> None:
        if self._removal is not None:
            self._removal.result()
        elif self.target.filestore is not None:
            remove_scratch_folder(self.host, self.target.filestore, self.name)

    @property
    def _has_files(self) -> bool:
        manifest = self.backup.manifest
        return bool(self.backup.files_count or (manifest and manifest.filestore))
