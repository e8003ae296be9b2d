"""Recognising the backups that others made by what they hold, and saying what nobody can verify in them.

| made by                                | holds                                                              |
|----------------------------------------|--------------------------------------------------------------------|
| an earlier playbook                    | zip: {db}_{timestamp}.dump and .sql, filestore/ or filestore/{db}/ |
| Odoo's database manager, click-odoo    | zip: manifest.json, dump.sql, filestore/                           |
| click-odoo-backupdb --format=folder    | folder: manifest.json, db.dump, filestore/                         |
| pg_dump, Odoo's manager, click-odoo    | a custom-format dump, or plain SQL, gzipped or not                 |
"""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from opsproof.archive.foreign.backup import ForeignBackup, Layout
from opsproof.archive.foreign.dump import HEAD_BYTES, DumpHead, not_read, recognise_dump
from opsproof.archive.foreign.filestore import find_filestore
from opsproof.archive.foreign.source import Entry, Folder, GzippedFile, LoneFile, Source, unreadable
from opsproof.archive.foreign.zip import ForeignZip
from opsproof.archive.manifest import FORMAT
from opsproof.archive.paths import KEPT, shown
from opsproof.errors import ArchiveError

ZIP, GZIP = b"PK\x03\x04", b"\x1f\x8b"
MANIFEST = "manifest.json"
MANIFEST_BYTES = 1 << 24
DIRECTORY_DUMP = "toc.dat"
STAMPED = re.compile(r"(?P<database>.+)_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(?:_\d+)?")
KNOWN = (
    "a zip with a .dump or .sql and filestore/",
    "a zip of Odoo's database manager or of click-odoo-backupdb",
    "a folder of click-odoo-backupdb",
    "a custom-format dump (pg_dump -Fc)",
    "plain SQL of pg_dump, gzipped or not",
)
NOT_COUNTED = "It has no row counts: a table that lost rows would not be noticed."
NOT_FINGERPRINTED = "It has no fingerprints: a changed value would not be noticed."
NOT_HASHED = "It has no SHA-256: whether it is the file that was written cannot be told."
NO_CHECKSUM = "Its dump has no checksum: damage that pg_restore can still read would not be noticed."
NO_FILESTORE = "It has no filestore: whether the files that its database names are there cannot be told."


