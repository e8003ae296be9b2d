"""Composing a backup from what was captured: the bundle of a whole target, or the plain SQL of a database alone."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from datetime import datetime
from importlib.metadata import version

from opsproof.archive import manifest as records
from opsproof.archive.contents import Contents
from opsproof.archive.manifest import Author, Kind, Manifest, Member
from opsproof.archive.writing.bundle import Bundle, FilesWritten
from opsproof.archive.writing.capture import Capture
from opsproof.archive.writing.restoretext import restore_text
from opsproof.system.files.filestore import Filestore, FilestoreFacts
from opsproof.system.postgres.dump import ClientPrograms
from opsproof.system.postgres.server import DatabaseFacts, Server
from opsproof.target import Target

# What the zip's own records and the small members need beyond the members themselves.
BUNDLE_OVERHEAD = 1 << 20
BYTES_PER_FILE = 600
NO_FILES = FilesWritten(0, 0, (), ())


@dataclass(frozen=True)
class Ingredients:
    """All that a manifest tells of, and whether it will be encrypted, of which RESTORE.txt tells."""

    target: Target
    kind: Kind
    started: datetime
    author: Author
    server: Server
    programs: ClientPrograms
    database: DatabaseFacts
    contents: Contents
    captured: Capture
    roles: bytes
    live_files: FilestoreFacts | None = None
    sealed: bool = False


def bundle_bytes(count: int, size: int, database: int) -> int:
    """Return how big a bundle can be at most: what parts of an upload are sized by.

    Args:
        count: Files of the filestore.
        size: Their bytes.
        database: Bytes of the database on the server's disk, which are more than those of its compressed dump and SQL.
    """
    return size + count * BYTES_PER_FILE + database + BUNDLE_OVERHEAD


class Composition:
    """A bundle in the making: the files may go in while the database is still being dumped.

    Args:
        backup: Its id.
        write: Takes the bundle's bytes in order.
    """

    def __init__(self, backup: str, write: Callable[[bytes], object]) -> None:
        self.backup = backup
        self.files = NO_FILES
        self._bundle = Bundle(write)

    def add_files(self, filestore: Filestore, attachments: Collection[str] | None) -> None:
        """Add the frozen filestore, and hold it against the attachments that the snapshot names."""
        self.files = self._bundle.add_files(filestore.stream(), attachments)

    def finish(self, parts: Ingredients) -> Manifest:
        """Add the dump and all the rest, and end the bundle; return its manifest."""
        bundle, captured = self._bundle, parts.captured
        dump = bundle.add_spool(f"{self.backup}.dump", captured.dump)
        plain = bundle.add_spool(f"{self.backup}.sql", captured.sql)
        bundle.add_text("roles.sql", parts.roles)
        draft = _compose_manifest(parts, self.backup, dump, plain, self.files)
        bundle.add_text("RESTORE.txt", restore_text(draft, sealed=parts.sealed).encode())
        listing, tables_sha256 = records.write_listing(records.table_records(captured.counted))
        bundle.add_text("tables.jsonl", listing)
        manifest = _compose_manifest(parts, self.backup, dump, plain, self.files, bundle, tables_sha256)
        bundle.finish(records.to_json(manifest))
        return manifest

    def close(self) -> None:
        """Give the temporary files back."""
        self._bundle.close()


def write_plain(parts: Ingredients, backup: str, write: Callable[[bytes], object]) -> Manifest:
    """Write the plain SQL alone; return the manifest, which only its sidecar will hold."""
    for chunk in parts.captured.sql.unpacked():
        write(chunk)
    captured = parts.captured
    plain = Member(path=f"{backup}.sql", bytes=captured.sql.size, sha256=captured.sql.sha256)
    return _compose_manifest(parts, backup, None, plain, NO_FILES)


def _compose_manifest(
    parts: Ingredients,
    backup: str,
    dump: Member | None,
    plain: Member,
    files: FilesWritten,
    bundle: Bundle | None = None,
    tables_sha256: str = "",
) -> Manifest:
    target, captured = parts.target, parts.captured
    database = asdict(parts.database)
    database["settings"] = tuple(records.Setting(role=role, setting=line) for role, line in parts.database.settings)
    database["extensions"] = tuple(
        records.Extension(name=name, version=number, schema_name=schema)
        for name, number, schema in parts.database.extensions
    )
    objects = captured.counted_objects.values()
    return Manifest(
        opsproof_version=version("opsproof"),
        id=backup,
        kind=parts.kind,
        environment=target.environment,
        target=target.name,
        customer=target.customer,
        taken=parts.contents.taken,
        started=parts.started,
        author=parts.author,
        server=records.ServerRecord(
            version=parts.server.version,
            version_num=parts.server.version_num,
            system_identifier=parts.server.system_identifier,
            client_version=parts.programs.version,
        ),
        database=records.DatabaseRecord(**database),
        fingerprint=target.fingerprint,
        alembic_revisions=parts.contents.alembic_revisions,
        odoo=parts.contents.odoo,
        filestore=_describe_files(parts, files),
        dump=dump,
        sql=plain,
        totals=records.Totals(
            tables=len(captured.counted),
            rows=sum(content.rows or 0 for content in captured.counted.values()),
            large_objects=len(objects),
            large_object_bytes=sum(content.rows or 0 for content in objects),
            members=bundle.members if bundle else 1,
            member_bytes=bundle.member_bytes if bundle else plain.bytes,
            tables_sha256=tables_sha256,
            members_sha256=bundle.members_sha256 if bundle else "",
        ),
        sequences=tuple(
            records.SequenceRecord(sequence=one.label, last_value=one.last_value) for one in parts.contents.sequences
        ),
        snapshot=parts.contents.snapshot,
    )


def _describe_files(parts: Ingredients, files: FilesWritten) -> records.FilestoreRecord | None:
    settings, live = parts.target.filestore, parts.live_files
    if settings is None or live is None:
        return None
    attachments = parts.contents.attachments
    return records.FilestoreRecord(
        path=live.path,
        owner=live.owner,
        group=live.group,
        mode=live.mode,
        content_addressed=settings.content_addressed,
        files=files.files,
        bytes=files.bytes,
        attachments=None if attachments is None else len(attachments),
        missing=(*files.missing, *files.damaged),
    )
