"""Writing a zip file as a stream: no seeking, members that are already compressed, bounded memory.

The standard library's writer cannot take a member that is compressed already, and keeps half a kilobyte of memory for
each; here the central directory waits compressed, in memory as long as it is small. The format is APPNOTE.TXT 6.3.10
(sections 4.3 to 4.5); sizes over 4 GiB and more than 65,535 members use zip64, which `unzip` 6.0 reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from isal import isal_zlib

from opsproof.archive.writing.spool import LEVEL, RAW_DEFLATE, Spool
from opsproof.errors import ArchiveError

STORED, DEFLATED = 0, 8
# The central directory of a million members, as it compresses.
DIRECTORY_MEMORY = 1 << 25
HAS_DESCRIPTOR, IS_UTF8 = 1 << 3, 1 << 11
MADE_BY_UNIX = 3 << 8 | 45
ZIP64 = 45
LIMIT_32, LIMIT_16 = 0xFFFFFFFF, 0xFFFF
# Whatever is at least this big may pass 4 GiB when it does not compress.
ZIP64_FROM = 0xF0000000
REGULAR_FILE = 0o100600 << 16
SYMBOLIC_LINK = 0o120777 << 16


@dataclass(frozen=True)
class _Entry:
    name: bytes
    flags: int
    method: int
    crc: int
    packed: int
    size: int
    offset: int
    attributes: int


class ZipWriter:
    """Writes members one after the other; `finish` writes the central directory.

    Args:
        write: Takes the file's bytes in order.
        moment: The time that every member bears, UTC.
    """

    def __init__(self, write: Callable[[bytes], object], moment: datetime | None = None) -> None:
        self.size = 0
        self.members = 0
        self._write = write
        self._directory = Spool(memory=DIRECTORY_MEMORY)
        moment = moment or datetime.now(UTC)
        self._time = moment.hour << 11 | moment.minute << 5 | moment.second // 2
        self._date = max(0, moment.year - 1980) << 9 | moment.month << 5 | moment.day

    def add_spool(self, name: str, spool: Spool) -> None:
        """Add a member that a spool has compressed."""
        entry = self._begin(name, DEFLATED, spool.crc, spool.packed, spool.size, spool.size)
        for chunk in spool.compressed():
            self._emit(chunk)
        self._end(entry)

    def add_bytes(self, name: str, data: bytes, *, compress: bool = True, link: bool = False) -> None:
        """Add a small member; it is compressed only if that makes it smaller. `link`: a symbolic link's target."""
        packed = isal_zlib.compress(data, LEVEL, RAW_DEFLATE) if compress else data
        method = DEFLATED if len(packed) < len(data) else STORED
        body = packed if method == DEFLATED else data
        entry = self._begin(name, method, isal_zlib.crc32(data), len(body), len(data), len(data), link=link)
        self._emit(body)
        self._end(entry)

    def add_stream(self, name: str, chunks: Iterable[bytes], size: int, *, compress: bool) -> None:
        """Add a member of known size that comes in pieces.

        Raises:
            ArchiveError: The pieces are not `size` bytes.
        """
        method = DEFLATED if compress else STORED
        begun = self._begin(name, method, 0, 0, 0, size, streamed=True)
        pack = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, RAW_DEFLATE) if compress else None
        crc = count = 0
        start = self.size
        for chunk in chunks:
            crc = isal_zlib.crc32(chunk, crc)
            count += len(chunk)
            self._emit(pack.compress(chunk) if pack else chunk)
        if pack:
            self._emit(pack.flush())
        if count != size:
            raise changed_while_read(name, size, count)
        packed = self.size - start
        layout = "<IIQQ" if size >= ZIP64_FROM else "<IIII"
        self._emit(struct.pack(layout, 0x08074B50, crc, packed, count))
        self._end(_Entry(begun.name, begun.flags, method, crc, packed, count, begun.offset, begun.attributes))

    def finish(self) -> None:
        """Write the central directory and end the file."""
        start = self.size
        self._directory.finish()
        for chunk in self._directory.unpacked():
            self._emit(chunk)
        self._directory.close()
        length = self.size - start
        if self.members >= LIMIT_16 or start >= LIMIT_32 or length >= LIMIT_32:
            record = (0x06064B50, 44, MADE_BY_UNIX, ZIP64, 0, 0, self.members, self.members, length, start)
            self._emit(struct.pack("<IQHHIIQQQQ", *record))
            self._emit(struct.pack("<IIQI", 0x07064B50, 0, start + length, 1))
        members = min(self.members, LIMIT_16)
        end = (0x06054B50, 0, 0, members, members, min(length, LIMIT_32), min(start, LIMIT_32), 0)
        self._emit(struct.pack("<IHHHHIIH", *end))

    def close(self) -> None:
        """Give the directory's temporary file back, where `finish` was never reached."""
        self._directory.close()

    def _begin(
        self,
        name: str,
        method: int,
        crc: int,
        packed: int,
        size: int,
        expected: int,
        *,
        streamed: bool = False,
        link: bool = False,
    ) -> _Entry:
        raw = name.encode("utf-8", "surrogateescape")
        flags = HAS_DESCRIPTOR if streamed else 0
        try:
            raw.decode("utf-8")
            flags |= IS_UTF8
        except UnicodeDecodeError:
            pass  # a file name that is no UTF-8 keeps its bytes, and says nothing about their encoding
        entry = _Entry(raw, flags, method, crc, packed, size, self.size, SYMBOLIC_LINK if link else REGULAR_FILE)
        extra = b""
        if max(expected, packed) >= ZIP64_FROM:
            extra = struct.pack("<HHQQ", 1, 16, size, packed)
            size = packed = LIMIT_32
        fields = (0x04034B50, ZIP64, flags, method, self._time, self._date, crc, packed, size, len(raw), len(extra))
        self._emit(struct.pack("<IHHHHHIIIHH", *fields) + raw + extra)
        return entry

    def _end(self, entry: _Entry) -> None:
        large = [value for value in (entry.size, entry.packed, entry.offset) if value >= LIMIT_32]
        extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
        fields = (0x02014B50, MADE_BY_UNIX, ZIP64, entry.flags, entry.method, self._time, self._date, entry.crc)
        sizes = (min(entry.packed, LIMIT_32), min(entry.size, LIMIT_32), len(entry.name), len(extra))
        rest = (0, 0, 0, entry.attributes, min(entry.offset, LIMIT_32))
        self._directory.write(struct.pack("<IHHHHHHIIIHHHHHII", *fields, *sizes, *rest) + entry.name + extra)
        self.members += 1

    def _emit(self, data: bytes) -> None:
        if data:
            self._write(data)
            self.size += len(data)


def changed_while_read(name: str, expected: int, found: int) -> ArchiveError:
    """Say that a file is not as long as it was when it was opened."""
    return ArchiveError(
        f"{name} changed while it was read",
        expected=f"{expected:,} bytes",
        found=f"{found:,} bytes",
        kept="no backup was written",
        hint="run it again; what changes in place is not content-addressed: say so in the inventory",
    )
