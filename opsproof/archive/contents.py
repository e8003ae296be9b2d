"""What a snapshot holds besides rows: migrations, modules, sequences, and the names of the application's files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from opsproof.archive.manifest import OdooRecord, SnapshotRecord
from opsproof.odoo import ATTACHMENT_COLUMN, ATTACHMENT_TABLE, MODULE_TABLE
from opsproof.system.postgres.snapshot import Sequence, Snapshot

PUBLIC = "public"
ALEMBIC_TABLE = "alembic_version"
ALEMBIC_COLUMN = "version_num"
MODULE_COLUMNS = ("name", "latest_version")
INSTALLED = "state = 'installed'"


@dataclass(frozen=True)
class Contents:
    """What a snapshot says of its application.

    `attachments` are the files that its rows name, relative to the filestore; None where it keeps no such list.
    """

    taken: datetime
    sequences: tuple[Sequence, ...]
    alembic_revisions: tuple[str, ...]
    odoo: OdooRecord | None
    attachments: frozenset[str] | None
    snapshot: SnapshotRecord


def read_contents(snapshot: Snapshot) -> Contents:
    """Read all of it in the snapshot."""
    revisions: set[str] = set()
    for schema in snapshot.tables_named(ALEMBIC_TABLE):
        if snapshot.has_column(schema, ALEMBIC_TABLE, ALEMBIC_COLUMN):
            revisions.update(snapshot.column(schema, ALEMBIC_TABLE, ALEMBIC_COLUMN))
    attachments = None
    if snapshot.has_column(PUBLIC, ATTACHMENT_TABLE, ATTACHMENT_COLUMN):
        names = snapshot.column(PUBLIC, ATTACHMENT_TABLE, ATTACHMENT_COLUMN)
        attachments = frozenset(name for name in names if name)
    return Contents(
        taken=snapshot.taken,
        sequences=snapshot.sequences(),
        alembic_revisions=tuple(sorted(revisions)),
        odoo=_read_odoo(snapshot),
        attachments=attachments,
        snapshot=SnapshotRecord(database_oid=snapshot.oid, oldest_unseen=snapshot.oldest_unseen),
    )


def _read_odoo(snapshot: Snapshot) -> OdooRecord | None:
    if not all(snapshot.has_column(PUBLIC, MODULE_TABLE, column) for column in (*MODULE_COLUMNS, "state")):
        return None
    modules = {name: version or "" for name, version in snapshot.rows(PUBLIC, MODULE_TABLE, MODULE_COLUMNS, INSTALLED)}
    return OdooRecord(version=modules.get("base", ""), modules=modules)
