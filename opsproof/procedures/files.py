"""Bringing an application's files back: what is missing is added, what is wrong repaired, every one looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from opsproof.archive.reading import OpenedBackup
from opsproof.errors import FilestoreError
from opsproof.inspection.preflight import Finding
from opsproof.journal import Journal, Progress
from opsproof.procedures.staging import StagedFiles
from opsproof.system.fileadding import FileAdder, FilesAdded, Ownership, remove_folder
from opsproof.system.filestore import Filestore
from opsproof.system.host import Host
from opsproof.system.service import services_of
from opsproof.target import FilestoreSettings, Target

FOLDER_MODE = 0o750
PHASE = "files"


class FilesRestore:
    """The files of one target.

    Attributes:
        added: What became of them.

    Args:
        target: Whose.
        host: Where they are.
        journal: What happened.
    """

    def __init__(self, target: Target, host: Host, journal: Journal) -> None:
        self.target = target
        self.host = host
        self.journal = journal
        self.added = FilesAdded(0, 0, 0, 0)

    @property
    def shown(self) -> str:
        """Return the folder as a plan shows it."""
        return str(self.target.filestore.path) if self.target.filestore else "no filestore"

    def examine(self, backup: OpenedBackup) -> Iterator[Finding]:
        """Yield what is in the way of the files."""
        settings = self.target.filestore
        if settings is None:
            if backup.files_count:
                yield Finding(
                    "filestore", "a filestore, as the backup has one", "`filestore: none`",
                    f"its {backup.files_count:,} files are not brought back", blocks=False,
                )  # fmt: skip
            return
        try:
            _ = self._ownership(settings, backup).ids
        except FilestoreError as error:
            yield Finding("filestore", error.expected, f"{error.summary}: {error.found}", error.hint, blocks=True)

    def stage(self, backup: OpenedBackup, stamp: str) -> StagedFiles | None:
        """Return the folders of a filestore that is to be exchanged; None for one that is only added to."""
        settings = self.target.filestore
        if settings is None or settings.content_addressed or not backup.files_count:
            return None
        return StagedFiles(Path(settings.path), stamp)

    def add(self, backup: OpenedBackup, staged: StagedFiles | None) -> FilesAdded:
        """Write what is missing or wrong, then look at all of it again.

        Raises:
            FilestoreError: A file cannot be written, or is not what it must be afterwards.
        """
        settings = self.target.filestore
        if settings is None or not backup.files_count:
            return self.added
        root = PurePosixPath(staged.staged) if staged else settings.path
        adder = FileAdder(root, self._ownership(settings, backup))
        states = {member.path: adder.compare(member.path, member.sha256, member.bytes, member.link)
                  for member in backup.file_members()}  # fmt: skip
        wanted = {path for path, state in states.items() if state != "present"}

        def report(written: int) -> None:
            self.journal.report(Progress(PHASE, str(root), written, backup.files_bytes, 0.0))

        written = adder.add(backup.open_files(wanted.__contains__), report)
        wrong = []
        if wanted:
            self.host.run("sync", "--file-system", str(root), timeout=3600.0)
            wrong = [
                member.path
                for member in backup.file_members()
                if member.path in wanted
                and adder.compare(member.path, member.sha256, member.bytes, member.link) != "present"
            ]
        if wrong:
            raise FilestoreError(
                f"{len(wrong):,} files are not what the backup says",
                expected="every file with its bytes",
                found=", ".join(wrong[:10]),
                kept="the live database is as it was",
                hint="look at the backup: the name of a file must be the SHA-1 of its content",
            )
        repaired = sum(state == "wrong" for state in states.values())
        self.added = FilesAdded(len(states) - len(wanted), len(wanted) - repaired, repaired, written)
        self.journal.record("files added", **vars(self.added))
        return self.added

    def discard(self, staged: StagedFiles | None) -> None:
        """Remove what was staged. Files that were added to a content-addressed filestore stay: they harm nobody."""
        if staged is not None:
            remove_folder(staged.staged)

    def _ownership(self, settings: FilestoreSettings, backup: OpenedBackup) -> Ownership:
        """Return whose the files will be: as the live ones are, or as inventory, service or backup say."""
        try:
            facts = Filestore(self.host, settings).describe()
            return Ownership(facts.owner, facts.group, int(facts.mode, 8))
        except FilestoreError:
            pass
        said = self.target.filestore_owner or self.target.service_user
        if not said:
            said = next((owner for service in services_of(self.target, self.host) if (owner := service.owner())), None)
        record = backup.manifest.filestore if backup.manifest else None
        mode = int(record.mode, 8) if record else FOLDER_MODE
        if said:
            user, _, group = said.partition(":")
            return Ownership(user, group or user, mode)
        if record is not None:
            return Ownership(record.owner, record.group, mode)
        raise FilestoreError(
            f"Nobody says whose the files of {settings.path} are",
            expected="a live filestore, filestore_owner in the inventory, or a service that runs as a user",
            found="none of them",
            kept="nothing was changed",
            hint="filestore_owner: odoo:odoo",
        )
