"""Reading a backup, so that nothing of it is believed before it was checked.

Opening looks at everything that can be known without unpacking the dump and the files: the zip's own records, the
manifest, both listings, every name and link. Content is verified while it is read, so whoever reads to the end without
an error has the bytes that were backed up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, Protocol

from opsproof.archive.manifest import Manifest, Member, Sidecar, TableRecord
from opsproof.archive.paths import DISTRUST, FILESTORE, KEPT, PathLedger, shown
from opsproof.archive.reading import declared
from opsproof.archive.reading.declared import MANIFEST, MEMBERS, ROLES, TABLES
from opsproof.archive.reading.extracting import require_size, write_new
from opsproof.archive.reading.plain import OpenedPlain
from opsproof.archive.reading.zipend import AGAIN
from opsproof.archive.reading.zipread import ZipMember, ZipReader
from opsproof.errors import ArchiveError
from opsproof.system.files.filestore import FileHeader

__all__ = ["OpenedBackup", "OpenedBundle", "OpenedPlain", "open_bundle"]

# RESTORE.txt and its kin: what stands beside the filestore.
MOST_OTHERS = 64


class OpenedBackup(Protocol):
    """A backup that was opened, whoever made it."""

    @property
    def description(self) -> str:
        """What was recognised."""
        ...

    @property
    def unverified(self) -> tuple[str, ...]:
        """What could not be verified, a sentence each."""
        ...

    @property
    def manifest(self) -> Manifest | None:
        """What the backup says of itself."""
        ...

    @property
    def database_format(self) -> Literal["custom", "plain"]:
        """What `extract_database` writes: pg_restore's format, or SQL for psql."""
        ...

    @property
    def database_bytes(self) -> int:
        """Bytes that `extract_database` writes."""
        ...

    @property
    def files_bytes(self) -> int:
        """Bytes of the filestore."""
        ...

    @property
    def files_count(self) -> int:
        """Files of the filestore, links among them."""
        ...

    def extract_database(self, path: Path) -> None:
        """Write the dump to a new file, readable by its owner alone, verified while it is written.

        Raises:
            ArchiveError: It is not what was backed up, or cannot be written; then there is no such file.
        """
        ...

    def tables(self) -> Iterator[TableRecord]:
        """Yield what must be in the database; nothing where nobody knows."""
        ...

    def file_members(self) -> Iterator[Member]:
        """Yield the filestore's files, paths relative to it, without content; `sha256` is empty where unknown."""
        ...

    def open_files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
        """Yield the filestore's files whose relative path is wanted, and their content, verified as it is read.

        Raises:
            ArchiveError: One is not what was backed up.
        """
        ...

    def roles(self) -> bytes | None:
        """Return the server's roles as SQL; None where the backup has none."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


def open_bundle(path: Path, sidecar: Sidecar | None = None) -> OpenedBundle:
    """Open a bundle of ours and look through all of its records.

    Args:
        path: The zip, whose SHA-256 was held against the sidecar's already.
        sidecar: What stands beside it in the store, which the manifest inside must agree with.

    Raises:
        ArchiveError: It is no bundle, is another than was asked for, is broken, or holds what nobody should unpack.
    """
    return OpenedBundle(path, sidecar)


class OpenedBundle:
    """A bundle of ours. Its zip and its listing name the same members in the same order, or it does not open."""

    unverified: tuple[str, ...] = ()
    database_format: Literal["custom", "plain"] = "custom"

    def __init__(self, path: Path, sidecar: Sidecar | None) -> None:
        self.path = path
        self._zip = ZipReader(path)
        try:
            if sidecar is not None:
                require_size(path, sidecar.bytes, self._zip.size)
            self._own = self._find_own_records()
            self.manifest = declared.read_manifest(
                self._zip.read(self._own[MANIFEST], declared.MOST_MANIFEST), MANIFEST
            )
            if sidecar is not None:
                declared.require_same(self.manifest, sidecar, path.name)
            self._others: dict[str, tuple[Member, ZipMember]] = {}
            self.files_count = self.files_bytes = 0
            self._examine()
            for _ in self.tables():
                pass
        except BaseException:
            self.close()
            raise
        self.description = f"opsproof bundle {self.manifest.id}"

    @property
    def database_bytes(self) -> int:
        """Bytes of the dump, unpacked."""
        return self._dump[0].bytes

    def verify(self, dump: Path | None = None) -> None:
        """Read every member to its end: what `extract_database` and `open_files` will write is what was backed up.

        Args:
            dump: A new file that the dump is written to meanwhile, as `extract_database` does.

        Raises:
            ArchiveError: A member is damaged, or not what the listing says.
        """
        for member, found in self._pairs():
            content = self._content(member, found)
            if dump is not None and member.path == self._dump[0].path:
                write_new(dump, content)
                continue
            for _ in content:
                pass

    def extract_database(self, path: Path) -> None:
        """Write the dump to a new file; see `OpenedBackup`."""
        write_new(path, self._content(*self._dump))

    def tables(self) -> Iterator[TableRecord]:
        """Yield every table of the snapshot, sorted by name; see `OpenedBackup`."""
        totals = self.manifest.totals
        digest, count, rows, last = hashlib.sha256(), 0, 0, ""
        for line in declared.split_lines(self._content(*self._others[TABLES]), TABLES):
            digest.update(line + b"\n")
            record = declared.parse_line(TableRecord, line, TABLES)
            if record.table <= last and count:
                raise declared.declared_wrong(TABLES, "every table once, sorted by name", shown(record.table))
            count, rows, last = count + 1, rows + record.rows, record.table
            yield record
        found = (count, rows, digest.hexdigest())
        declared.require_totals(TABLES, "tables, rows", (totals.tables, totals.rows, totals.tables_sha256), found)

    def file_members(self) -> Iterator[Member]:
        """Yield the filestore's files, without content; see `OpenedBackup`."""
        for member in self._listing():
            if member.path.startswith(FILESTORE):
                yield member.model_copy(update={"path": member.path.removeprefix(FILESTORE)})

    def open_files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
        """Yield wanted files of the filestore and their content; see `OpenedBackup`."""
        for member, found in self._pairs():
            path = member.path.removeprefix(FILESTORE)
            if path == member.path or not wanted(path):
                continue
            if member.link is not None:
                yield FileHeader(path, 0, member.link), iter(())
            else:
                yield FileHeader(path, member.bytes, None), self._content(member, found)

    def roles(self) -> bytes | None:
        """Return the server's roles as SQL."""
        member, found = self._others[ROLES]
        return b"".join(self._content(member, found))

    def close(self) -> None:
        """Close the file."""
        self._zip.close()

    @property
    def _dump(self) -> tuple[Member, ZipMember]:
        return self._others[self.manifest.dump.path if self.manifest.dump else ""]

    def _find_own_records(self) -> dict[str, ZipMember]:
        found = self._zip.find(MANIFEST, MEMBERS)
        for name in (MANIFEST, MEMBERS):
            if name not in found:
                raise ArchiveError(
                    f"{shown(self.path.name)} is no bundle of opsproof",
                    expected=f"a member {name}",
                    found=f"{self._zip.count:,} members, none of that name",
                    kept=KEPT,
                    hint="name a backup that opsproof took, or bring it back as a foreign one: pytest ... --from=PATH",
                )
        # A declared size is only a claim; what so many lines can be at most is not.
        most = self._zip.count * declared.MOST_LINE
        if found[MEMBERS].size > most:
            raise declared.declared_wrong(MEMBERS, f"at most {most:,} bytes", f"{found[MEMBERS].size:,} declared")
        return found

    def _examine(self) -> None:
        ledger, total = PathLedger(), 0
        for member, found in self._pairs():
            ledger.add(member.path, member.link)
            total += member.bytes
            if member.path.startswith(FILESTORE):
                self.files_count += 1
                self.files_bytes += member.bytes
            else:
                self._others[member.path] = (member, found)
                if len(self._others) > MOST_OTHERS:
                    raise declared.declared_wrong(MEMBERS, f"{MOST_OTHERS} members beside the files", "more")
            if member.link is not None:
                self._require_link(member, found)
        for name in (MEMBERS, MANIFEST):
            ledger.add(name)
        ledger.finish()
        manifest = self.manifest
        files = (manifest.filestore.files, manifest.filestore.bytes) if manifest.filestore else (0, 0)
        declared.require_totals(MEMBERS, "files, bytes of the filestore", files, (self.files_count, self.files_bytes))
        declared.require_totals(MEMBERS, "bytes of all members", (manifest.totals.member_bytes,), (total,))
        for wanted in (manifest.dump, manifest.sql):
            listed = self._others.get(wanted.path) if wanted else None
            if wanted and (listed is None or listed[0] != wanted):
                raise declared.declared_wrong(MEMBERS, f"{shown(wanted.path)} as in {MANIFEST}", "none, or another")
        for name, most in ((ROLES, declared.MOST_ROLES), (TABLES, manifest.totals.tables * declared.MOST_LINE)):
            if name not in self._others:
                raise declared.declared_wrong(MEMBERS, f"a member {name}", "none")
            if self._others[name][0].bytes > most:
                raise declared.declared_wrong(name, f"at most {most:,} bytes", f"{self._others[name][0].bytes:,}")

    def _require_link(self, member: Member, found: ZipMember) -> None:
        target = self._zip.read(found, declared.MOST_LINE).decode("utf-8", "surrogateescape")
        if target != member.link:
            raise _differs(member.path, f"a link to {shown(member.link or '')}", f"a link to {shown(target)}", DISTRUST)

    def _listing(self) -> Iterator[Member]:
        """Yield the listing's records; the end is reached only if it is the listing that the manifest means."""
        totals, digest, count = self.manifest.totals, hashlib.sha256(), 0
        for line in declared.split_lines(self._zip.content(self._own[MEMBERS]), MEMBERS):
            digest.update(line + b"\n")
            count += 1
            yield declared.parse_line(Member, line, MEMBERS)
        found = (count, digest.hexdigest())
        declared.require_totals(MEMBERS, "members", (totals.members, totals.members_sha256), found)

    def _pairs(self) -> Iterator[tuple[Member, ZipMember]]:
        """Yield every member as the listing and as the zip have it, which must agree."""
        zipped = self._zip.members()
        for member in self._listing():
            found = next(zipped, None)
            if found is None or found.name != member.path:
                raise self._unlike(member.path, found)
            if found.size != member.bytes:
                raise _differs(found.name, f"{member.bytes:,} bytes, as listed", f"{found.size:,} declared", DISTRUST)
            if found.is_link != (member.link is not None):
                expected, other = ("a file", "a link")[:: 1 if found.is_link else -1]
                raise _differs(found.name, f"{expected}, as listed", other, DISTRUST)
            yield member, found
        for name in (MEMBERS, MANIFEST):
            found = next(zipped, None)
            if found is None or found.name != name:
                raise self._unlike(name, found)
        found = next(zipped, None)
        if found is not None:
            raise self._unlike("", found)

    def _content(self, member: Member, found: ZipMember) -> Iterator[bytes]:
        digest = hashlib.sha256()
        for chunk in self._zip.content(found):
            digest.update(chunk)
            yield chunk
        if digest.hexdigest() != member.sha256:
            raise _differs(member.path, f"SHA-256 {shown(member.sha256)}", digest.hexdigest())

    def _unlike(self, listed: str, found: ZipMember | None) -> ArchiveError:
        return ArchiveError(
            f"The listing and the zip {shown(self.path.name)} do not hold the same members",
            expected=f"{shown(listed)}, as listed" if listed else "no more than is listed",
            found=shown(found.name) if found else "the end of the zip",
            kept=KEPT,
            hint=DISTRUST,
        )


def _differs(path: str, expected: str, found: str, hint: str = AGAIN) -> ArchiveError:
    summary = f"{shown(path)} in the bundle is not what was backed up"
    return ArchiveError(summary, expected=expected, found=found, kept=KEPT, hint=hint)
