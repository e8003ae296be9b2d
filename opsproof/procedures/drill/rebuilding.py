"""The copy that a drill builds: a database and a folder under scratch names, proven, neutralized, and removed again.

Each public method is a step of `actions/test_drill.py`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from threading import Event

from opsproof.errors import FilestoreError
from opsproof.inspection.databases.structure import Sound, checking_structure
from opsproof.inspection.restores.restored import Proof
from opsproof.journal import Journal
from opsproof.procedures.drill.drilling import Drilling, DrillRequest
from opsproof.procedures.restore.building import SideDatabase
from opsproof.procedures.restore.examination import Request
from opsproof.procedures.restore.neutralizing import Neutralized
from opsproof.procedures.scratchcopy import (
    remove_abandoned_folders,
    remove_scratch_folder,
    scratch_database,
)
from opsproof.system.files.adding import FilesAdded
from opsproof.system.postgres.lock import Lock, hold_lock
from opsproof.system.postgres.scratch import drop_abandoned
from opsproof.system.store import Store
from opsproof.target import Target

FILES = "files"
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
        self._written: Future[FilesAdded] | None = None
        self._is_over = Event()
        self._removal: Future[None] | None = None
        # Seconds that a restore, which does one after the other, would take longer.
        self._saved = 0.0

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
        for folder in remove_abandoned_folders(self.host, self.target):
            self.journal.warn(f"An earlier drill was killed and left {folder}: removed")
        return self.lock

    def build_copy(self) -> SideDatabase:
        """Build the scratch database from the backup; its files are written meanwhile.

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
            # Before the database is dropped, which those who write the files need not.
            self._undo.callback(self._is_over.set)
            with self._files_meanwhile():
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
        """Tell of the files, which are beside the live ones; amcheck begins to look through the database.

        Raises:
            FilestoreError: They cannot be written.
            ArchiveError: One is not what was backed up.
        """
        self.lock.check()
        # That every row is in every index was so a moment ago, when the server built them.
        self.soundness = self._undo.enter_context(checking_structure(self.copy.database, rows=False))
        with self._judged("restore"):
            added = self._written.result() if self._written is not None else self._files.added
        self._statuses["restore"] = "passed"
        return added

    @contextmanager
    def _files_meanwhile(self) -> Iterator[None]:
        """Write the files while the block does something else, and until that is done; `bring_files` tells how it went.

        A load leaves processors idle. A restore does one after the other, so its time counts both.
        """
        began = time.monotonic()
        self._written = self._aside.submit(self._write_files)
        yield
        loaded = time.monotonic() - began
        wait([self._written])
        self._saved = min(loaded, self.journal.phases.get(FILES, 0.0))

    def _write_files(self) -> FilesAdded:
        copied = self.copy.filestore
        with self.journal.phase(FILES):
            if copied is not None and self._has_files and not self.backup.files_count:
                # An empty folder, where the rows may name files all the same.
                self.host.run("mkdir", "--", str(copied.path))
            return self._files.add(self.backup, None, lasting=False, meanwhile=self._go_on)

    def _go_on(self) -> None:
        if self._is_over.is_set():
            raise FilestoreError("The files of the copy are not written any further", found="the drill was cut short")

    def _remove_copy(self) -> None:
        """Remove the database, and its files meanwhile; then everything else that was begun."""
        if self.target.filestore is not None:
            self._removal = self._aside.submit(remove_scratch_folder, self.host, self.target.filestore, self.name)
        self._undo.pop_all().close()

    def _remove_files(self) -> None:
        if self._written is not None:
            wait([self._written])
        if self._removal is not None:
            self._removal.result()
        elif self.target.filestore is not None:
            remove_scratch_folder(self.host, self.target.filestore, self.name)

    @property
    def _has_files(self) -> bool:
        manifest = self.backup.manifest
        return bool(self.backup.files_count or (manifest and manifest.filestore))
