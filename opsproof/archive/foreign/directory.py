"""The central directory of a zip that somebody else wrote: found, and read record by record.

The format is APPNOTE.TXT 6.3.10 (sections 4.3 to 4.5).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opsproof.archive.foreign.source import READ_BYTES, Entry
from opsproof.archive.paths import KEPT, shown
from opsproof.archive.writing.zipstream import IS_UTF8, LIMIT_16, LIMIT_32
from opsproof.errors import ArchiveError

END = struct.Struct("<IHHHHIIH")
LOCATOR = struct.Struct("<IIQI")
END_64 = struct.Struct("<IQHHIIQQQQ")
LOCAL = struct.Struct("<IHHHHHIIIHH")
CENTRAL = struct.Struct("<IHHHHHHIIIHHHHHII")
END_SIGNATURE, LOCATOR_SIGNATURE, END_64_SIGNATURE = 0x06054B50, 0x07064B50, 0x06064B50
CENTRAL_SIGNATURE, LOCAL_SIGNATURE = 0x02014B50, 0x04034B50
ZIP64_FIELD = 1
# Systems that a writer may be of, whose file modes and names' bytes are as ours.
UNIX, OS_X = 3, 19


@dataclass(frozen=True, slots=True)
class ZipEntry(Entry):
    """A member: where it is in the zip, and how it is packed. `mode` is 0 where the writer noted none."""

    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    offset: int
    mode: int


class CentralDirectory:
    """What a zip says that it holds.

    Args:
        path: Of the zip; only named.
        descriptor: The open file.

    Attributes:
        count: Its members.
        start: Where it begins, in bytes from the zip's beginning.
        length: In bytes.

    Raises:
        ArchiveError: It is not there, or not all of it.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor
        self.count, self.start, self.length = self._find()

    def members(self) -> Iterator[ZipEntry]:
        """Yield every member, folders too, in the directory's order.

        Raises:
            ArchiveError: A record is cut or damaged, or there are more or fewer than announced.
        """
        at, buffer, consumed = self.start, b"", 0
        end = self.start + self.length
        for _ in range(self.count):
            # A record is at most 46 bytes and three fields of 65,535.
            if len(buffer) - consumed < CENTRAL.size + 3 * LIMIT_16 and at < end:
                more = self._pread(min(READ_BYTES, end - at), at)
                at += len(more)
                buffer, consumed = buffer[consumed:] + more, 0
            entry, consumed = self._parse(buffer, consumed)
            yield entry
        if at != end or consumed != len(buffer):
            raise broken(self._path, "its central directory is longer than its members", f"more than {self.count:,}")

    def _parse(self, buffer: bytes, at: int) -> tuple[ZipEntry, int]:
        if len(buffer) - at < CENTRAL.size:
            raise self._cut()
        fields = CENTRAL.unpack_from(buffer, at)
        signature, made, _, flags, method, _, _, crc, packed, size = fields[:10]
        name_length, extra_length, comment_length, disk, _, attributes, offset = fields[10:]
        start = at + CENTRAL.size
        end = start + name_length + extra_length + comment_length
        if signature != CENTRAL_SIGNATURE or end > len(buffer):
            raise self._cut()
        name = buffer[start : start + name_length]
        extra = buffer[start + name_length : start + name_length + extra_length]
        size, packed, offset = widen(self._path, extra, size, packed, offset)
        if disk not in (0, LIMIT_16) or offset + LOCAL.size + packed > self.start:
            raise broken(self._path, f"{shown(_text(name, flags, made))} is not in it", f"disk {disk}, byte {offset:,}")
        mode = attributes >> 16 if made >> 8 in (UNIX, OS_X) else 0
        return ZipEntry(_text(name, flags, made), size, name, flags, method, crc, packed, offset, mode), end

    def _find(self) -> tuple[int, int, int]:
        """Return the number of members, and where the central directory begins and how long it is."""
        size = os.fstat(self._descriptor).st_size
        tail_start = max(0, size - END.size - LIMIT_16)
        tail = self._pread(size - tail_start, tail_start)
        at = len(tail)
        while (at := tail.rfind(struct.pack("<I", END_SIGNATURE), 0, at)) >= 0:
            # The record is followed by a comment to the file's end, and what looks like one may be that comment's.
            if len(tail) - at >= END.size and END.unpack_from(tail, at)[7] == len(tail) - at - END.size:
                break
        else:
            raise broken(self._path, "it has no end", "no end record: the file is cut, or has more after it")
        _, disk, first, here, count, length, start, _ = END.unpack_from(tail, at)
        end = tail_start + at
        plain = (disk, first, here, count, length, start)
        end, disk, first, here, count, length, start = self._find_zip64(end, plain)
        if disk or first or here != count:
            raise broken(self._path, "it is a part of a zip in several files", f"part {disk + 1}")
        if start + length != end:
            found = f"it ends at {start + length:,}, not at {end:,}"
            raise broken(self._path, "its central directory is not where it says", found)
        return count, start, length

    def _find_zip64(self, end: int, plain: tuple[int, ...]) -> tuple[int, ...]:
        """Return what the zip64 end record says, where there is one: some write it though the plain one has room."""
        locator = self._pread(LOCATOR.size, end - LOCATOR.size) if end >= LOCATOR.size else b""
        if len(locator) < LOCATOR.size or locator[:4] != struct.pack("<I", LOCATOR_SIGNATURE):
            return (end, *plain)
        at = LOCATOR.unpack(locator)[2]
        record = self._pread(END_64.size, at) if at + END_64.size + LOCATOR.size <= end else b""
        if len(record) < END_64.size or record[:4] != struct.pack("<I", END_64_SIGNATURE):
            raise broken(self._path, "its zip64 end record is not where it says", f"byte {at:,}")
        wide = END_64.unpack(record)[4:]
        limits = (LIMIT_16, LIMIT_16, LIMIT_16, LIMIT_16, LIMIT_32, LIMIT_32)
        if any(one not in (limit, other) for one, other, limit in zip(plain, wide, limits, strict=True)):
            raise broken(
                self._path, "its two end records contradict each other", f"{plain[3]:,} and {wide[3]:,} members"
            )
        return (at, *wide)

    def _pread(self, size: int, at: int) -> bytes:
        try:
            return os.pread(self._descriptor, size, at)
        except OSError as error:
            raise broken(self._path, "it cannot be read", error.strerror or "an error of the disk") from error

    def _cut(self) -> ArchiveError:
        return broken(self._path, "its central directory is damaged", f"not the {self.count:,} members announced")


