"""The rehearsal of a downgrade: on a side database with the live one's rows, where nothing can go wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from opsproof.archive.manifest import TableRecord
from opsproof.errors import ProofError
from opsproof.inspection.restores.restored import read_contents
from opsproof.inspection.schemas.descent import Descent, require_consent_to_drift, require_consent_to_loss
from opsproof.inspection.schemas.drift import list_drift
from opsproof.inspection.schemas.losses import (
    Counted,
    TableShape,
    changed_rows,
    losses_between,
    read_shape,
)
from opsproof.inspection.validation import Validated, find_orphans, validate
from opsproof.journal import Journal
from opsproof.system.alembic.migrations import Migrations, Step, place_of, read_heads
from opsproof.system.postgres.catalog import read_schema
from opsproof.system.postgres.copytext import Content
from opsproof.system.postgres.dump import Clients
from opsproof.system.postgres.schematext import Schema, plain_label
from opsproof.system.postgres.server import connect
from opsproof.system.postgres.statement import Loss
from opsproof.target import Target

APPLICATION = "opsproof rehearsal"
KEPT = "the live database and its services are as they were"


@dataclass(frozen=True)
class Agreement:
    """What the operator agreed to: that data goes, that the schema is another than the migrations make."""

    data_loss: bool
    drift: bool


@dataclass(frozen=True)
class Wanted:
    """What a schema has to be, and how that is known: `the migrations make at R`."""

    schema: Schema
    origin: str


@dataclass(frozen=True)
class Rehearsed:
    """What the rehearsal came to.

    Attributes:
        steps: The revisions that were undone, and how long each took.
        schema: What the schema is afterwards.
        losses: What went, as it was counted.
        validated: What was looked at afterwards.
        orphans: The foreign keys that did not hold before either.
    """

    steps: tuple[Step, ...]
    schema: Schema
    losses: tuple[Counted, ...]
    validated: Validated
    orphans: frozenset[str]


def rehearse(
    target: Target,
    clients: Clients,
    migrations: Migrations,
    descent: Descent,
    tables: Iterable[TableRecord],
    *,
    wanted: Wanted | None,
    agreed: Agreement,
    journal: Journal,
) -> Rehearsed:
    """Undo the planned revisions on a side database, and look at what that has done to it.

    Args:
        target: Whose it is.
        clients: PostgreSQL's programs, with the address of the side database.
        migrations: The application's.
        descent: The way down, with what is known to be lost.
        tables: What was in the side database before.
        wanted: What its schema has to be afterwards; None where nobody knows.
        agreed: What the operator agreed to.
        journal: What happened.

    Raises:
        MigrationError: A downgrade failed.
        ProofError: It ended elsewhere, its schema is another, or more is lost than was agreed to.
    """
    address, known = clients.address, tuple(tables)
    with connect(address) as connection:
        before, orphans = read_shape(connection), find_orphans(connection)
    with journal.phase("rehearse"):
        steps = migrations.downgrade(
            place_of(address, address.name), descent.planned, settings={"application_name": APPLICATION}
        )
    with journal.phase("compare"):
        schema = read_schema(clients)
        with connect(address) as connection:
            require_heads(read_heads(connection, descent.planned.table), descent.planned.left, address.name)
            after = read_shape(connection)
        if wanted is not None:
            drift = list_drift(wanted.schema, schema, descent.planned.table.name)
            require_consent_to_drift(
                drift, agreed.drift, f"The rehearsed schema is not what {wanted.origin}", kept=KEPT
            )
        gone = losses_between(before, after)
        losses = [*_count(gone, descent.losses, known), *_changed(before, after, clients, known, descent)]
        require_consent_to_loss(losses, agreed.data_loss, kept=KEPT)
        with connect(address) as connection:
            validated = validate(connection, target.validation, orphans)
    journal.record(
        "rehearsed", steps={one.revision: round(one.seconds, 3) for one in steps}, losses=[one.shown for one in losses]
    )
    return Rehearsed(steps, schema, tuple(losses), validated, orphans)


def require_heads(found: Iterable[str], wanted: Iterable[str], database: str, *, kept: str = KEPT) -> None:
    """Make sure that a database is where the plan leads.

    Raises:
        ProofError: It is not.
    """
    ours, theirs = sorted(wanted), sorted(found)
    if ours != theirs:
        raise ProofError(
            f"{database!r} is not at the revision that was planned",
            expected=", ".join(ours) or "base",
            found=", ".join(theirs) or "base",
            kept=kept,
            hint="look at what the downgrade's scripts do to Alembic's own table",
        )


def _count(gone: Iterable[Loss], known: Iterable[Counted], tables: Iterable[TableRecord]) -> tuple[Counted, ...]:
    """Return what is gone with the number that it had: what was counted before, else at most the rows of its table."""
    counts = {(one.loss.table, one.loss.column): one.count for one in known}
    rows = {plain_label(one.table): one.rows for one in tables}
    found = []
    for one in gone:
        count = counts.get((one.table, one.column))
        if count is None:
            count = rows.get(plain_label(sql.Identifier(one.schema or "", one.table).as_string()), 0)
        found.append(Counted(one, count))
    return tuple(found)


def _changed(
    before: Mapping[str, TableShape],
    after: Mapping[str, TableShape],
    clients: Clients,
    tables: Iterable[TableRecord],
    descent: Descent,
) -> tuple[Counted, ...]:
    """Return the tables that kept their columns, but not their rows."""
    known = {plain_label(one.table): Content(one.rows, one.fingerprint) for one in tables}
    full = all(one.fingerprint for one in known.values())
    found = {plain_label(label): one for label, one in read_contents(clients, full=full).items()}
    same = {
        plain_label(label): one
        for label, one in before.items()
        if one.table != descent.planned.table.name and label in after and after[label].columns == one.columns
    }
    return changed_rows(known, found, same)
