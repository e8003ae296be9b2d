"""Reading a backup that is plain SQL: of a database alone, with its sidecar beside it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from opsproof.archive.manifest import Manifest, Member, Sidecar, TableRecord
from opsproof.archive.paths import KEPT, shown
from opsproof.archive.reading.extracting import require_size, write_new
from opsproof.archive.reading.plainsql import check_plain_sql, checked_plain_sql
from opsproof.archive.reading.zipend import AGAIN
from opsproof.errors import ArchiveError
from opsproof.system.files.filestore import FileHeader

READ_BYTES = 1 << 18


class OpenedPlain:
    """A `.sql` of ours; implements `OpenedBackup`. Its content is looked at when it is read.

    Args:
        path: The file.
        sidecar: What stands beside it in the store.

    Raises:
        ArchiveError: It cannot be read, is not as long as the sidecar says, or that is one of a bundle.
    """

    unverified: tuple[str, ...] = ()
    database_format: Literal["custom", "plain"] = "plain"
    files_bytes = 0
    files_count = 0

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        self.path = path
        self.manifest: Manifest | None = sidecar.manifest
        self._sidecar = sidecar
        self._plain = sidecar.manifest.sql
        totals = sidecar.manifest.totals
        if sidecar.manifest.dump is not None:
            raise self._wrong("a manifest of plain SQL", "one of a bundle")
        tables = (len(sidecar.tables), sum(one.rows for one in sidecar.tables))
        if tables != (totals.tables, totals.rows):
            raise self._wrong(f"{totals.tables:,} tables, {totals.rows:,} rows", f"{tables[0]:,} and {tables[1]:,}")
        if len({one.table for one in sidecar.tables}) != len(sidecar.tables):
            raise self._wrong("every table once", "one that stands there twice")
        try:
            if not path.is_file():
                raise ArchiveError(
                    f"{shown(path.name)} is no file", expected=f"a file {path}", kept=KEPT, hint=f"ls -l {path}"
                )
            self._file = path.open("rb", buffering=0)
        except OSError as error:
            raise self._unreadable(error) from error
        try:
            require_size(path, self._plain.bytes, path.stat().st_size)
        except BaseException:
            self.close()
            raise
        self.description = f"opsproof plain SQL {sidecar.id}"

    @property
    def database_bytes(self) -> int:
        """Bytes of the SQL."""
        return self._plain.bytes

    def verify(self) -> None:
        """Read it to its end: what `extract_database` will write is what was backed up, and safe to feed to psql.

        Raises:
            ArchiveError: It is not.
        """
        check_plain_sql(self._content())

    def extract_database(self, path: Path) -> None:
        """Write the SQL to a new file; see `OpenedBackup`."""
        write_new(path, checked_plain_sql(self._content()))

    def tables(self) -> Iterator[TableRecord]:
        """Yield every table of the snapshot."""
        return iter(self._sidecar.tables)

    def file_members(self) -> Iterator[Member]:
        """Yield nothing: a database alone has no files."""
        return iter(())

    def open_files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:  # noqa: ARG002
        """Yield nothing: a database alone has no files."""
        return iter(())

    def roles(self) -> bytes | None:
        """Return None: the roles are not in it."""
        return None

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _content(self) -> Iterator[bytes]:
        digest, left = hashlib.sha256(), self._plain.bytes
        try:
            self._file.seek(0)
            while left and (chunk := self._file.read(min(READ_BYTES, left))):
                left -= len(chunk)
                digest.update(chunk)
                yield chunk
        except (OSError, ValueError) as error:
            raise self._unreadable(error) from error
        require_size(self.path, self._plain.bytes, self._plain.bytes - left)
        if digest.hexdigest() != self._plain.sha256:
            raise ArchiveError(
                f"{shown(self.path.name)} is not what was backed up",
                expected=f"SHA-256 {shown(self._plain.sha256)}",
                found=digest.hexdigest(),
                kept=KEPT,
                hint=AGAIN,
            )

    def _wrong(self, expected: str, found: str) -> ArchiveError:
        summary = f"The manifest beside {shown(self.path.name)} is not one of plain SQL as opsproof writes it"
        hint = "choose another backup: pytest --list-backups --env=ENV"
        return ArchiveError(summary, expected=expected, found=found, kept=KEPT, hint=hint)

    def _unreadable(self, error: OSError | ValueError) -> ArchiveError:
        found = getattr(error, "strerror", "") or str(error)
        summary = f"{shown(self.path.name)} cannot be read"
        return ArchiveError(summary, expected="a file", found=found, kept=KEPT, hint=f"ls -l {self.path}")
