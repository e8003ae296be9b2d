"""Bundles for tests: whole ones by the real writer, and hostile ones that hold what no writer of ours would write.

`write_bundle` makes an honest bundle. `compose` writes whatever it is told, with a listing and a manifest that agree
with it unless a test says otherwise, so that only the one fault that is meant is in it.
"""

from __future__ import annotations

import hashlib
import io
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from opsproof.archive import manifest as records
from opsproof.archive.manifest import Manifest, Member, Sidecar, TableRecord
from opsproof.archive.reading.backup import OpenedBackup, open_bundle
from opsproof.archive.writing.bundle import Bundle
from opsproof.archive.writing.spool import Spool
from opsproof.archive.writing.zipstream import ZipWriter
from opsproof.errors import ArchiveError
from opsproof.system.files.filestore import FileHeader
from tests.lab.manifests import STEM, filestore_record, manifest_of, sidecar_of

DUMP = b"PGDMP" + bytes(range(256)) * 20
SQL = b"CREATE TABLE t (a int);\n\n--\n-- PostgreSQL database dump complete\n--\n\n"
ROLES = b"CREATE ROLE odoo;\n"
TABLES = (
    TableRecord(table="public.a", rows=3, fingerprint="1" * 32),
    TableRecord(table="public.b", rows=4, fingerprint=None),
)
FILES = {
    "ab/abcd": b"some text " * 50,
    "ab/abce": b"",
    "cd/noise": hashlib.sha256(b"noise").digest() * 3,
    "ünï code": b"umlaut",
    "deep/er/file": b"deep",
}
LINKS = {"deep/link": "er/file", "up": "ab/../cd/noise", "deep/back": "../ab/abcd"}
CENTRAL_SIGN = b"PK\x01\x02"


@dataclass(frozen=True)
class Content:
    """All that a reader gives out."""

    dump: bytes
    tables: tuple[TableRecord, ...]
    members: tuple[Member, ...]
    files: dict[str, tuple[str | None, bytes]] = field(hash=False)
    roles: bytes | None


@dataclass(frozen=True)
class Piece:
    """A member of a composed bundle; `link` tells that `data` is a symbolic link's target."""

    name: str
    data: bytes
    link: bool = False

    @property
    def member(self) -> Member:
        """The listing's line for it."""
        link = self.data.decode("utf-8", "surrogateescape") if self.link else None
        return Member(path=self.name, bytes=len(self.data), sha256=hashlib.sha256(self.data).hexdigest(), link=link)


FILE = Piece("filestore/ab/abcd", b"some text " * 50)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def file_stream(
    files: dict[str, bytes], links: dict[str, str], piece: int = 100_000
) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
    """Yield files as a filestore does."""
    for path, data in files.items():
        yield FileHeader(path, len(data), None), (data[at : at + piece] for at in range(0, len(data), piece))
    for path, target in links.items():
        yield FileHeader(path, 0, target), iter(())


def write_bundle(
    path: Path,
    files: dict[str, bytes] | Iterable[tuple[FileHeader, Iterator[bytes]]] | None = None,
    links: dict[str, str] | None = None,
    dump: bytes = DUMP,
) -> Sidecar:
    """Write a whole bundle by the writer of the product; return its sidecar."""
    if files is None or isinstance(files, dict):
        stream = file_stream(FILES if files is None else files, LINKS if links is None else links)
    else:
        stream = iter(files)
    digest = hashlib.sha256()
    with path.open("wb") as file, Spool(path.parent) as spool, Spool(path.parent) as plain:

        def write(data: bytes) -> None:
            digest.update(data)
            file.write(data)

        bundle = Bundle(write)
        written = bundle.add_files(stream, None)
        spool.write(dump)
        spool.finish()
        plain.write(SQL)
        plain.finish()
        dump_member = bundle.add_spool(f"{STEM}.dump", spool)
        sql_member = bundle.add_spool(f"{STEM}.sql", plain)
        bundle.add_text("roles.sql", ROLES)
        bundle.add_text("RESTORE.txt", b"how to")
        listing, tables_sha256 = records.write_listing(TABLES)
        bundle.add_text("tables.jsonl", listing)
        manifest = manifest_of(
            dump=dump_member,
            sql=sql_member,
            filestore=filestore_record(files=written.files, bytes=written.bytes),
            totals=records.Totals(
                tables=len(TABLES),
                rows=sum(one.rows for one in TABLES),
                large_objects=0,
                large_object_bytes=0,
                members=bundle.members,
                member_bytes=bundle.member_bytes,
                tables_sha256=tables_sha256,
                members_sha256=bundle.members_sha256,
            ),
        )
        bundle.finish(records.to_json(manifest))
        bundle.close()
    return sidecar_of(manifest, bytes=path.stat().st_size, sha256=digest.hexdigest())


