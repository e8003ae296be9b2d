"""What a backup says of itself: the manifest, and the listings of its tables and members.

`manifest.json` stands inside the bundle; the *sidecar* beside it in the store is the same manifest with the bundle's
own size and SHA-256. The listings are JSON lines (`tables.jsonl`, `members.jsonl`), so that half a million files need
no memory to write or to read; the manifest holds their SHA-256.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from opsproof.errors import ArchiveError
from opsproof.system.postgres.copytext import Content

FORMAT = "opsproof-backup"
FORMAT_VERSION = 1
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
STAMP = "%Y-%m-%d_%H-%M-%S"
SEED_STAMP = "%Y%m%d_%H%M%S"

Kind = Literal["scheduled", "safety", "before deploy"]


class _Record(BaseModel):
    # A newer opsproof may write more: what an older one does not know, it passes over.
    model_config = ConfigDict(frozen=True, extra="ignore")


class Member(_Record):
    """A file of the bundle; a line of `members.jsonl`. `link` is a symbolic link's target."""

    path: str
    bytes: int
    sha256: str
    link: str | None = None


class TableRecord(_Record):
    """A table of the snapshot; a line of `tables.jsonl`. `fingerprint` is None under `fingerprint: counts`."""

    table: str
    rows: int
    fingerprint: str | None


class SequenceRecord(_Record):
    """A sequence, and a value that a copy has reached at least; None where it was never used."""

    sequence: str
    last_value: int | None


class Extension(_Record):
    """An extension of the database."""

    name: str
    version: str
    schema_name: str


class Setting(_Record):
    """A line of `ALTER DATABASE ... SET`; with a role, of `ALTER ROLE ... IN DATABASE ... SET`."""

    role: str | None
    setting: str


class DatabaseRecord(_Record):
    """What it takes to make the database anew. `bytes` is its size on the server's disk.

    `icu_rules` are what its collation has beside its locale, from PostgreSQL 16 on; empty where it has none, None where
    an older opsproof did not look.
    """

    name: str
    owner: str
    encoding: str
    collate: str
    ctype: str
    locale_provider: str
    locale: str | None
    connection_limit: int
    bytes: int
    acl: tuple[str, ...]
    comment: str | None
    settings: tuple[Setting, ...]
    extensions: tuple[Extension, ...]
    icu_rules: str | None = None


class ServerRecord(_Record):
    """The server that the backup came from, and the client programs that took it."""

    version: str
    version_num: int
    system_identifier: str
    client_version: str


class FilestoreRecord(_Record):
    """The application's files. `missing` are attachments that the snapshot names and nobody has."""

    path: str
    owner: str
    group: str
    mode: str
    content_addressed: bool
    files: int
    bytes: int
    attachments: int | None
    missing: tuple[str, ...]


class OdooRecord(_Record):
    """Odoo's version (of its module `base`) and the installed modules with theirs."""

    version: str
    modules: dict[str, str]

    @property
    def shown(self) -> str:
        """Return it as a plan and a summary show it: `Odoo 14.0.1.3 with 2 modules`."""
        version = "".join(letter for letter in self.version if letter.isprintable()) or "of no known version"
        return f"Odoo {version} with {len(self.modules):,} modules"


class SnapshotRecord(_Record):
    """What a snapshot saw: all that was committed before the oldest transaction that was still running then.

    Attributes:
        database_oid: Which database it is of, whatever that is called later.
        oldest_unseen: The 64-bit id of that transaction, or of the next one. Rows of it and of later ones may not be
            in the backup.
    """

    database_oid: int
    oldest_unseen: str


class Author(_Record):
    """Who ran it: a person's account on a machine, or a job of a CI."""

    user: str
    machine: str
    job: str | None
    commit: str | None


class Totals(_Record):
    """Sums over the listings, and the SHA-256 of each listing."""

    tables: int
    rows: int
    large_objects: int
    large_object_bytes: int
    members: int
    member_bytes: int
    tables_sha256: str
    members_sha256: str


class Manifest(_Record):
    """A backup. `id` names it in the store; `taken` is the snapshot's time, by which backups are ordered.

    `odoo` is None where the database is no Odoo one, or an older opsproof did not look; `snapshot` likewise.
    """

    format: Literal["opsproof-backup"] = "opsproof-backup"
    format_version: int = FORMAT_VERSION
    opsproof_version: str
    id: str
    kind: Kind
    environment: str
    target: str
    customer: str
    taken: datetime
    started: datetime
    author: Author
    server: ServerRecord
    database: DatabaseRecord
    fingerprint: Literal["full", "counts"]
    alembic_revisions: tuple[str, ...]
    odoo: OdooRecord | None = None
    filestore: FilestoreRecord | None
    dump: Member | None
    sql: Member
    totals: Totals
    sequences: tuple[SequenceRecord, ...]
    snapshot: SnapshotRecord | None = None