class _OdooManifest(BaseModel):
    """What is used of the manifest.json that Odoo writes; ours has `format`."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)
    format: str | None = None
    odoo_dump: str | None = None
    db_name: str = ""
    version: str = ""


def open_foreign(path: Path, filestore_database: str | None = None) -> ForeignBackup:
    """Recognise a backup that others made, and look through all of it that can be looked at without unpacking.

    Args:
        path: A file or a folder.
        filestore_database: The folder of this name in filestore/ is the one that is meant, where there are several.

    Raises:
        ArchiveError: It is not there, not recognised, our own, hostile, or broken.
    """
    try:
        path = path.resolve(strict=True)
        if path.is_dir():
            return _opened(Folder(path), path, filestore_database)
        if not path.is_file():
            raise _unrecognised(path.name, "neither a file nor a folder")
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as error:
        raise unreadable(path, error) from error
    if head.startswith(ZIP):
        return _opened(ForeignZip(path), path, filestore_database)
    source: Source = GzippedFile(path) if head.startswith(GZIP) else LoneFile(path)
    entry = next(iter(source.entries()))
    dump = recognise_dump(_head_of(source, entry), shown(path.name))
    if dump is None:
        raise _unrecognised(path.name, _looks_like(head))
    packed = ", in gzip" if head.startswith(GZIP) else ""
    unverified = [NOT_COUNTED, NOT_FINGERPRINTED, NOT_HASHED, NO_FILESTORE]
    if dump.format == "custom" and not packed:
        unverified.append(NO_CHECKSUM)
    layout = Layout(f"{dump.description}{packed}: no files", entry, dump.format, None, tuple(unverified))
    return ForeignBackup(source, layout)


def _opened(source: Source, path: Path, filestore_database: str | None) -> ForeignBackup:
    try:
        return ForeignBackup(source, _arrange(source, path, filestore_database))
    except BaseException:
        source.close()
        raise


def _arrange(source: Source, path: Path, filestore_database: str | None) -> Layout:
    """Find out what is what among the files of a zip or a folder."""
    top = {entry.path: entry for entry in source.entries() if "/" not in entry.path}
    if DIRECTORY_DUMP in top:
        raise not_read(shown(path.name), "directory", str(path))
    manifest = _read_manifest(source, top[MANIFEST]) if MANIFEST in top else _OdooManifest()
    if manifest.format == FORMAT:
        raise ArchiveError(
            f"{shown(path.name)} is a bundle of opsproof's own: it is read together with its manifest",
            expected="a backup that another program made",
            found=f"{MANIFEST} of format {FORMAT}",
            kept=KEPT,
            hint="name the backup by its id: --backup=ID; `pytest --list-backups` shows them",
        )
    entry, head = _choose_dump(source, top, path)
    named = STAMPED.fullmatch(entry.path.rpartition(".")[0])
    database = manifest.db_name or (named["database"] if named else "") or head.database
    found = find_filestore(source, filestore_database, database)
    passed_over = [one for one in top if one not in (entry.path, MANIFEST)]
    unverified = [NOT_COUNTED, NOT_FINGERPRINTED, NOT_HASHED]
    if head.format == "custom" and isinstance(source, Folder):
        unverified.append(NO_CHECKSUM)
    if found.prefix is None:
        unverified.append(NO_FILESTORE)
    unverified += found.unverified
    if passed_over:
        names = ", ".join(map(shown, sorted(passed_over)[:10]))
        unverified.append(f"{len(passed_over):,} more file(s) at its top were passed over, unread: {names}.")
    of = f" of database {shown(database)}" if database else ""
    what = f"{entry.path} and {found.files:,} files" if found.prefix is not None else f"{entry.path}, no files"
    description = f"{_maker_of(source, manifest)}{of}: {shown(what)}"
    return Layout(description, entry, head.format, found.prefix, tuple(unverified))


def _maker_of(source: Source, manifest: _OdooManifest) -> str:
    kind = "zip" if isinstance(source, ForeignZip) else "folder"
    if manifest.odoo_dump is None:
        return f"{kind} without a manifest"
    program = "click-odoo-backupdb" if kind == "folder" else "its database manager or click-odoo-backupdb"
    return f"Odoo {shown(manifest.version)} {kind}, by {program},"


def _choose_dump(source: Source, top: dict[str, Entry], path: Path) -> tuple[Entry, DumpHead]:
    """Return the one dump: the custom-format one where there is also the same as SQL."""
    for ending, form in ((".dump", "custom"), (".sql", "plain")):
        found = {name: entry for name, entry in top.items() if name.endswith(ending)}
        if len(found) > 1:
            raise ArchiveError(
                f"{shown(path.name)} holds several dumps",
                expected=f"one {ending}",
                found=", ".join(map(shown, sorted(found)[:10])),
                kept=KEPT,
                hint="take the one that is meant out of it, and restore that",
            )
        for name, entry in found.items():
            head = recognise_dump(_head_of(source, entry), shown(name))
            if head is None or head.format != form:
                raise _unrecognised(path.name, f"{shown(name)}, which is no {form} dump")
            return entry, head
    names = ", ".join(map(shown, sorted(top)[:10]))
    raise _unrecognised(path.name, f"no .dump and no .sql at the top of it, but {names or 'nothing'}")


def _read_manifest(source: Source, entry: Entry) -> _OdooManifest:
    if entry.size > MANIFEST_BYTES:
        return _OdooManifest()
    try:
        return _OdooManifest.model_validate_json(b"".join(source.read(entry)))
    except ValidationError:
        return _OdooManifest()  # some other program's, which says nothing that is used


def _head_of(source: Source, entry: Entry) -> bytes:
    head = b""
    for chunk in source.read(entry):
        head += chunk
        if len(head) >= HEAD_BYTES:
            break
    return head[:HEAD_BYTES]


def _looks_like(head: bytes) -> str:
    return f"a file that begins with {head[:16]!r}"


def _unrecognised(name: str, found: str) -> ArchiveError:
    return ArchiveError(
        f"{shown(name)} is no backup that is known",
        expected="one of these:\n" + "\n".join(KNOWN),
        found=found,
        kept=KEPT,
        hint="turn it into one of these: `pg_dump -Fc`, or `pg_restore --file=dump.sql` of what pg_restore reads",
    )
