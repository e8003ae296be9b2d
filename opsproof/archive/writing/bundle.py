"""The bundle: one zip that holds all of a backup, written as a stream.

filestore/                 the application's files
{db}_{timestamp}.dump      pg_restore's custom format
{db}_{timestamp}.sql       the same as plain SQL
roles.sql                  the server's roles, without passwords
RESTORE.txt                how to restore by hand
tables.jsonl               rows and fingerprint of each table
members.jsonl              size and SHA-256 of every file above
manifest.json              what all of it is
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass

from isal import isal_zlib

from opsproof.archive.manifest import Listing, Member
from opsproof.archive.paths import PathLedger
from opsproof.archive.writing.spool import Spool
from opsproof.archive.writing.zipstream import ZipWriter, changed_while_read
from opsproof.errors import ArchiveError, FilestoreError
from opsproof.odoo import is_attachment_name
from opsproof.system.files.filestore import Digest, FileHeader

SMALL_FILE = 1 << 20
# The listings of half a million files, as they compress.
LISTING_MEMORY = 1 << 25
# A file whose first 8 KiB deflate by less than a tenth (images, PDFs, archives) is stored as it is.
SAMPLE_BYTES = 1 << 13
WORTHWHILE = 0.9


@dataclass(frozen=True)
class FilesWritten:
    """What became of the filestore in the bundle.

    `missing` are attachments of the snapshot that are not there, `damaged` those whose content is not what their name
    says.
    """

    files: int
    bytes: int
    missing: tuple[str, ...]
    damaged: tuple[str, ...]


class Bundle:
    """Writes a bundle member by member, keeping the listing of what it wrote.

    Args:
        write: Takes the bundle's bytes in order.
    """

    def __init__(self, write: Callable[[bytes], object]) -> None:
        self._zip = ZipWriter(write)
        self._listing = Listing()
        self._listed = Spool(memory=LISTING_MEMORY)
        self.member_bytes = 0

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return self._zip.size

    @property
    def members(self) -> int:
        """Files in the listing so far."""
        return self._listing.lines

    @property
    def members_sha256(self) -> str:
        """Hex SHA-256 of the listing so far."""
        return self._listing.sha256

    def add_text(self, path: str, data: bytes) -> Member:
        """Add a file that fits into memory."""
        self._zip.add_bytes(path, data)
        return self._list(Member(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()))

    def add_spool(self, path: str, spool: Spool) -> Member:
        """Add a file that a spool holds, as it is compressed there."""
        self._zip.add_spool(path, spool)
        return self._list(Member(path=path, bytes=spool.size, sha256=spool.sha256))

    def add_files(
        self, files: Iterable[tuple[FileHeader, Iterator[bytes]]], wanted: Collection[str] | None
    ) -> FilesWritten:
        """Add the filestore, and hold it against the attachments that the snapshot names.

        Args:
            files: Every file and its content.
            wanted: The names of the snapshot's attachments; None where the database keeps no such list.
        """
        missing = set(wanted or ())
        damaged = []
        count = size = 0
        for header, chunks in files:
            member, sha1 = self._add_file(header, chunks)
            count += 1
            size += member.bytes
            is_damaged = is_attachment_name(header.path) and not header.path.endswith(f"/{sha1}")
            if is_damaged and (wanted is None or header.path in missing):
                damaged.append(header.path)
            missing.discard(header.path)
        return FilesWritten(count, size, tuple(sorted(missing)), tuple(damaged))

    def finish(self, manifest: bytes) -> None:
        """Write the listing and the manifest, which is made only when all is known; end the bundle."""
        self._listed.finish()
        self._zip.add_spool("members.jsonl", self._listed)
        self._zip.add_bytes("manifest.json", manifest)
        self._zip.finish()

    def close(self) -> None:
        """Give the temporary files back."""
        self._listed.close()
        self._zip.close()

    def _add_file(self, header: FileHeader, chunks: Iterator[bytes]) -> tuple[Member, str]:
        path = f"filestore/{header.path}"
        digest = Digest()
        if header.link is not None:
            self._require_restorable(path, header.link)
            target = header.link.encode("utf-8", "surrogateescape")
            self._zip.add_bytes(path, target, compress=False, link=True)
            sha256 = hashlib.sha256(target).hexdigest()
            return self._list(Member(path=path, bytes=len(target), sha256=sha256, link=header.link)), ""
        content = digest.through(chunks)
        if header.size <= SMALL_FILE:
            data = b"".join(content)
            if len(data) != header.size:
                raise changed_while_read(path, header.size, len(data))
            self._zip.add_bytes(path, data, compress=_is_compressible(data))
        else:
            first = next(content, b"")
            stream = _rejoin(first, content)
            self._zip.add_stream(path, stream, header.size, compress=_is_compressible(first))
        return self._list(Member(path=path, bytes=header.size, sha256=digest.sha256)), digest.sha1

    def _require_restorable(self, path: str, link: str) -> None:
        """Refuse a link that leads out of the filestore: what it names is in no backup, and nobody may follow it."""
        ledger = PathLedger()
        try:
            ledger.add(path, link)
            ledger.finish()
        except ArchiveError as error:
            raise FilestoreError(
                error.summary,
                expected=error.expected,
                found=error.found,
                kept="no backup was written",
                hint="put what it points to in its place, or take it out of the filestore",
            ) from error

    def _list(self, member: Member) -> Member:
        self._listed.write(self._listing.line(member))
        self.member_bytes += member.bytes
        return member


def _rejoin(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


def _is_compressible(data: bytes) -> bool:
    sample = data[:SAMPLE_BYTES]
    return len(isal_zlib.compress(sample, 0, -15)) < WORTHWHILE * len(sample)