class Sidecar(_Record):
    """What stands beside a backup in the store, written last: its presence means that the backup was verified.

    `bytes` and `sha256` are those of the stored object, encrypted or not. `tables` is filled where there is no bundle
    for a listing to stand in: a plain `.sql`.

    Attributes:
        sealed: How it is encrypted.
        recipients: The public keys that it is encrypted to.
        opened_bytes: The size of what it decrypts to.
        open_with: The command that decrypts it by hand.
    """

    manifest: Manifest
    name: str
    bytes: int
    sha256: str
    verified: datetime
    checks: tuple[str, ...]
    tables: tuple[TableRecord, ...] = ()
    sealed: Literal["age"] | None = None
    recipients: tuple[str, ...] = ()
    opened_bytes: int | None = None
    open_with: str | None = None

    @property
    def id(self) -> str:
        """The backup's name without its ending."""
        return self.manifest.id


def opened_sidecar(sidecar: Sidecar) -> Sidecar:
    """Return what describes the decrypted file; of one that is not encrypted the same."""
    if sidecar.sealed is None:
        return sidecar
    size = sidecar.bytes if sidecar.opened_bytes is None else sidecar.opened_bytes
    return sidecar.model_copy(update={"bytes": size, "sha256": "", "sealed": None})


class Listing:
    """JSON lines on their way into a bundle: counted and hashed as they are written."""

    def __init__(self) -> None:
        self.lines = 0
        self._hash = sha256()

    def line(self, record: _Record) -> bytes:
        """Return a record's line."""
        text = json.dumps(record.model_dump(exclude_defaults=True), ensure_ascii=False) + "\n"
        data = text.encode("utf-8", "surrogateescape")
        self._hash.update(data)
        self.lines += 1
        return data

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of all lines so far."""
        return self._hash.hexdigest()


def table_records(contents: Mapping[str, Content]) -> Iterator[TableRecord]:
    """Yield a record per table, sorted by name."""
    for label, content in sorted(contents.items()):
        yield TableRecord(table=label, rows=content.rows or 0, fingerprint=content.fingerprint)


def write_listing(records: Iterable[_Record]) -> tuple[bytes, str]:
    """Return a whole listing that fits into memory, and its SHA-256."""
    listing = Listing()
    data = b"".join(listing.line(record) for record in records)
    return data, listing.sha256


def to_json(record: _Record) -> bytes:
    """Return a manifest or a sidecar as people can read it, too."""
    return (record.model_dump_json(indent=2) + "\n").encode()


def read_sidecar(data: bytes, name: str) -> Sidecar:
    """Read a sidecar.

    Raises:
        ArchiveError: It is none, or of a newer format than this version reads.
    """
    try:
        sidecar = Sidecar.model_validate_json(data)
    except ValidationError as error:
        raise ArchiveError(
            f"{name} is not a backup's manifest",
            expected=f"JSON of format {FORMAT!r}",
            found=str(error),
            kept="nothing was changed",
        ) from error
    if sidecar.manifest.format_version > FORMAT_VERSION:
        raise ArchiveError(
            f"{name} was written by a newer opsproof",
            expected=f"format version {FORMAT_VERSION} or older",
            found=f"{sidecar.manifest.format_version}, by opsproof {sidecar.manifest.opsproof_version}",
            kept="nothing was changed",
            hint="pip install --upgrade opsproof",
        )
    return sidecar


def file_name(database: str) -> str:
    """Return a database's name as a file name: as it is where that is safe, else with a hash that tells it apart.

    >>> file_name("prod"), file_name("prod/../x")
    ('prod', 'prod_.._x-4dfb8ab7')
    """
    if PLAIN_NAME.fullmatch(database):
        return database
    plain = re.sub(r"[^A-Za-z0-9_.-]", "_", database).lstrip(".-")
    # A file that begins with a dash is taken for an option, one with a dot is hidden.
    return f"{plain}-{sha256(database.encode()).hexdigest()[:8]}".lstrip("-")


def backup_id(database: str, taken: datetime) -> str:
    """Return `{db}_YYYY-MM-DD_HH-MM-SS`, in UTC."""
    return f"{file_name(database)}_{taken.astimezone(UTC).strftime(STAMP)}"


def plain_backup_id(environment: str, taken: datetime) -> str:
    """Return `backup_{environment}_YYYYMMDD_HHMMSS`, in UTC: the name of a database alone in a folder."""
    return f"backup_{file_name(environment)}_{taken.astimezone(UTC).strftime(SEED_STAMP)}"


def is_backup_of(name: str, database: str, environment: str) -> bool:
    """Tell whether an object's name is one that a backup of this database gets."""
    bundle = re.escape(file_name(database)) + r"_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d(_\d+)?\.zip(\.age)?"
    plain = "backup_" + re.escape(file_name(environment)) + r"_\d{8}_\d{6}(_\d+)?\.sql(\.age)?"
    return re.fullmatch(f"{bundle}|{plain}", name) is not None
