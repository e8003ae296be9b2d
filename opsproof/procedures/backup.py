"""Back up one target: survey it, capture a snapshot, prove it, bundle it, store it, prove that, and only then say so.

Each public method is one step of `actions/test_backup.py`, in the order in which they stand here. What a step found out
it keeps for the later ones. `close` undoes whatever was not brought to its end.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import xxhash

from opsproof.archive import manifest as records
from opsproof.archive.author import find_author
from opsproof.archive.bundle import FilesWritten
from opsproof.archive.catalogue import sidecar_name
from opsproof.archive.compose import Ingredients
from opsproof.errors import ProofError, StoreError
from opsproof.inspection import sameness
from opsproof.journal import Journal, Progress
from opsproof.procedures.taking import Taking
from opsproof.system.store import Store, StoredObject
from opsproof.target import Target


@dataclass(frozen=True)
class Outcome:
    """What the backup came to, for the summary and the XML. Bytes and seconds."""

    id: str
    location: str
    bytes: int
    sha256: str
    database_bytes: int
    filestore_bytes: int
    tables: int
    rows: int
    files: int
    phases: dict[str, float]


class Backup(Taking):
    """One backup of one target; arguments are those of `Taking`."""

    manifest: records.Manifest
    files: FilesWritten

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
        super().__init__(target, store, journal, kind=kind, dry_run=dry_run, locked=locked)
        self.outcome: Outcome | None = None
        self._committed: StoredObject | None = None

    def plan(self) -> list[str]:
        """Return what the backup would do, a line each, once the looking steps have been called."""
        files, target = self.live_files, self.target
        stem = f"backup_{target.environment}" if self.is_plain else records.file_name(target.database.name)
        return [
            f"dump {self.facts.name} ({self.facts.bytes:,} bytes on disk) with pg_dump {self.clients.programs.version}",
            f"freeze {files.files:,} files ({files.bytes:,} bytes) of {files.path}" if files else "no filestore",
            f"write {stem}_TIME to {self.store.location}",
            "read it back, compare, and write its manifest beside it",
        ]

    def write_bundle(self) -> FilesWritten:
        """Send the bundle to the store, all but the last word: it is not to be seen there yet.

        Raises:
            StoreError: The store refused or failed.
            FilestoreError: A file cannot be read.
        """
        sending, parts = self._sent, self._ingredients()
        with self.journal.phase("upload"):
            if self.is_plain:
                self.manifest = sending.finish_plain(parts)
            else:
                if self.filestore and not self.filestore.settings.content_addressed:
                    sending.begin_files(self.filestore, self.contents.attachments)
                self.manifest = sending.finish_bundle(parts)
        self.files = sending.composition.files
        return self.files

    def check_attachments(self) -> FilesWritten:
        """Hold the files in the bundle against the attachments that the snapshot names.

        Raises:
            ProofError: One is missing or damaged.
        """
        filestore = self.target.filestore
        if filestore is not None:
            wanted = len(self.contents.attachments or ())
            sameness.require_attachments(
                wanted, self.files.missing, self.files.damaged, self.accepted_losses, filestore.origin
            )
            lost = len(self.files.missing) + len(self.files.damaged)
            if self.kind == "safety" and lost:
                self.journal.warn(f"{lost:,} of {wanted:,} attachments are lost or damaged: not in the safety backup")
        return self.files

    def complete_upload(self) -> StoredObject:
        """Say the last word: the store has the bundle now, whole, under a name that was free.

        Raises:
            StoreError: The store did not take it; nothing is left there.
        """
        with self.journal.phase("upload"):
            stored = self._sent.commit()
        self._committed = stored
        self._undo.callback(self._withdraw)
        self.journal.record("bundle stored", location=stored.location, bytes=stored.bytes, sha256=stored.sha256)
        return stored

    def read_back(self) -> tuple[int, str]:
        """Read the stored bundle to its end. Return its bytes and XXH3-128, which are those that were sent.

        Raises:
            ProofError: They are not.
            StoreError: It cannot be read.
        """
        stored, sent = self.stored, self._sent.fingerprint
        digest, size, started = xxhash.xxh3_128(), 0, time.monotonic()
        kept = f"{stored.location} is removed again; earlier backups are as they were"
        with self.journal.phase("read back"):
            try:
                for chunk in self.store.read(stored.name):
                    digest.update(chunk)
                    size += len(chunk)
                    seconds = time.monotonic() - started
                    self.journal.report(Progress("read back", stored.name, size, stored.bytes, seconds))
            except StoreError as error:
                error.kept = kept
                raise
        if (size, digest.hexdigest()) != (stored.bytes, sent):
            raise ProofError(
                "The stored copy is not what was sent",
                expected=f"{stored.bytes:,} bytes, XXH3-128 {sent}",
                found=f"{size:,} bytes, XXH3-128 {digest.hexdigest()}",
                kept=kept,
                hint="run it again; if it differs twice, the store or the way to it corrupts data",
            )
        return size, digest.hexdigest()

    @property
    def sent(self) -> tuple[int, str]:
        """Bytes and XXH3-128 of what was sent, as `read_back` must find them."""
        return self.stored.bytes, self._sent.fingerprint

    def clear_away(self) -> list[str]:
        """Give back the frozen files and the temporary disk. Return what is left all the same, which is nothing.

        Raises:
            ProofError: Something is.
        """
        self.captured.close()
        left = []
        if self.filestore:
            self.filestore.thaw()
            if self.filestore.is_frozen():
                left.append(str(self.filestore.frozen))
        left += [one.location for one in self.store.leftovers() if one.name == self.stored.name]
        if left:
            raise ProofError("Something temporary is left", expected="nothing", found=", ".join(left))
        return left

    def publish(self, checks: tuple[str, ...]) -> Outcome:
        """Write the manifest beside the bundle: from now on it is a verified backup.

        Args:
            checks: What was verified.

        Raises:
            StoreError: The manifest cannot be written.
        """
        stored = self.stored
        sidecar = records.Sidecar(
            manifest=self.manifest,
            name=stored.name,
            bytes=stored.bytes,
            sha256=stored.sha256,
            verified=datetime.now(UTC),
            checks=checks,
            tables=tuple(records.table_records(self.captured.counted)) if self.is_plain else (),
        )
        self.store.put_small(sidecar_name(self.manifest.id), records.to_json(sidecar))
        self._committed = None
        totals = self.manifest.totals
        self.outcome = Outcome(
            id=self.manifest.id,
            location=stored.location,
            bytes=stored.bytes,
            sha256=stored.sha256,
            database_bytes=self.facts.bytes,
            filestore_bytes=self.files.bytes,
            tables=totals.tables,
            rows=totals.rows,
            files=self.files.files,
            phases=dict(self.journal.phases),
        )
        self.journal.record("backup verified", outcome=vars(self.outcome))
        return self.outcome

    def close(self) -> None:
        """Undo what was not brought to its end: the upload, the frozen files, the temporary disk, the lock.

        Raises:
            OpsproofError: Something could not be undone; all the rest was.
        """
        self._undo.close()

    @property
    def stored(self) -> StoredObject:
        """The bundle in the store, from its completion until it is published.

        Raises:
            ProofError: There is none.
        """
        if self._committed is None:
            raise ProofError("There is no stored bundle to work on", hint="run the whole procedure, not a step of it")
        return self._committed

    def _ingredients(self) -> Ingredients:
        return Ingredients(
            target=self.target,
            kind=self.kind,
            started=self.started,
            author=find_author(os.environ),
            server=self.server,
            programs=self.clients.programs,
            database=self.facts,
            contents=self.contents,
            captured=self.captured,
            roles=self.roles,
            live_files=self.live_files,
        )

    def _withdraw(self) -> None:
        """Remove a bundle that was stored but never verified; its manifest first, if that was written."""
        if self._committed is None:
            return
        sidecar = self.store.find(sidecar_name(self.manifest.id))
        if sidecar is not None:
            self.store.delete(sidecar)
        self.store.delete(self._committed)
        self.journal.warn(f"{self._committed.location} was not verified and is removed again")
        self._committed = None
