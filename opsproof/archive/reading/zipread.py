"""Reading a bundle's zip, and trusting nothing in it: the counterpart of `zipstream`.

What `ZipWriter` writes leaves no room: members stand one behind the other from the first byte on, then the central
directory, then the end records. So every byte has its place, and one that is not what it must be is an error. The
central directory is read as a stream, each record beside its local header; nothing is kept. The format is APPNOTE.TXT
6.3.10 (sections 4.3 to 4.5).
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from isal import isal_zlib

from opsproof.archive.paths import DISTRUST, KEPT, shown
from opsproof.archive.reading.zipend import AGAIN, LOCAL_SIGN, ZipBytes
from opsproof.archive.writing.spool import ISAL_ERROR, RAW_DEFLATE
from opsproof.archive.writing.zipstream import DEFLATED, HAS_DESCRIPTOR, IS_UTF8, LIMIT_16, LIMIT_32, STORED, ZIP64
from opsproof.errors import ArchiveError

CENTRAL, LOCAL = struct.Struct("<IHHHHHHIIIHHHHHII"), struct.Struct("<IHHHHHIIIHH")
CENTRAL_SIGN, DESCRIPTOR_SIGN = 0x02014B50, 0x08074B50
LOCAL_FIELDS = ("signature", "version", "flags", "method", "time", "date", "CRC-32", "packed size", "size", "lengths")
ENCRYPTED = 1 | 1 << 6 | 1 << 13
UNIX = 3
READ_BYTES = 1 << 18
DIRECTORY_BYTES = 1 << 20
MOST_RECORD = CENTRAL.size + 3 * LIMIT_16
# No deflate stream unpacks to more than this many times its size.
MOST_RATIO = 1032


@dataclass(frozen=True, slots=True)
class ZipMember:
    """A member, as central directory and local header agree on it; its packed bytes begin at `start`."""

    name: str
    method: int
    crc: int
    packed: int
    size: int
    start: int
    is_link: bool


@dataclass(frozen=True, slots=True)
class _Record:
    name: bytes
    version: int
    flags: int
    method: int
    time: int
    date: int
    crc: int
    packed: int
    size: int
    offset: int
    mode: int


class ZipReader(ZipBytes):
    """The members of a zip that `ZipWriter` wrote. Reading needs no position: members may be read side by side."""

    def find(self, *names: str) -> dict[str, ZipMember]:
        """Return the members of these names, as far as there are such; only they are held against their headers."""
        raw = {name.encode() for name in names}
        found = (self._locate(one, one.offset)[0] for one in self._records() if one.name in raw)
        return {member.name: member for member in found}

    def members(self) -> Iterator[ZipMember]:
        """Yield every member, in order, each held against its local header.

        Raises:
            ArchiveError: One is not where or what the central directory says, or there is something else between two.
        """
        position = 0
        for record in self._records():
            member, position = self._locate(record, position)
            yield member
        if position != self.directory:
            raise self.broken(
                "something stands between its members and its central directory",
                f"the central directory at byte {position:,}",
                f"it is at byte {self.directory:,}",
            )

    def content(self, member: ZipMember) -> Iterator[bytes]:
        """Yield a member's content, never more than its size; the end is reached only if size and CRC-32 are right.

        Raises:
            ArchiveError: They are not, or it does not unpack.
        """
        crc, left = 0, member.size
        for chunk in self._stored(member) if member.method == STORED else self._inflated(member):
            left -= len(chunk)
            if left < 0:
                raise self._damaged(member, f"{member.size:,} bytes", "more than that", DISTRUST)
            crc = isal_zlib.crc32(chunk, crc)
            yield chunk
        if left:
            raise self._damaged(member, f"{member.size:,} bytes", f"{member.size - left:,}")
        if crc != member.crc:
            raise self._damaged(member, f"CRC-32 {member.crc:08x}", f"CRC-32 {crc:08x}")

    def read(self, member: ZipMember, most: int) -> bytes:
        """Return a small member's content.

        Raises:
            ArchiveError: It is longer than `most` bytes, or damaged.
        """
        if member.size > most:
            raise self._damaged(member, f"at most {most:,} bytes", f"{member.size:,} bytes declared", DISTRUST)
        return b"".join(self.content(member))

    def _stored(self, member: ZipMember) -> Iterator[bytes]:
        at, end = member.start, member.start + member.packed
        while at < end:
            data = self.pread(min(READ_BYTES, end - at), at)
            at += len(data)
            yield data

    def _inflated(self, member: ZipMember) -> Iterator[bytes]:
        unpack = isal_zlib.decompressobj(RAW_DEFLATE)
        at, end, left, packed = member.start, member.start + member.packed, member.size, b""
        while not unpack.eof:
            if not packed and at < end:
                packed = self.pread(min(READ_BYTES, end - at), at)
                at += len(packed)
            before = len(packed)
            try:
                # One byte more than what is left tells that there is more, and unpacks no more than that.
                data = unpack.decompress(packed, min(READ_BYTES, left + 1))
            except ISAL_ERROR as error:
                raise self._damaged(member, "what deflate packed", str(error)) from error
            packed = b"" if unpack.eof else unpack.unconsumed_tail
            if not data and len(packed) == before and not unpack.eof:
                raise self._damaged(member, "a deflate stream with an end", "none in its packed bytes")
            left -= len(data)
            if data:
                yield data
        if at < end or unpack.unused_data:
            raise self._damaged(member, f"{member.packed:,} packed bytes", "an end before that, and something after it")

    def _records(self) -> Iterator[_Record]:
        at, end = self.directory, self.directory + self.length
        buffer, offset = b"", 0
        for _ in range(self.count):
            if len(buffer) - offset < MOST_RECORD and at < end:
                more = self.pread(min(DIRECTORY_BYTES, end - at), at)
                at += len(more)
                buffer, offset = buffer[offset:] + more, 0
            record, offset = self._parse(buffer, offset)
            yield record
        if at != end or offset != len(buffer):
            raise self.broken(
                "its central directory holds more than its members", f"{self.count:,} members", "bytes after the last"
            )

    def _parse(self, buffer: bytes, offset: int) -> tuple[_Record, int]:
        fields = CENTRAL.unpack_from(buffer, offset) if len(buffer) - offset >= CENTRAL.size else (0,) * 17
        made_by, version, flags, method, time, date, crc, packed, size = fields[1:10]
        name_length, extra_length, comment_length, disk, _, attributes, place = fields[10:]
        start = offset + CENTRAL.size
        middle, end = start + name_length, start + name_length + extra_length
        if fields[0] != CENTRAL_SIGN or end > len(buffer):
            raise self.broken(
                "its central directory is cut or damaged", f"{self.count:,} records", "one that is not whole"
            )
        name = buffer[start:middle]
        if comment_length or made_by >> 8 != UNIX:
            found = "a comment" if comment_length else f"made by system {made_by >> 8}"
            raise self._odd(name, "what opsproof writes, and no other", found)
        if disk:
            raise self._odd(name, "a zip in one file", f"a part in file {disk + 1}")
        wide = [value for value in (size, packed, place) if value == LIMIT_32]
        extra = buffer[middle:end]
        announced = struct.pack("<HH", 1, 8 * len(wide)) if wide else b""
        if len(extra) != len(announced) + 8 * len(wide) or not extra.startswith(announced):
            raise self._odd(name, "sizes, and nothing else in its extra field", f"{extra_length:,} bytes of another")
        values = iter(struct.unpack(f"<{len(wide)}Q", extra[4:]))
        size, packed, place = (next(values) if value == LIMIT_32 else value for value in (size, packed, place))
        record = _Record(name, version, flags, method, time, date, crc, packed, size, place, attributes >> 16)
        self._require_readable(record)
        return record, end

    def _require_readable(self, record: _Record) -> None:
        name, packed, size = record.name, record.packed, record.size
        if record.flags & ENCRYPTED:
            raise self._odd(name, "a member that anybody can read", "an encrypted one", "decrypt it first")
        if record.method not in (STORED, DEFLATED):
            raise self._odd(name, "a member stored or deflated", f"method {record.method}, which is unknown here")
        if record.flags & ~(HAS_DESCRIPTOR | IS_UTF8) or record.version > ZIP64:
            raise self._odd(name, "the zip of version 4.5", f"flags {record.flags:#x}, version {record.version}")
        if stat.S_IFMT(record.mode) not in (stat.S_IFREG, stat.S_IFLNK):
            raise self._odd(name, "a file or a link", stat.filemode(record.mode))
        most = packed if record.method == STORED else MOST_RATIO * packed
        if size > most or (record.method == STORED and size != packed):
            found = f"{size:,} bytes declared"
            raise self._odd(name, f"at most {most:,} bytes, as {packed:,} packed ones can be", found, DISTRUST)

    def _locate(self, record: _Record, position: int) -> tuple[ZipMember, int]:
        """Hold a record against the local header, and return where the next one must be."""
        name = record.name
        if record.offset != position:
            raise self._odd(name, f"its local header at byte {position:,}", f"byte {record.offset:,}", DISTRUST)
        length = LOCAL.size + len(name)
        start = position + length
        if start + record.packed > self.directory:
            raise self._odd(name, "an end before the central directory", "packed bytes that reach into it")
        header = self.pread(min(length + 20, self.directory - position), position)
        # What may pass 4 GiB has its sizes in an extra field there.
        is_wide = LOCAL.unpack_from(header)[10] == 20
        if not is_wide and max(record.size, record.packed) >= LIMIT_32:
            raise self._odd(name, "a local header like its central record", "one without room for its size")
        is_streamed = bool(record.flags & HAS_DESCRIPTOR)
        crc, packed, size = (0, 0, 0) if is_streamed else (record.crc, record.packed, record.size)
        extra = struct.pack("<HHQQ", 1, 16, size, packed) if is_wide else b""
        sizes = (LIMIT_32, LIMIT_32) if is_wide else (packed, size)
        plain = (LOCAL_SIGN, record.version, record.flags, record.method, record.time, record.date, crc)
        wanted = (*plain, *sizes, len(name), len(extra))
        if header[: length + len(extra)] != LOCAL.pack(*wanted) + name + extra:
            fields = zip(LOCAL_FIELDS, wanted, LOCAL.unpack_from(header), strict=False)
            found = next((field for field, one, other in fields if one != other), "name")
            raise self._odd(name, "a local header like its central record", f"another {found}")
        start += len(extra)
        end = start + record.packed
        if is_streamed:
            wide_layout, numbers = "<IIQQ" if is_wide else "<IIII", (record.crc, record.packed, record.size)
            descriptor = struct.pack(wide_layout, DESCRIPTOR_SIGN, *numbers)
            if self.pread(min(len(descriptor), self.directory - end), end) != descriptor:
                raise self._odd(name, "a descriptor like its central record", "another CRC-32 or size")
            end += len(descriptor)
        if end > self.directory:
            raise self._odd(name, "an end before the central directory", "packed bytes that reach into it")
        return self._member(record, start), end

    def _member(self, record: _Record, start: int) -> ZipMember:
        is_link = stat.S_ISLNK(record.mode)
        name = self._name_of(record)
        return ZipMember(name, record.method, record.crc, record.packed, record.size, start, is_link)

    def _name_of(self, record: _Record) -> str:
        try:
            name = record.name.decode("utf-8")
        except UnicodeDecodeError:
            if record.flags & IS_UTF8:
                raise self._odd(record.name, "a name in UTF-8, as it says", "bytes that are none") from None
            return record.name.decode("utf-8", "surrogateescape")
        if not record.flags & IS_UTF8:
            raise self._odd(record.name, "a name that says that it is UTF-8", "one that does not")
        return name

    def _odd(self, name: bytes, expected: str, found: str, hint: str = AGAIN) -> ArchiveError:
        summary = f"{shown(name.decode('utf-8', 'surrogateescape'))} in the bundle cannot be used"
        return ArchiveError(summary, expected=expected, found=found, kept=KEPT, hint=hint)

    def _damaged(self, member: ZipMember, expected: str, found: str, hint: str = AGAIN) -> ArchiveError:
        summary = f"{shown(member.name)} in the bundle is damaged"
        return ArchiveError(summary, expected=expected, found=found, kept=KEPT, hint=hint)
