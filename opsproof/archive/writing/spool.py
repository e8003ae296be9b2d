"""A member of a bundle on its way: compressed into a temporary file, and unpacked again at once where that is proof.

Whoever reads what unpacks has read what the bundle will hold. The file has no name: it is gone with the process,
however that ends.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

from isal import isal_zlib

from opsproof.errors import ArchiveError

# Level 2 of ISA-L: 800 MB/s and more at the ratio of zlib's default.
LEVEL = 2
RAW_DEFLATE = -15
ISAL_ERROR: type[Exception] = isal_zlib.error  # type: ignore[assignment] # its stub declares an instance
READ_BYTES = 1 << 20
PIECE_BYTES = 1 << 16


class Spool:
    """Compresses what is written into a nameless temporary file.

    Attributes:
        size: Bytes written.
        packed: Bytes in the file.
        crc: CRC-32 of what was written.
        sha256: Hex SHA-256 of what was written, or of what unpacked; after `finish` or `finish_unpacking`.

    Args:
        folder: Where the file is; the temporary folder by default.
        memory: Bytes that are kept in memory, compressed, before there is a file at all.

    Raises:
        ArchiveError: The disk is full, or what unpacks is not what was written.
    """

    def __init__(self, folder: Path | None = None, memory: int = 0) -> None:
        self.folder = folder or Path(tempfile.gettempdir())
        self.size = 0
        self.packed = 0
        self.crc = 0
        self.sha256 = ""
        try:
            self._file = _open_file(self.folder, memory)
        except OSError as error:
            raise self._disk_error(error) from error
        self._pack = isal_zlib.compressobj(LEVEL, isal_zlib.DEFLATED, RAW_DEFLATE)
        self._unpack = isal_zlib.decompressobj(RAW_DEFLATE)
        self._hash = hashlib.sha256()
        self._unpacked_crc = 0
        self._gathered = bytearray()

    def write(self, data: bytes) -> None:
        """Take the next bytes of a member that nobody reads on; small ones are gathered first."""
        if self._gathered or len(data) < PIECE_BYTES:
            self._gathered += data
            if len(self._gathered) < PIECE_BYTES:
                return
            data, self._gathered = bytes(self._gathered), bytearray()
        self._hash.update(data)
        self.pack(data)

    def pack(self, data: bytes) -> bytes:
        """Take the next bytes; return those that they are compressed to, for `unpack`."""
        self.size += len(data)
        self.crc = isal_zlib.crc32(data, self.crc)
        return self._store(self._pack.compress(data))

    def unpack(self, packed: bytes) -> bytes:
        """Return what unpacks from compressed bytes, in the order in which `pack` returned them.

        It may run in another thread than `pack` does.

        Raises:
            ArchiveError: They do not unpack.
        """
        if not packed:
            return b""
        try:
            data: bytes = self._unpack.decompress(packed)
        except ISAL_ERROR as error:
            raise self._corruption(str(error)) from error
        self._unpacked_crc = isal_zlib.crc32(data, self._unpacked_crc)
        self._hash.update(data)
        return data

    def finish_packing(self) -> bytes:
        """End the member; return the last compressed bytes."""
        return self._store(self._pack.flush())

    def finish(self) -> None:
        """End a member that nobody reads on."""
        self._hash.update(self._gathered)
        self.pack(bytes(self._gathered))
        self.finish_packing()
        self.sha256 = self._hash.hexdigest()

    def finish_unpacking(self) -> None:
        """Make sure that all of the member has unpacked.

        Raises:
            ArchiveError: What unpacked is not what was packed.
        """
        if not self._unpack.eof or self._unpacked_crc != self.crc:
            raise self._corruption(f"CRC-32 {self._unpacked_crc:08x}")
        self.sha256 = self._hash.hexdigest()

    def compressed(self) -> Iterator[bytes]:
        """Read the file from its beginning: the raw deflate stream of a zip member."""
        self._file.seek(0)
        while chunk := self._file.read(READ_BYTES):
            yield chunk

    def unpacked(self) -> Iterator[bytes]:
        """Read the member itself from its beginning."""
        unpack = isal_zlib.decompressobj(RAW_DEFLATE)
        for chunk in self.compressed():
            yield unpack.decompress(chunk)
        yield unpack.flush()

    def close(self) -> None:
        """Give the disk space back."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _store(self, packed: bytes) -> bytes:
        try:
            view = memoryview(packed)
            while view:
                view = view[self._file.write(view) :]
        except OSError as error:
            raise self._disk_error(error) from error
        self.packed += len(packed)
        return packed

    def _corruption(self, found: str) -> ArchiveError:
        return ArchiveError(
            "What was compressed does not unpack to the same bytes",
            expected=f"CRC-32 {self.crc:08x}",
            found=found,
            kept="no backup was written",
            hint="test this machine's memory",
        )

    def _disk_error(self, error: OSError) -> ArchiveError:
        return ArchiveError(
            f"The temporary file cannot be written: {error.strerror}",
            expected=f"room in {self.folder} for the compressed dump",
            found=f"{error.strerror} after {self.packed:,} bytes",
            kept="no backup was written; the temporary file is gone",
            hint="free some room, or name a folder with more: TMPDIR=/path pytest ...",
        )


def _open_file(folder: Path, memory: int) -> IO[bytes]:
    if memory:
        return cast("IO[bytes]", tempfile.SpooledTemporaryFile(memory, dir=str(folder)))
    return cast("IO[bytes]", tempfile.TemporaryFile(dir=folder, buffering=0))
