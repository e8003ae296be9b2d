"""A bundle's zip as bytes, and its end: the records that say where the central directory is."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

from opsproof.archive.paths import KEPT, shown
from opsproof.archive.writing.zipstream import LIMIT_16, LIMIT_32
from opsproof.errors import ArchiveError

AGAIN = "download it again; if it stays so, choose another backup: pytest --list-backups --env=ENV"
END, END_64, LOCATOR = struct.Struct("<IHHHHIIH"), struct.Struct("<IQHHIIQQQQ"), struct.Struct("<IIQI")
LOCAL_SIGN, END_SIGN, END_64_SIGN, LOCATOR_SIGN = 0x04034B50, 0x06054B50, 0x06064B50, 0x07064B50
CENTRAL_BYTES = 46


class ZipBytes:
    """An open zip.

    Attributes:
        size: Of the file, bytes.
        count: Members that it announces.
        directory: Where the central directory begins.
        length: The central directory's bytes.

    Args:
        path: The file.

    Raises:
        ArchiveError: It is no zip, is cut, or is a part of several.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            # A pipe of that name is not waited for.
            self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        try:
            status = os.fstat(self._file)
            if not stat.S_ISREG(status.st_mode):
                raise self.broken("it is no regular file", "a file", stat.filemode(status.st_mode))
            self.size = status.st_size
            self.count, self.directory, self.length = self._find_directory()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def pread(self, count: int, at: int) -> bytes:
        """Return exactly so many bytes.

        Raises:
            ArchiveError: There are fewer.
        """
        try:
            data = os.pread(self._file, count, at)
            while len(data) < count and (more := os.pread(self._file, count - len(data), at + len(data))):
                data += more
        except OSError as error:
            raise self._unreadable(error) from error
        if len(data) < count:
            raise self.broken("it is cut", f"{count:,} bytes at byte {at:,}", f"{len(data):,}")
        return data

    def broken(self, what: str, expected: str, found: str) -> ArchiveError:
        """Say what is wrong with the zip as a whole."""
        summary = f"The bundle {shown(self.path.name)} cannot be used: {what}"
        return ArchiveError(summary, expected=expected, found=found, kept=KEPT, hint=AGAIN)

    def _find_directory(self) -> tuple[int, int, int]:
        """Return the number of members, where the central directory begins, and its bytes."""
        if self.pread(min(4, self.size), 0) != struct.pack("<I", LOCAL_SIGN):
            raise self.broken("it is no zip", "a bundle of opsproof", "another beginning" if self.size else "0 bytes")
        tail = self.pread(min(self.size, END.size), max(0, self.size - END.size))
        if len(tail) < END.size or not tail.startswith(struct.pack("<I", END_SIGN)):
            raise self.broken("it is cut, or has something after its end", "an end record at its end", "none there")
        _, *disks, here, count, length, start, comment = END.unpack(tail)
        end = self.size - END.size
        if any(disks) or here != count:
            raise self.broken("it is a part of a zip in several files", "one file", f"file {disks[0] + 1}")
        if comment:
            raise self.broken("it is cut, or has something after its end", "no comment", f"{comment:,} bytes announced")
        if count == LIMIT_16 or LIMIT_32 in (length, start):
            narrow = (count, length, start)
            count, start, length, end = self._find_wide(end)
            if narrow != (min(count, LIMIT_16), min(length, LIMIT_32), min(start, LIMIT_32)):
                raise self.broken("its two end records disagree", f"{count:,} members", f"{narrow[0]:,}")
        if start + length != end or count * CENTRAL_BYTES > length:
            found = f"{count:,} members in {length:,} bytes at byte {start:,}"
            raise self.broken(
                "its central directory is cut or damaged", f"a central directory that ends at {end:,}", found
            )
        return count, start, length

    def _find_wide(self, end: int) -> tuple[int, int, int, int]:
        at = end - LOCATOR.size - END_64.size
        data = self.pread(LOCATOR.size + END_64.size, at) if at >= 0 else bytes(LOCATOR.size + END_64.size)
        signature, size, _, _, disk, first, here, count, length, start = END_64.unpack_from(data)
        if LOCATOR.unpack_from(data, END_64.size) != (LOCATOR_SIGN, 0, at, 1) or (signature, size) != (END_64_SIGN, 44):
            raise self.broken("its end is cut or damaged", f"a zip64 record at byte {at:,}", "none there")
        if disk or first or here != count:
            raise self.broken("it is a part of a zip in several files", "one file", f"file {disk + 1}")
        return count, start, length, at

    def _unreadable(self, error: OSError | ValueError) -> ArchiveError:
        found = getattr(error, "strerror", "") or str(error)
        summary = f"The bundle {shown(self.path.name)} cannot be read"
        return ArchiveError(summary, expected="a file", found=found, kept=KEPT, hint=f"ls -l {self.path}")