def widen(path: Path, extra: bytes, *values: int) -> tuple[int, int, int]:
    """Return size, packed size and offset, taken from the zip64 field where they did not fit.

    Raises:
        ArchiveError: They are not in there.
    """
    wide = _zip64_values(extra) if LIMIT_32 in values else []
    if len(wide) < values.count(LIMIT_32):
        raise broken(path, "a member's size is not in it", "a zip64 field that is missing or short")
    size, packed, offset = (wide.pop(0) if value == LIMIT_32 else value for value in values)
    return size, packed, offset


def broken(path: Path, what: str, found: str) -> ArchiveError:
    """Say that a zip cannot be used."""
    return ArchiveError(
        f"{shown(path.name)} cannot be used: {what}",
        expected="a whole zip in one file, each member once",
        found=found,
        kept=KEPT,
        hint=f"unzip -t {path}; download it again",
    )


def _zip64_values(extra: bytes) -> list[int]:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        at += 4
        if kind == ZIP64_FIELD:
            count = min(length, len(extra) - at) // 8
            return list(struct.unpack_from(f"<{count}Q", extra, at))
        at += length
    return []


def _text(name: bytes, flags: int, made: int) -> str:
    # A writer on Unix that does not say so uses the system's encoding, which is UTF-8 or unknown: the bytes are kept.
    if flags & IS_UTF8 or made >> 8 in (UNIX, OS_X):
        return name.decode("utf-8", "surrogateescape")
    return name.decode("cp437")
