"""Reading a zip that somebody else wrote, and trusting nothing in it.

`zipread` takes only what opsproof writes. Every other writer is a little different, so this takes whatever has one
meaning. All that can be known without unpacking is looked at first: the central directory, and every local header.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from isal import isal_zlib

from opsproof.archive.foreign.directory import LOCAL, LOCAL_SIGNATURE, CentralDirectory, ZipEntry, broken, widen
from opsproof.archive.foreign.source import READ_BYTES, Entry, exactly, not_a_file, require_bounded
from opsproof.archive.paths import KEPT, PathLedger, require_safe, shown
from opsproof.archive.writing.spool import ISAL_ERROR, RAW_DEFLATE
from opsproof.archive.writing.zipstream import DEFLATED, HAS_DESCRIPTOR, IS_UTF8, LIMIT_32, STORED
from opsproof.errors import ArchiveError

ENCRYPTED = 1 | 1 << 6 | 1 << 13
# What the local header must say as the central directory does.
COMPARED_FLAGS = ENCRYPTED | IS_UTF8
# No deflate stream unpacks to more than this many times its size.
MOST_RATIO = 1032


class ForeignZip:
    """A zip, looked through.

    Raises:
        ArchiveError: It is cut, contradicts itself, or holds what no backup holds.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        try:
            self._directory = CentralDirectory(path, self._file.fileno())
            self._examine()
        except BaseException:
            self._file.close()
            raise

    def entries(self) -> Iterator[ZipEntry]:
        """Yield every file, in the order of the central directory; folders are left out."""
        return (entry for entry in self._directory.members() if not entry.path.endswith("/"))

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield a member's content; its end is reached only if size and CRC-32 are right."""
        if not isinstance(entry, ZipEntry):
            raise TypeError(f"{entry} is of another source")
        crc = 0
        for chunk in exactly(entry, self._unpack(entry)):
            crc = isal_zlib.crc32(chunk, crc)
            yield chunk
        if crc != entry.crc:
            raise _damaged(entry, f"CRC-32 {entry.crc:08x}", f"{crc:08x}")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _unpack(self, entry: ZipEntry) -> Iterator[bytes]:
        left = entry.packed
        at = self._content_of(entry)
        unpack = isal_zlib.decompressobj(RAW_DEFLATE) if entry.method == DEFLATED else None
        while left and not (unpack and unpack.eof):
            packed = self._pread(min(left, READ_BYTES), at)
            if not packed:
                raise _damaged(entry, f"{left:,} bytes more", "the end of the file")
            at += len(packed)
            left -= len(packed)
            if unpack is None:
                yield packed
                continue
            try:
                yield from _inflate(unpack, packed)
            except ISAL_ERROR as error:
                raise _damaged(entry, "deflated data", str(error)) from error
        if unpack is not None and (left or not unpack.eof or unpack.unused_data):
            raise _damaged(entry, "one whole deflate stream", "one that is cut, or bytes after it")

    def _examine(self) -> None:
        starts, ends = array("Q"), array("Q")
        names = PathLedger()
        folders: set[str] = set()
        total = 0
        for entry in self._directory.members():
            if entry.path.endswith("/"):
                require_safe(entry.path[:-1])
                folders.add(entry.path[:-1])
            else:
                names.add(entry.path)
            _require_plain(entry)
            total += entry.size
            require_bounded(self._path.name, total)
            starts.append(entry.offset)
            ends.append(self._content_of(entry) + entry.packed)
        self._require_apart(starts, ends)
        both = next((entry.path for entry in self.entries() if entry.path in folders), None)
        if both is not None:
            raise broken(self._path, f"{shown(both)} is a file and a folder in it", "two members of one name")

    def _require_apart(self, starts: array[int], ends: array[int]) -> None:
        order = sorted(range(len(starts)), key=starts.__getitem__)
        for one, next_one in pairwise(order):
            if ends[one] > starts[next_one]:
                raise broken(self._path, "two of its members overlap", f"at byte {starts[next_one]:,}")
        if order and ends[order[-1]] > self._directory.start:
            raise broken(
                self._path, "a member reaches into its central directory", f"at byte {self._directory.start:,}"
            )

    def _content_of(self, entry: ZipEntry) -> int:
        """Return where a member's content begins, after a local header that says the same as the directory."""
        header = self._pread(LOCAL.size + len(entry.name), entry.offset)
        if len(header) < LOCAL.size:
            raise _damaged(entry, "a local header", "the end of the file")
        signature, _, flags, method, _, _, crc, packed, size, name_length, extra_length = LOCAL.unpack_from(header)
        start = entry.offset + LOCAL.size + name_length
        differences = []
        if signature != LOCAL_SIGNATURE or header[LOCAL.size :] != entry.name or name_length != len(entry.name):
            differences.append("another name")
        if method != entry.method or (flags ^ entry.flags) & COMPARED_FLAGS:
            differences.append("another kind of compression or encryption")
        if not flags & HAS_DESCRIPTOR:
            extra = self._pread(extra_length, start) if LIMIT_32 in (size, packed) else b""
            size, packed, _ = widen(self._path, extra, size, packed, 0)
            if (crc, packed, size) != (entry.crc, entry.packed, entry.size):
                differences.append("another size or CRC-32")
        if differences:
            raise _damaged(entry, "a local header as the central directory", ", ".join(differences))
        content: int = start + extra_length
        return content

    def _pread(self, size: int, at: int) -> bytes:
        try:
            return os.pread(self._file.fileno(), size, at)
        except OSError as error:
            raise broken(self._path, "it cannot be read", error.strerror or "an error of the disk") from error


def _inflate(unpack: isal_zlib.Decompress, packed: bytes) -> Iterator[bytes]:
    # A quarter of a megabyte may unpack to a quarter of a gigabyte: piece by piece, until a piece is not full.
    while not unpack.eof:
        data = unpack.decompress(packed, READ_BYTES)
        packed = unpack.unconsumed_tail
        if data:
            yield data
        if not packed and len(data) < READ_BYTES:
            return


def _require_plain(entry: ZipEntry) -> None:
    is_folder = entry.path.endswith("/")
    if entry.flags & ENCRYPTED:
        raise _unreadable(entry, "a member that anybody can read", "an encrypted one", "decrypt it: unzip asks for it")
    if entry.method not in (STORED, DEFLATED):
        raise _unreadable(
            entry, "a member stored or deflated", f"method {entry.method}", "unzip it, and zip it anew: zip -r"
        )
    kind = stat.S_IFMT(entry.mode)
    if kind not in ((0, stat.S_IFDIR) if is_folder else (0, stat.S_IFREG)):
        raise not_a_file(entry.path, stat.filemode(entry.mode))
    most = entry.packed if entry.method == STORED else MOST_RATIO * entry.packed
    least = entry.packed if entry.method == STORED else 0
    if not least <= entry.size <= most or (is_folder and entry.size):
        raise _unreadable(
            entry,
            f"{least:,} to {most:,} bytes, as {entry.packed:,} packed ones can be",
            f"{entry.size:,} bytes declared",
            "find out where this zip comes from: its writer did not zip a file",
        )


def _unreadable(entry: ZipEntry, expected: str, found: str, hint: str) -> ArchiveError:
    return ArchiveError(
        f"{shown(entry.path)} in the zip cannot be read", expected=expected, found=found, kept=KEPT, hint=hint
    )


def _damaged(entry: ZipEntry, expected: str, found: str) -> ArchiveError:
    return ArchiveError(
        f"{shown(entry.path)} in the zip is damaged",
        expected=expected,
        found=found,
        kept=KEPT,
        hint="download or copy the zip again",
    )
