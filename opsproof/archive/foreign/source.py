"""Where the files of somebody else's backup come from: a folder, a file alone, a file that gzip compressed.

(A zip is in `zip.py`.) None is trusted: a name that leads out of the backup, a link, a device, or more bytes than
were declared is an error.
"""

from __future__ import annotations

import gzip
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from opsproof.archive.paths import KEPT, require_safe, shown
from opsproof.errors import ArchiveError

READ_BYTES = 1 << 18
# More than this is no backup of ours to judge: 1 TiB, unpacked.
MOST_BYTES = 1 << 40


@dataclass(frozen=True, slots=True)
class Entry:
    """A file of the backup: its path in there, with `/`, and its size in bytes."""

    path: str
    size: int


class Source(Protocol):
    """The files of a backup, looked through once when it was opened."""

    def entries(self) -> Iterator[Entry]:
        """Yield every file."""
        ...

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's content, never more than its size; what is left unread is not verified.

        Raises:
            ArchiveError: It is not what was declared.
        """
        ...

    def close(self) -> None:
        """Give the open file back."""
        ...


class LoneFile:
    """A dump without anything around it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._entry = Entry(path.name, path.stat().st_size)

    def entries(self) -> Iterator[Entry]:
        """Yield the file."""
        yield self._entry

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield its content."""
        return _read_file(self._path, entry)

    def close(self) -> None:
        """Nothing is open."""


class GzippedFile:
    """A dump that gzip compressed. Its size is known only once it was unpacked, so that happens here, into nothing.

    Raises:
        ArchiveError: It is cut or damaged, or unpacks to more than 1 TiB.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        size = 0
        for chunk in self._unpack():
            size += len(chunk)
            require_bounded(path.name, size)
        self._entry = Entry(path.name.removesuffix(".gz"), size)

    def entries(self) -> Iterator[Entry]:
        """Yield the file, unpacked."""
        yield self._entry

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield its content, unpacked."""
        return exactly(entry, self._unpack())

    def close(self) -> None:
        """Nothing is open."""

    def _unpack(self) -> Iterator[bytes]:
        try:
            with gzip.open(self._path) as file:
                while chunk := file.read(READ_BYTES):
                    yield chunk
        except (OSError, EOFError, zlib.error) as error:
            raise ArchiveError(
                f"{shown(self._path.name)} does not unpack",
                expected="a whole gzip file",
                found=str(error) or type(error).__name__,
                kept=KEPT,
                hint=f"gzip --test {self._path}; download it again",
            ) from error


class Folder:
    """A folder of files.

    Raises:
        ArchiveError: It holds a link, a device, a name with control characters, or more than 1 TiB.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        total = 0
        for entry in self.entries():
            require_safe(entry.path)
            total += entry.size
            require_bounded(path.name, total)

    def entries(self) -> Iterator[Entry]:
        """Yield every file, a folder's own before those of the folders in it, sorted by name."""
        return self._walk()

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield a file's content."""
        return _read_file(self._path / entry.path, entry)

    def close(self) -> None:
        """Nothing is open."""

    def _walk(self) -> Iterator[Entry]:
        pending = [""]
        while pending:
            prefix = pending.pop()
            try:
                with os.scandir(self._path / prefix) as listed:
                    found = sorted(listed, key=lambda one: one.name, reverse=True)
                states = [one.stat(follow_symlinks=False) for one in found]
            except OSError as error:
                raise unreadable(self._path / prefix, error) from error
            pending += [f"{prefix}{one.name}/" for one, state in zip(found, states, strict=True) if _is_folder(state)]
            for one, state in zip(reversed(found), reversed(states), strict=True):
                if stat.S_ISREG(state.st_mode):
                    yield Entry(prefix + one.name, state.st_size)
                elif not _is_folder(state):
                    raise not_a_file(prefix + one.name, stat.filemode(state.st_mode))


def exactly(entry: Entry, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Pass chunks on, and make sure that they are as many bytes as were declared, neither more nor fewer.

    Raises:
        ArchiveError: They are not.
    """
    count = 0
    for chunk in chunks:
        count += len(chunk)
        if count > entry.size:
            raise _other_size(entry, f"more than that: {count:,} bytes so far")
        yield chunk
    if count < entry.size:
        raise _other_size(entry, f"{count:,} bytes")


def require_bounded(name: str, total: int) -> None:
    """Make sure that a backup does not unpack to more than 1 TiB.

    Raises:
        ArchiveError: It does.
    """
    if total > MOST_BYTES:
        raise ArchiveError(
            f"{shown(name)} unpacks to more than a backup may hold",
            expected=f"at most {MOST_BYTES:,} bytes",
            found=f"{total:,} bytes and more",
            kept=KEPT,
            hint="restore a backup of this size by hand",
        )


def not_a_file(path: str, found: str) -> ArchiveError:
    """Say that something of the backup is neither a file nor a folder."""
    return ArchiveError(
        f"{shown(path)} in the backup is no plain file",
        expected="files and folders: backups of this kind hold neither links nor devices",
        found=found,
        kept=KEPT,
        hint="find out who put it there; a copy without it can be read",
    )


def _is_folder(state: os.stat_result) -> bool:
    return stat.S_ISDIR(state.st_mode)


def _read_file(path: Path, entry: Entry) -> Iterator[bytes]:
    try:
        # A name that became a link or a pipe since it was listed is neither followed nor waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 - a Path opens no descriptor
            yield from exactly(entry, iter(lambda: file.read(READ_BYTES), b""))
    except OSError as error:
        raise unreadable(path, error) from error


def unreadable(path: Path, error: OSError) -> ArchiveError:
    """Say that the backup, or a file of it, cannot be read."""
    return ArchiveError(
        f"{path} cannot be read",
        expected="a backup that this account may read",
        found=error.strerror or type(error).__name__,
        kept=KEPT,
        hint=f"ls -ld {path}",
    )


def _other_size(entry: Entry, found: str) -> ArchiveError:
    return ArchiveError(
        f"{shown(entry.path)} is not as long as the backup says",
        expected=f"{entry.size:,} bytes",
        found=found,
        kept=KEPT,
        hint="download or copy the backup again",
    )
