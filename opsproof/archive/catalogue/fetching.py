"""A chosen backup as a file on this machine: downloaded, and held against what its manifest says while it flows.

One that is encrypted is decrypted on its way: what is stored is hashed and compared, what is written is plaintext, in a
private folder that is gone with the run.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.names import SEALED
from opsproof.archive.reading.privateplace import GONE, KEPT, create_private, private_folder, unusable
from opsproof.archive.sealing.agekeys import Identities, load_identities
from opsproof.archive.sealing.seal import MAGIC, WrongKeyError, require_key, unsealing
from opsproof.archive.writing.flow import Flow
from opsproof.errors import ArchiveError, StoreError
from opsproof.journal import Journal, Progress
from opsproof.policies import Sealing

READ_BYTES = 1 << 20
LONGEST_NAME = 200


def fetch(choice: Choice, folder: Path, journal: Journal, sealing: Sealing = Sealing()) -> Path:  # noqa: B008  frozen
    """Return the backup as a local file (or folder) that is what its manifest says, decrypted where it was encrypted.

    One that is local already, and not encrypted, is not copied but read to its end where it is: what is returned may be
    the only copy, and is not to be removed. Any other is written into `folder`, 0600, and is gone again if anything
    fails.

    Args:
        choice: The backup.
        folder: Where a download goes: made 0700 where it is missing; an existing one must be nobody else's to enter.
        journal: Told how far it has come; its redactor learns the key.
        sealing: Names the private key, where the variable does not hold it.

    Raises:
        ArchiveError: There is no room or no key, the folder cannot be used, or the content is not what the manifest
            says.
        StoreError: The store failed or refused.
        ConfigurationError: The private key cannot be read.
    """
    if choice.path is not None and not _is_encrypted(choice, choice.path):
        if choice.sidecar is not None:
            _verify(choice, choice.path, journal)
        return choice.path
    if choice.path is None and choice.store is None:
        raise ArchiveError(f"{choice.location} is nowhere: neither in a store nor a file here", kept=KEPT)
    identities = Identities()
    if _looks_encrypted(choice):
        # Before anything is downloaded.
        identities = _load_key(choice, journal, sealing)
    with private_folder(folder):
        _require_room(folder, choice)
        return _Download(choice, folder / _file_name(choice), journal, sealing, identities).run()


def _is_encrypted(choice: Choice, path: Path) -> bool:
    """Tell whether a local file is to be decrypted: its manifest knows, else its first bytes do."""
    if choice.sidecar is not None:
        return choice.sidecar.sealed is not None
    try:
        if not path.is_file():
            return False
        with path.open("rb", buffering=0) as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError as error:
        raise unusable(f"{path} cannot be read", error, f"ls -la {path}") from error


def _looks_encrypted(choice: Choice) -> bool:
    if choice.sidecar is not None:
        return choice.sidecar.sealed is not None
    return choice.path is not None or choice.name.endswith(SEALED)


def _load_key(choice: Choice, journal: Journal, sealing: Sealing) -> Identities:
    identities = load_identities(sealing)
    for secret in identities.secrets:
        journal.redactor.add(secret)
    require_key(identities, choice.location, choice.sidecar.recipients if choice.sidecar else ())
    return identities


def _verify(choice: Choice, path: Path, journal: Journal) -> None:
    passing = _Passing(choice, "verify", journal)
    for chunk in _read_file(path):
        passing.take(chunk)
    passing.finish(KEPT)


def _read_file(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb", buffering=0) as file:
            while chunk := file.read(READ_BYTES):
                yield chunk
    except OSError as error:
        raise unusable(f"{path} cannot be read", error, f"ls -la {path}") from error


class _Download:
    """A file in the making."""

    def __init__(self, choice: Choice, path: Path, journal: Journal, sealing: Sealing, identities: Identities) -> None:
        self._choice = choice
        self._path = path
        self._journal = journal
        self._sealing = sealing
        self._identities = identities
        self._flow: Flow | None = None
        self._opened = 0
        self._descriptor = -1

    def run(self) -> Path:
        """Write it, whole or not at all."""
        path = self._path
        self._descriptor = create_private(path)
        try:
            with os.fdopen(self._descriptor, "wb", buffering=0):
                try:
                    self._take_all()
                finally:
                    if self._flow is not None:
                        self._flow.abandon()
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, StoreError):
                error.kept = GONE
            raise
        return path

    def _take_all(self) -> None:
        """Hash what is stored, write what it decrypts to; what the manifest says of the stored bytes is told first."""
        choice, broken = self._choice, None
        passing = _Passing(choice, "download" if choice.path is None else "decrypt", self._journal)
        is_first = True
        for chunk in self._chunks():
            if is_first:
                self._begin(chunk)
                is_first = False
            passing.take(chunk)
            if passing.size > choice.bytes:
                break  # replaced by something larger, for which nobody has looked for room
            if self._flow is None:
                self._write(chunk)
            elif broken is None:
                broken = self._decrypt(self._flow, chunk)
        if self._flow is not None and broken is None and passing.size <= choice.bytes:
            broken = self._decrypt(self._flow)
        passing.finish(GONE)
        if broken is not None:
            raise broken
        self._require_size()

    def _chunks(self) -> Iterable[bytes]:
        choice = self._choice
        if choice.path is not None:
            return _read_file(choice.path)
        return choice.store.read(choice.name) if choice.store is not None else ()

    def _begin(self, chunk: bytes) -> None:
        """Decide by the first bytes: the name of a file that somebody else stored says nothing."""
        choice = self._choice
        recipients = choice.sidecar.recipients if choice.sidecar else ()
        if choice.sidecar is None and chunk.startswith(MAGIC) and not self._identities.keys:
            self._identities = _load_key(choice, self._journal, self._sealing)
        if self._identities.keys:
            self._flow = unsealing(self._identities, self._write, choice.location, recipients)

    def _decrypt(self, flow: Flow, chunk: bytes | None = None) -> ArchiveError | None:
        """Pass a piece on, or end the stream. Return what is wrong with the stream, which may be that it was changed.

        Raises:
            WrongKeyError: No key opens it, and no manifest names another: there is no use in going on.
            ArchiveError: The disk is full.
        """
        try:
            if chunk is None:
                flow.finish()
            else:
                flow.write(chunk)
        except _DiskError:
            raise
        except ArchiveError as error:
            error.kept = GONE
            if isinstance(error, WrongKeyError) and self._choice.sidecar is None:
                raise
            # By its manifest the key is the right one, so its bytes will tell what happened to them.
            return error
        return None

    def _require_size(self) -> None:
        sidecar = self._choice.sidecar
        if self._flow is None or sidecar is None or sidecar.opened_bytes in (None, self._opened):
            return
        raise ArchiveError(
            f"{self._choice.location} decrypts to something else than was backed up",
            expected=f"{sidecar.opened_bytes:,} bytes",
            found=f"{self._opened:,} bytes",
            kept=GONE,
            hint="choose another with --backup=ID",
        )

    def _write(self, data: bytes) -> None:
        self._opened += len(data)
        _write(self._descriptor, data, self._path, self._choice)


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


class _DiskError(ArchiveError):
    """The disk does not take it."""


def _write(descriptor: int, data: bytes, path: Path, choice: Choice) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise _DiskError(
            f"{path} cannot be written: {error.strerror}",
            expected=f"{choice.bytes:,} bytes of room in {path.parent}",
            found=str(error),
            kept=GONE,
            hint=f"df -h {path.parent}",
        ) from error


def _require_room(folder: Path, choice: Choice) -> None:
    # What is encrypted has no fewer bytes than what it decrypts to, which is all that is written.
    free = shutil.disk_usage(folder).free
    if free < choice.bytes:
        raise ArchiveError(
            f"Not enough room in {folder} for the download",
            expected=f"{choice.bytes:,} bytes free",
            found=f"{free:,} bytes free",
            kept=KEPT,
            hint="free some room, or name a folder with more: TMPDIR=/path pytest ...",
        ) from OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # a verification tells by it whose fault it is


def _file_name(choice: Choice) -> str:
    """Return the last part of the name, decrypted; a key may have a kilobyte, a file's name 255 bytes."""
    name = PurePosixPath(choice.name or (choice.path or choice.id)).name.removesuffix(SEALED)
    return name.encode()[-LONGEST_NAME:].decode(errors="ignore")
