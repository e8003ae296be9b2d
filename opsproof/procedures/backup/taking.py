"""What a backup takes of its target: the lock, files frozen around a snapshot, and the snapshot dumped and counted."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from datetime import UTC, datetime

from opsproof.archive import manifest as records
from opsproof.archive.contents import Contents, read_contents
from opsproof.archive.writing.capture import Capture, Capturing, give_way
from opsproof.archive.writing.compose import bundle_bytes
from opsproof.errors import FilestoreError
from opsproof.inspection.restores import sameness
from opsproof.journal import Journal
from opsproof.procedures.backup.sending import Sending
from opsproof.procedures.backup.survey import Survey
from opsproof.procedures.leftovers import clear_leftovers, find_unverified
from opsproof.system.files.filestore import FilestoreFacts
from opsproof.system.postgres.lock import hold_lock
from opsproof.system.postgres.server import connect
from opsproof.system.postgres.snapshot import open_snapshot
from opsproof.system.store import Store
from opsproof.target import DirectoryStoreSettings, Target


class Taking(Survey):
    """A target, and what was taken of it; the store has been told of it, but not taken it yet.

    Args:
        target: What to back up.
        store: Where to.
        journal: What happened.
        kind: Why it is taken.
        dry_run: Only the looking steps will be called, and they change nothing, in the store neither.
        locked: The caller holds the target's lock already.
    """

    contents: Contents
    captured: Capture
    roles: bytes

    def __init__(
        self,
        target: Target,
        store: Store,
        journal: Journal,
        *,
        kind: records.Kind = "scheduled",
        dry_run: bool = False,
        locked: bool = False,
    ) -> None:
        super().__init__(target, store, journal, dry_run=dry_run)
        self.kind = kind
        self._locked = locked
        self.started = datetime.now(UTC)
        self._undo = ExitStack()

    def find_filestore(self) -> FilestoreFacts | None:
        """Look at the live filestore; one that is gone altogether is no reason to take no safety backup.

        Raises:
            FilestoreError: It is not where the configuration says.
        """
        if self.kind == "safety" and self.filestore is not None and not self.filestore.exists():
            self.journal.warn(f"{self.filestore.path} is gone: the safety backup is of the database alone")
            self.filestore = None
        return super().find_filestore()

    def take_lock(self) -> list[str]:
        """Keep other runs off this target, and clear away what a killed one left. Return what that was.

        Raises:
            DatabaseError: Another run is at work on it.
        """
        if not self._locked:
            self._undo.enter_context(hold_lock(self.target.database, "backup"))
        cleared = clear_leftovers(self.target, self.filestore, self.store)
        for line in cleared:
            self.journal.warn(f"An earlier run was killed and left {line}: removed")
        for name in find_unverified(self.target, self.store):
            self.journal.warn(
                f"An earlier run ended before {name} was verified: it counts for nothing and can be removed"
            )
        return cleared

    def capture(self) -> Capture:
        """Freeze the files around the snapshot, dump it and count it; then freeze what came meanwhile.

        Raises:
            DumpError: The dump is not whole.
            FilestoreError: The files cannot be frozen.
        """
        give_way()
        if self.filestore:
            self._undo.callback(self.filestore.thaw)
            with self.journal.phase("freeze"):
                self.filestore.freeze()
        full = self.target.fingerprint == "full"
        timeout = self.target.lock_timeout
        with connect(self.target.database, lock_timeout=timeout) as connection, open_snapshot(connection) as snapshot:
            # Every file that the snapshot names is there at this moment; a moment later the clean-up may take it.
            self._gather_files()
            self.contents = read_contents(snapshot)
            self._begin_sending()
            with (
                self.journal.phase("dump"),
                Capturing(self.clients, snapshot, self.journal, lock_timeout=timeout, full=full) as capturing,
            ):
                self.captured = capturing.run(self.facts.bytes)
            self._undo.callback(self.captured.close)
        if self.filestore and not self.filestore.settings.content_addressed:
            self._gather_files()
        with self.journal.phase("roles"):
            self.roles = self.clients.dump_roles()
        return self.captured

    def compare_dump(self) -> int:
        """Hold the dump's rows against the snapshot's. Return the number of tables that agree: all of them.

        Raises:
            ProofError: One differs.
        """
        tables = sameness.compare_contents(self.captured.counted, self.captured.dumped, "the dump")
        sameness.compare_objects(self.captured.counted_objects, self.captured.dumped_objects)
        return tables

    @property
    def accepted_losses(self) -> int:
        """How many attachments may be missing: what the inventory says was lost long ago; before a restore any number.

        Lost and damaged files are what a restore is for: its safety backup takes what there is, and says what is not.
        """
        if self.kind == "safety":
            return len(self.contents.attachments or ())
        return self.target.filestore.accept_missing if self.target.filestore else 0

    @property
    def is_plain(self) -> bool:
        """A database alone in a folder is one `.sql`, as people know it; anything else is a bundle."""
        return isinstance(self.target.store, DirectoryStoreSettings) and self.target.filestore is None

    def _gather_files(self) -> None:
        if self.filestore:
            with self.journal.phase("freeze"):
                self.filestore.complete()

    def _measure_frozen(self) -> tuple[int, int]:
        """Return how much was frozen: what vanishes one by one is no fault, but all of it at once is a lost disk."""
        if self.filestore is None or self.live_files is None:
            return 0, 0
        count, size = self.filestore.measure()
        if self.live_files.files and not count:
            raise FilestoreError(
                f"The files of {self.filestore.path} are gone since this backup began",
                expected=f"{self.live_files.files:,} files, or about as many",
                found="none",
                kept="no backup was written",
                hint=f"ls -la {shlex.quote(str(self.filestore.path))}; findmnt   shows whether its disk is still there",
            )
        return count, size

    def _begin_sending(self) -> None:
        """Begin the upload under a free name; files that never change are sent while the database is dumped."""
        target, taken = self.target, self.contents.taken
        if self.is_plain:
            wanted, ending, expected = records.plain_backup_id(target.environment, taken), ".sql", self.facts.bytes
        else:
            count, size = self._measure_frozen()
            wanted, ending = records.backup_id(target.database.name, taken), ".zip"
            expected = bundle_bytes(count, size, self.facts.bytes)
        recipients = target.policies.sealing.recipients
        self._sent = Sending(self.store, self.journal, wanted, ending, expected, recipients)
        self._undo.callback(self._sent.close)
        if self.filestore and self.filestore.settings.content_addressed:
            self._sent.begin_files(self.filestore, self.contents.attachments)