def pieces(*filestore: Piece, tables: bytes | None = None) -> list[Piece]:
    """Return the members of a bundle, its filestore as given."""
    listing = records.write_listing(TABLES)[0] if tables is None else tables
    return [
        *filestore,
        Piece(f"{STEM}.dump", DUMP),
        Piece(f"{STEM}.sql", SQL),
        Piece("roles.sql", ROLES),
        Piece("RESTORE.txt", b"how to"),
        Piece("tables.jsonl", listing),
    ]


def same(manifest: Manifest) -> bytes:
    """Return a manifest as it is."""
    return records.to_json(manifest)


def compose(
    path: Path,
    members: Sequence[Piece],
    *,
    listed: Sequence[Member] | None = None,
    manifest: Callable[[Manifest], bytes] = same,
    listing: Callable[[bytes], bytes] = bytes,
    own: Sequence[str] = ("members.jsonl", "manifest.json"),
) -> Path:
    """Write a bundle of these members.

    Args:
        path: Where to.
        members: In their order.
        listed: What the listing says; what there is by default. The manifest agrees with it.
        manifest: Makes the bytes of `manifest.json`.
        listing: Changes the bytes of `members.jsonl`; the manifest agrees with what comes out.
        own: The records at the end.
    """
    lines = [one.member for one in members] if listed is None else listed
    data = listing(records.write_listing(lines)[0])
    by_path = {one.path: one for one in lines}
    filestore = [one for one in lines if one.path.startswith("filestore/")]
    tables = next((one.data for one in members if one.name == "tables.jsonl"), b"")
    whole = manifest_of(
        dump=by_path.get(f"{STEM}.dump", Piece(f"{STEM}.dump", DUMP).member),
        sql=by_path.get(f"{STEM}.sql", Piece(f"{STEM}.sql", SQL).member),
        filestore=filestore_record(files=len(filestore), bytes=sum(one.bytes for one in filestore)),
        totals=records.Totals(
            tables=len(TABLES),
            rows=sum(one.rows for one in TABLES),
            large_objects=0,
            large_object_bytes=0,
            members=len(lines),
            member_bytes=sum(one.bytes for one in lines),
            tables_sha256=sha256(tables),
            members_sha256=sha256(data),
        ),
    )
    records_of = {"members.jsonl": data, "manifest.json": manifest(whole)}
    out = io.BytesIO()
    writer = ZipWriter(out.write)
    for one in members:
        writer.add_bytes(one.name, one.data, compress=not one.link, link=one.link)
    for name in own:
        writer.add_bytes(name, records_of[name])
    writer.finish()
    path.write_bytes(out.getvalue())
    return path


def read_all(opened: OpenedBackup, folder: Path) -> Content:
    """Read everything that a backup gives out; whatever was declared is never exceeded."""
    dump = folder / "out.dump"
    dump.unlink(missing_ok=True)
    opened.extract_database(dump)
    files = {}
    for header, chunks in opened.open_files(lambda path: True):
        found = bytearray()
        for chunk in chunks:
            found += chunk
            assert len(found) <= header.size
        files[header.path] = (header.link, bytes(found))
    data = dump.read_bytes()
    assert len(data) == opened.database_bytes
    return Content(data, tuple(opened.tables()), tuple(opened.file_members()), files, opened.roles())


def refuse(path: Path, words: str, **fields: str) -> ArchiveError:
    """Open a bundle that must be refused when it is opened, whole and in plain words; return the error."""
    with pytest.raises(ArchiveError, match=words) as raised:
        open_bundle(path).close()
    error = raised.value
    assert error.kept == "nothing was changed"
    assert error.expected
    assert error.found
    assert error.hint
    assert all(text in getattr(error, field) for field, text in fields.items()), str(error)
    assert str(error).replace("\n", "").isprintable()
    return error


def patch_central(data: bytes, name: str, offset: int, layout: str, value: int) -> bytes:
    """Return a zip with a field of a member's central record changed."""
    return _patch(data, _central_of(data, name) + offset, layout, value)


def patch_local(data: bytes, name: str, offset: int, layout: str, value: int) -> bytes:
    """Return a zip with a field of a member's local header changed."""
    at = struct.unpack_from("<I", data, _central_of(data, name) + 42)[0]
    return _patch(data, at + offset, layout, value)


def _central_of(data: bytes, name: str) -> int:
    start = struct.unpack_from("<I", data, len(data) - 6)[0]
    at = data.index(CENTRAL_SIGN, start)
    while data[at + 46 : at + 46 + struct.unpack_from("<H", data, at + 28)[0]] != name.encode():
        at = data.index(CENTRAL_SIGN, at + 1)
    return int(at)


def _patch(data: bytes, at: int, layout: str, value: int) -> bytes:
    size = struct.calcsize(layout)
    return data[:at] + struct.pack(layout, value) + data[at + size :]
