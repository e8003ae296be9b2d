"""A backup that others made, once it is known what is what in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha1
from itertools import chain, islice
from pathlib import Path
from typing import Literal

from opsproof.archive.foreign.source import Entry, Source
from opsproof.archive.manifest import Manifest, Member, TableRecord
from opsproof.archive.paths import shown
from opsproof.archive.reading.extracting import write_new
from opsproof.archive.reading.plainsql import checked_plain_sql
from opsproof.odoo import is_attachment_name
from opsproof.system.files.filestore import FileHeader


@dataclass(frozen=True)
class Layout:
    """Where everything is in somebody else's backup. `filestore` is the prefix of its files; None if it has none."""

    description: str
    dump: Entry
    format: Literal["custom", "plain"]
    filestore: str | None
    unverified: tuple[str, ...]


class ForeignBackup:
    """A backup that others made; an `OpenedBackup`.

    Attributes:
        description: What was recognised.
        unverified: What could not be verified, or proved wrong while it was read, a sentence each.
        manifest: None: nobody wrote one.
        database_format: What `extract_database` writes.
        database_bytes: Unpacked size of the dump.
        files_bytes: Of the filestore, unpacked.
        files_count: Of the filestore.
    """

    manifest: Manifest | None = None

    def __init__(self, source: Source, layout: Layout) -> None:
        self._source = source
        self._layout = layout
        self._damaged: dict[str, None] = {}
        self.description = layout.description
        self.unverified = layout.unverified
        self.database_format: Literal["custom", "plain"] = layout.format
        self.database_bytes = layout.dump.size
        self.files_bytes = self.files_count = 0
        for member in self.file_members():
            self.files_bytes += member.bytes
            self.files_count += 1

    @property
    def damaged(self) -> tuple[str, ...]:
        """Attachments, among the files read so far, whose content is not what their name says."""
        return tuple(self._damaged)

    def extract_database(self, path: Path) -> None:
        """Write the dump into a new file, which only its owner may read; what fails leaves no file.

        Raises:
            ArchiveError: The dump is damaged, or is plain SQL that may not be run, or the disk is full.
        """
        write_new(path, self._dump())

    def tables(self) -> Iterator[TableRecord]:
        """Yield nothing: nobody counted."""
        return iter(())

    def file_members(self) -> Iterator[Member]:
        """Yield the filestore's files, their paths relative to it, without a SHA-256."""
        for path, entry in self._files():
            yield Member(path=path, bytes=entry.size, sha256="")

    def open_files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
        """Yield the files whose relative path is wanted, with their content, which is verified at its end.

        Attachments whose content is not what their name says are handed out too, and are then in `damaged`.

        Raises:
            ArchiveError: While the content is read: the file is cut or damaged.
        """
        for path, entry in self._files():
            if wanted(path):
                yield FileHeader(path, entry.size, None), self._hashed(path, self._source.read(entry))

    def roles(self) -> bytes | None:
        """Return None: nobody wrote the roles down."""
        return None

    def verify(self) -> tuple[str, ...]:
        """Read all of it to its end; return the attachments whose content is not what their name says.

        Raises:
            ArchiveError: A part is cut or damaged, or the SQL may not be run.
        """
        for chunks in chain((self._dump(),), (content for _, content in self.open_files(lambda _: True))):
            for _ in chunks:
                pass
        return self.damaged

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def _files(self) -> Iterator[tuple[str, Entry]]:
        prefix = self._layout.filestore
        if prefix is not None:
            for entry in self._source.entries():
                if entry.path.startswith(prefix):
                    yield entry.path.removeprefix(prefix), entry

    def _dump(self) -> Iterator[bytes]:
        chunks = self._source.read(self._layout.dump)
        return checked_plain_sql(chunks) if self.database_format == "plain" else chunks

    def _hashed(self, path: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        digest = sha1(usedforsecurity=False)
        for chunk in chunks:
            digest.update(chunk)
            yield chunk
        if is_attachment_name(path) and not path.endswith(f"/{digest.hexdigest()}"):
            self._note_damage(path)

    def _note_damage(self, path: str) -> None:
        self._damaged[path] = None
        names = ", ".join(map(shown, islice(self._damaged, 10)))
        found = f"{len(self._damaged):,} file(s) of its filestore do not hold what their name says: {names}."
        self.unverified = (*self._layout.unverified, found)
