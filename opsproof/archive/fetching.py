"""A chosen backup as a file on this machine: downloaded, and held against what its manifest says while it flows."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from opsproof.archive.choosing import Choice
from opsproof.errors import ArchiveError, StoreError
from opsproof.journal import Journal, Progress
from opsproof.system.store import Store
from opsproof.system.store.directory_upload import make_private_folders

READ_BYTES = 1 << 20
LONGEST_NAME = 200
GONE = "what was downloaded is removed; nothing else was changed"
KEPT = "nothing was changed"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def fetch(choice: Choice, folder: Path, journal: Journal) -> Path:
    """Return the backup as a local file (or folder) that is what its manifest says.

    One that is local already is not copied but read to its end where it is: what is returned may be the only copy, and
    is not to be removed. Any other is downloaded into `folder`, 0600, and is gone again if anything fails.

    Args:
        choice: The backup.
        folder: Where a download goes: made 0700 where it is missing; an existing one must be nobody else's to enter.
        journal: Told how far it has come.

    Raises:
        ArchiveError: There is no room, the folder cannot be used, or the content is not what the manifest says.
        StoreError: The store failed or refused.
    """
    if choice.path is not None:
        if choice.sidecar is not None:
            _verify(choice, choice.path, journal)
        return choice.path
    if choice.store is None:
        raise ArchiveError(f"{choice.location} is nowhere: neither in a store nor a file here", kept=KEPT)
    with _private_folder(folder):
        _require_room(folder, choice)
        return _download(choice, choice.store, folder / _file_name(choice), journal)


def _verify(choice: Choice, path: Path, journal: Journal) -> None:
    passing = _Passing(choice, "verify", journal)
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(READ_BYTES):
                passing.take(chunk)
    except OSError as error:
        raise _unusable(f"{path} cannot be read", error, f"ls -la {path}") from error
    passing.finish(KEPT)


def _download(choice: Choice, store: Store, path: Path, journal: Journal) -> Path:
    passing = _Passing(choice, "download", journal)
    try:
        # Whatever is under that name is not ours: it is neither followed nor overwritten.
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unusable(f"{path} cannot be written", error, f"ls -la {path.parent}") from error
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            for chunk in store.read(choice.name):
                passing.take(chunk)
                if passing.size > choice.bytes:
                    break  # replaced by something larger, for which nobody has looked for room
                _write(file.fileno(), chunk, path, choice)
        passing.finish(GONE)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, StoreError):
            error.kept = GONE
        raise
    return path


@dataclass
class _Passing:
    """Counts and hashes what flows by, and reports it."""

    choice: Choice
    phase: str
    journal: Journal
    started: float = field(default_factory=time.monotonic)
    size: int = 0

    def __post_init__(self) -> None:
        self._hash = hashlib.sha256()

    def take(self, chunk: bytes) -> None:
        self._hash.update(chunk)
        self.size += len(chunk)
        seconds = time.monotonic() - self.started
        self.journal.report(Progress(self.phase, self.choice.id, self.size, self.choice.bytes, seconds))

    def finish(self, kept: str) -> None:
        """Compare; without a manifest only the size is known."""
        choice, sidecar, sha256 = self.choice, self.choice.sidecar, self._hash.hexdigest()
        expected = (sidecar.bytes, sidecar.sha256) if sidecar else (choice.bytes, sha256)
        if (self.size, sha256) == expected:
            what = {"location": choice.location, "bytes": self.size, "sha256": sha256}
            self.journal.record(f"{self.phase} done", **what, verified=sidecar is not None)
            return
        raise ArchiveError(
            f"{choice.location} is not what was backed up",
            expected=f"{expected[0]:,} bytes, SHA-256 {expected[1]}",
            found=f"{self.size:,} bytes, SHA-256 {sha256}",
            kept=kept,
            hint="run it again; if it differs twice, the stored copy is damaged: choose another with --backup=ID",
        )


def _write(descriptor: int, data: bytes, path: Path, choice: Choice) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise ArchiveError(
            f"{path} cannot be written: {error.strerror}",
            expected=f"{choice.bytes:,} bytes of room in {path.parent}",
            found=str(error),
            kept=GONE,
            hint=f"df -h {path.parent}",
        ) from error


@contextmanager
def _private_folder(folder: Path) -> Iterator[None]:
    """Make the folder where it is missing; after a failure one that was made here is gone again."""
    existed = os.path.lexists(folder)
    try:
        make_private_folders(folder)
        mode = folder.stat().st_mode
    except OSError as error:
        raise _unusable(f"The folder {folder} cannot be made", error, f"namei -l {folder}") from error
    if not stat.S_ISDIR(mode) or mode & OTHERS:
        raise ArchiveError(
            f"{folder} is no place for a backup: it is not private",
            expected="a folder of mode 0700",
            found=f"mode {stat.S_IMODE(mode):04o}" if stat.S_ISDIR(mode) else "no folder",
            kept=KEPT,
            hint=f"chmod 700 {folder}",
        )
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise


def _require_room(folder: Path, choice: Choice) -> None:
    free = shutil.disk_usage(folder).free
    if free < choice.bytes:
        raise ArchiveError(
            f"Not enough room in {folder} for the download",
            expected=f"{choice.bytes:,} bytes free",
            found=f"{free:,} bytes free",
            kept=KEPT,
            hint="free some room, or name a folder with more: TMPDIR=/path pytest ...",
        )


def _file_name(choice: Choice) -> str:
    """Return the last part of the name; a key may have a kilobyte, a file's name 255 bytes, of which the end tells."""
    name = PurePosixPath(choice.name).name
    return name.encode()[-LONGEST_NAME:].decode(errors="ignore")


def _unusable(summary: str, error: OSError, hint: str) -> ArchiveError:
    return ArchiveError(
        f"{summary}: {error.strerror}",
        expected="a private folder that can be written, a file that can be read",
        found=str(error),
        kept=KEPT,
        hint=hint,
    )
