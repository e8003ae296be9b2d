"""Reading one backup to its end: what it holds against what it says of itself, and what its own rows name."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.catalogue.fetching import fetch
from opsproof.archive.names import SEALED, sidecar_name
from opsproof.archive.opening import open_backup
from opsproof.archive.reading.backup import OpenedBackup, OpenedBundle
from opsproof.archive.reading.wholeness import read_members
from opsproof.archive.sealing.seal import WrongKeyError
from opsproof.archive.sealing.signature import require_authentic
from opsproof.errors import ArchiveError, ConfigurationError, DatabaseError, HostError, ProgramMissing
from opsproof.inspection.dumpreading import DumpContent, read_dump, read_sql
from opsproof.inspection.verification import require_content, require_files, require_same_text
from opsproof.journal import Journal
from opsproof.procedures.blame import is_fault_of_backup
from opsproof.procedures.restore.workspace import Workspace
from opsproof.procedures.verify.trial import try_restore
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.pipe import READ_BYTES
from opsproof.system.postgres.dump import ClientPrograms, find_client_programs
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import read_server
from opsproof.target import Target

NO_FILES = "attachments: the backup holds no filestore to compare the dump's rows with"


@dataclass
class Soundness:
    """What was found right in a backup so far, and what nobody could look at; a sentence each."""

    checks: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)


def examine_backup(target: Target, choice: Choice, journal: Journal, soundness: Soundness, *, deep: bool) -> None:
    """Read a backup to its end, and with `deep` restore it into a scratch database.

    Args:
        target: Whose it is; its host has the client programs, its server takes the trial restore.
        choice: The backup.
        journal: What happened.
        soundness: Gets what was found right.
        deep: Whether it is restored, too.

    Raises:
        ArchiveError: It is damaged, or cannot be unpacked here.
        DumpError: Its dump is damaged, or does not load.
        ProofError: It holds something else than it says.
        OpsproofError: The store, the host or the server did not do its work.
    """
    with ExitStack() as stack:
        workspace = stack.enter_context(closing(Workspace()))
        _require_room(workspace.path, choice)
        dump = workspace.path / "database"
        path = _fetch(target, choice, workspace.path, journal)
        _check_signature(target, choice, soundness)
        with journal.phase("verify"):
            backup = stack.enter_context(closing(open_backup(path, choice.sidecar, dump, target.database.name)))
            soundness.unverified += backup.unverified
            _note_bytes(soundness, choice)
            content = _read_content(target, backup, dump, soundness)
            _compare(backup, content, soundness)
        if deep:
            trial = try_restore(target, backup, dump, journal)
            proof, sound = trial.proof, trial.sound
            soundness.checks.append(
                f"restored into a scratch database: {proof.tables:,} tables, {proof.rows:,} rows,"
                f" {proof.sequences:,} sequences, {proof.large_objects:,} large objects are the backup's"
            )
            soundness.unverified += [*proof.unverified, *([sound.unverified] if sound.unverified else [])]
            if not sound.unverified:
                soundness.checks.append(f"amcheck: {sound.indexes:,} indexes and {sound.tables:,} tables are sound")


def _fetch(target: Target, choice: Choice, folder: Path, journal: Journal) -> Path:
    """Fetch it; what looks damaged is downloaded once more, for it may be the way to it that is.

    A header that was damaged looks like one for other keys: what is stored tells which of the two it is.
    """
    sealing = target.policies.sealing
    try:
        with journal.phase("download"):
            return fetch(choice, folder, journal, sealing)
    except ArchiveError as error:
        if choice.store is None:
            raise
        if isinstance(error, WrongKeyError):
            _require_stored(choice)
            raise
        if not is_fault_of_backup(error):
            raise
        journal.warn(f"{choice.id} is read once more: {error.summary}")
    with journal.phase("download"):
        return fetch(choice, folder, journal, sealing)


def _require_stored(choice: Choice) -> None:
    if choice.store is None or choice.sidecar is None:
        return
    digest, size = hashlib.sha256(), 0
    for chunk in choice.store.read(choice.name):
        digest.update(chunk)
        size += len(chunk)
    if (size, digest.hexdigest()) != (choice.sidecar.bytes, choice.sidecar.sha256):
        raise ArchiveError(
            f"{choice.location} is not what was backed up",
            expected=f"{choice.sidecar.bytes:,} bytes, SHA-256 {choice.sidecar.sha256}",
            found=f"{size:,} bytes, SHA-256 {digest.hexdigest()}",
            kept="the stored backup is as it was",
            hint="take a new backup, or choose another with --backup=ID",
        )


def _check_signature(target: Target, choice: Choice, soundness: Soundness) -> None:
    """Hold the manifest against its signature, where the inventory has the key.

    Raises:
        ConfigurationError: They do not fit. It may be the key that is wrong, and then no backup would count.
    """
    sealing = target.policies.sealing
    if choice.store is None or choice.sidecar is None or not sealing.verify_key_file:
        return
    name = sidecar_name(choice.id)
    try:
        require_authentic(choice.store, name, choice.store.get_small(name), sealing)
    except ArchiveError as error:
        raise ConfigurationError(
            error.summary, expected=error.expected, found=error.found, kept=error.kept, hint=error.hint
        ) from error
    soundness.checks.append("the manifest with its signature")


def _require_room(folder: Path, choice: Choice) -> None:
    record = choice.sidecar.manifest if choice.sidecar else None
    unpacked = (record.dump or record.sql).bytes if record else 0
    is_copied = choice.path is None or choice.location.endswith(SEALED)
    needed = unpacked + (choice.bytes if is_copied else 0)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise HostError(
            f"Not enough room in {folder.parent} to verify {choice.id}",
            expected=f"{needed:,} bytes free, for the download and its dump",
            found=f"{free:,} bytes free",
            kept="nothing was changed",
            hint="free some room, or name a folder with more: TMPDIR=/path pytest ...",
        )


def _note_bytes(soundness: Soundness, choice: Choice) -> None:
    if choice.sidecar is not None:
        soundness.checks.append(f"{choice.bytes:,} bytes, SHA-256 {choice.sidecar.sha256}, as its manifest says")
    else:
        soundness.unverified.append("whether it is the file that was written: there is no manifest beside it")


def _read_content(target: Target, backup: OpenedBackup, dump: Path, soundness: Soundness) -> DumpContent:
    if backup.database_format == "plain":
        content = read_sql(_pieces(dump))
        soundness.checks.append(f"SQL read to its footer: {len(content.tables):,} tables, {content.rows:,} rows")
        return content
    host = Host(target.connection)
    programs = _find_programs(target, host, backup)
    content = read_dump(host, programs, dump)
    soundness.checks.append(
        f"dump read to its end by pg_restore {programs.version}: {len(content.tables):,} tables,"
        f" {content.rows:,} rows, {len(content.objects):,} large objects"
    )
    if isinstance(backup, OpenedBundle):
        count, plain = read_members(backup, read_sql)
        require_same_text(content, plain)
        soundness.checks.append(
            f"{count:,} members, each with its SHA-256; the SQL to its footer, the same as the dump"
        )
    return content


def _compare(backup: OpenedBackup, content: DumpContent, soundness: Soundness) -> None:
    record = backup.manifest
    if record is not None:
        count = require_content(backup.tables(), record.totals, content)
        what = "rows and fingerprints" if record.fingerprint == "full" else "rows"
        soundness.checks.append(f"{count:,} tables with the {what} of the manifest")
    if content.attachments is None:
        return
    has_files = record.filestore is not None if record is not None else backup.files_count > 0
    if not has_files:
        soundness.unverified.append(NO_FILES)
        return
    lost = record.filestore.missing if record is not None and record.filestore is not None else ()
    count = require_files(content.attachments, (one.path for one in backup.file_members()), lost)
    known = f", {len(lost):,} of them lost before the backup" if lost else ""
    soundness.checks.append(f"{count:,} attachments that the dump's rows name{known}: all there")


def _find_programs(target: Target, host: Host, backup: OpenedBackup) -> ClientPrograms:
    """Find a pg_restore that can read the dump: that of the server, else that of the version it was taken with."""
    record = backup.manifest
    needed = int(record.server.client_version.partition(".")[0]) if record else 0
    majors = []
    try:
        with maintenance(target.database) as connection:
            majors.append(read_server(connection).major)
    except DatabaseError:
        if not needed:
            raise
    majors = [major for major in dict.fromkeys([*majors, needed]) if major >= max(needed, 1)]
    missing: ProgramMissing | None = None
    for major in majors:
        try:
            return find_client_programs(host, major, target.pg_bindir)
        except ProgramMissing as error:
            missing = missing or error
    raise missing or ProgramMissing(f"No pg_restore reads the dump of {backup.description}")


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb", buffering=0) as file:
        while piece := file.read(READ_BYTES):
            yield piece
