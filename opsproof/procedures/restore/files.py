"""Bringing an application's files back: what is missing is added, what is wrong repaired, every one looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Set
from itertools import tee

from opsproof.archive.manifest import Member
from opsproof.archive.reading.backup import OpenedBackup
from opsproof.errors import FilestoreError
from opsproof.inspection.finding import Finding
from opsproof.journal import Journal, Progress
from opsproof.procedures.commands import listing_command
from opsproof.procedures.outage.staging import StagedFiles
from opsproof.system.files.adding import FileAdder, FilesAdded, Ownership
from opsproof.system.files.faradding import FarFileAdder, adder_of
from opsproof.system.files.farfiles import WantedFile
from opsproof.system.files.filestore import Filestore
from opsproof.system.hosts.host import Host
from opsproof.system.services.service import services_of
from opsproof.target import FilestoreSettings, Target

FOLDER_MODE = 0o750
PHASE = "files"
MOST_NAMED = 10


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
            adder_of(self.host, settings.path, self._ownership(settings, backup))
        except FilestoreError as error:
            yield Finding("filestore", error.expected, f"{error.summary}: {error.found}", error.hint, blocks=True)

    def stage(self, backup: OpenedBackup, stamp: str) -> StagedFiles | None:
        """Return the folders of a filestore that is to be exchanged; None for one that is only added to."""
        settings = self.target.filestore
        if settings is None or settings.content_addressed or not backup.files_count:
            return None
        return StagedFiles(self.host, settings.path, stamp)

    def add(
        self,
        backup: OpenedBackup,
        staged: StagedFiles | None,
        *,
        lasting: bool = True,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> FilesAdded:
        """Write what is missing or wrong, then look at all of it again.

        Args:
            backup: Whose files.
            staged: The folders, where it is to be exchanged.
            lasting: Whether they have to be on the disk itself, and not only with the system.
            meanwhile: Called again and again while they are written; what it raises ends that.

        Raises:
            FilestoreError: A file cannot be written, or is not what it must be afterwards.
        """
        settings = self.target.filestore
        if settings is None or not backup.files_count:
            return self.added
        root = staged.staged if staged else settings.path
        adder = adder_of(self.host, root, self._ownership(settings, backup))
        # Of hundreds of thousands of files only those are remembered that are not as they must be.
        wanted: set[str] = set()
        present = repaired = 0
        for member, state in _compared(adder, backup.file_members()):
            present += state == "present"
            repaired += state == "wrong"
            if state != "present":
                wanted.add(member.path)

        def report(written: int) -> None:
            meanwhile()
            self.journal.report(Progress(PHASE, str(root), written, backup.files_bytes, 0.0))

        written = adder.add(backup.open_files(wanted.__contains__), report)
        if wanted:
            if lasting:
                self.host.run("sync", "--file-system", str(root), timeout=3600.0)
            self._require_written(backup, adder, wanted)
        self.added = FilesAdded(present, len(wanted) - repaired, repaired, written)
        self.journal.record("files added", **vars(self.added))
        return self.added

    def _require_written(self, backup: OpenedBackup, adder: FileAdder | FarFileAdder, wanted: Set[str]) -> None:
        count, first = 0, list[str]()
        for member, state in _compared(adder, (one for one in backup.file_members() if one.path in wanted)):
            if state != "present":
                count += 1
                first += [member.path] if len(first) < MOST_NAMED else []
        if count:
            more = f" and {count - len(first):,} more" if count > len(first) else ""
            raise FilestoreError(
                f"{count:,} files are not what the backup says",
                expected="every file with its bytes; an attachment is named by its own SHA-1",
                found=", ".join(first) + more,
                kept="the live database is as it was",
                hint="if it stays so when you run it again, the backup or the disk is damaged: choose another backup\n"
                + listing_command(self.target),
            )

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
            hint=f"filestore_owner: odoo:odoo   in the inventory, at {self.target.name}",
        )


def _compared(adder: FileAdder | FarFileAdder, members: Iterable[Member]) -> Iterator[tuple[Member, str]]:
    """Yield every member, and how it is in the filestore."""
    named, asked = tee(members)
    wanted = (WantedFile(one.path, one.sha256, one.bytes, one.link) for one in asked)
    return zip(named, adder.compare_all(wanted), strict=True)
