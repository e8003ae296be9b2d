"""Back up one target: survey it, capture a snapshot, prove it, bundle it, store it, prove that, and only then say so.

Each public method is one step of `actions/test_backup.py`, in the order in which they stand here. What a step found out
it keeps for the later ones. `close` undoes whatever was not brought to its end.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime

from opsproof.archive import manifest as records
from opsproof.archive.names import sidecar_name
from opsproof.archive.sealing.sealpolicy import SealPlan, plan_seal
from opsproof.archive.sealing.signature import signature_name
from opsproof.archive.writing.author import find_author
from opsproof.archive.writing.bundle import FilesWritten
from opsproof.archive.writing.compose import Ingredients
from opsproof.archive.writing.restoretext import opening_command
from opsproof.errors import ProofError
from opsproof.inspection.restores import sameness
from opsproof.journal import Journal
from opsproof.procedures.backup.readingback import read_back
from opsproof.procedures.backup.taking import Taking
from opsproof.system.store import Store, StoredObject
from opsproof.target import Target


@dataclass(frozen=True)
class Outcome:
    """What the backup came to, for the summary and the XML. Bytes and seconds.

    `sealed` says how it is encrypted and signed, or is empty.
    """

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
    sealed: str = ""


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
        self._seal = SealPlan()
        self._beside: list[tuple[str, bytes]] = []

    def check_store(self) -> str:
        """Look at the keys, and then whether the store takes a backup; see `Survey.check_store`.

        Raises:
            StoreError: It does not.
            ConfigurationError: A key of the inventory or of a variable is none, or is missing.
        """
        self._seal = plan_seal(self.target.policies.sealing, reopened=self.kind == "safety")
        for secret in self._seal.secrets:
            self.journal.redactor.add(secret)
        if self._seal.recipients and self._seal.identities is None:
            self.journal.info("what is stored is not decrypted again: no private key is here, as it should be")
        return super().check_store()

    def plan(self) -> list[str]:
        """Return what the backup would do, a line each, once the looking steps have been called."""
        files, target = self.live_files, self.target
        stem = f"backup_{target.environment}" if self.is_plain else records.file_name(target.database.name)
        return [
            f"dump {self.facts.name} ({self.facts.bytes:,} bytes on disk) with pg_dump {self.clients.programs.version}",
            f"freeze {files.files:,} files ({files.bytes:,} bytes) of {files.path}" if files else "no filestore",
            *self._seal.describe(),
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

        Where a private key is here, it is decrypted meanwhile, to what was composed.

        Raises:
            ProofError: They are not, or it does not.
            StoreError: It cannot be read.
        """
        with self.journal.phase("read back"):
            return read_back(
                self.store, self.stored, self.journal, self._sent.fingerprint, self._sent.plain, self._seal
            )

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
        """Write the manifest beside the bundle, its signature before it: from now on it is a verified backup.

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
            sealed="age" if self._sent.recipients else None,
            recipients=self._sent.recipients,
            opened_bytes=self._sent.plain[0] if self._sent.recipients else None,
            open_with=opening_command(stored.name) if self._sent.recipients else None,
        )
        data = records.to_json(sidecar)
        if self._seal.signer is not None:
            self._put_beside(signature_name(self.manifest.id), self._seal.signer.sign(data))
        self._put_beside(sidecar_name(self.manifest.id), data)
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
            sealed=self._shown_seal(),
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
            sealed=bool(self._sent.recipients),
        )

    def _shown_seal(self) -> str:
        count = len(self._sent.recipients)
        parts = [f"encrypted to {count} {'recipient' if count == 1 else 'recipients'} by age"] if count else []
        return ", ".join([*parts, *(["its manifest is signed"] if self._seal.signer is not None else [])])

    def _put_beside(self, name: str, data: bytes) -> None:
        self._beside.append((name, data))
        self.store.put_small(name, data)

    def _withdraw(self) -> None:
        """Remove a bundle that was stored but never verified, once its manifest and its signature are gone."""
        if self._committed is None:
            return
        for name, data in reversed(self._beside):
            beside = self.store.find(name)
            # What is under that name may be what kept ours from being written, and another backup's.
            if beside is not None and self.store.get_small(name) == data:
                self.store.delete(beside)
        self.store.delete(self._committed)
        self.journal.warn(f"{self._committed.location} was not verified and is removed again")
        self._committed = None
