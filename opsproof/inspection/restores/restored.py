"""Whether a restored database holds what its backup says: rows, sequences, large objects, schema, owners, grants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from opsproof.errors import HostError, ProofError
from opsproof.inspection.finding import Finding
from opsproof.inspection.restores.sameness import (
    list_differences,
    list_first,
    list_object_differences,
    list_schema_differences,
)
from opsproof.inspection.restores.situation import Record as PreflightRecord
from opsproof.system.postgres import catalog
from opsproof.system.postgres.copytext import Content, CopyStream
from opsproof.system.postgres.dump import Clients, explain_dump_error
from opsproof.system.postgres.dumpfile import DumpFile
from opsproof.system.postgres.schematext import Schema, plain_label
from opsproof.system.postgres.server import Connection, connect
from opsproof.system.postgres.snapshot import Snapshot, open_snapshot

SHOWN = 20
LOCK_SECONDS = 60.0
BACKUP, COPY = "the backup", "the restored database"


class _Table(Protocol):
    table: str
    rows: int
    fingerprint: str | None


class _Sequence(Protocol):
    sequence: str
    last_value: int | None


class _Totals(Protocol):
    large_objects: int
    large_object_bytes: int


class Record(PreflightRecord, Protocol):
    """What a manifest says, as far as it matters here."""

    @property
    def fingerprint(self) -> str:
        """`full` or `counts`."""

    @property
    def totals(self) -> _Totals:
        """Sums over its tables."""

    @property
    def sequences(self) -> Sequence[_Sequence]:
        """The sequences, and the values that a copy has reached at least."""


class Material(Protocol):
    """An opened backup, as far as it matters here."""

    @property
    def manifest(self) -> Record | None:
        """What it says of itself; None where others made it."""

    @property
    def database_format(self) -> str:
        """`custom` or `plain`."""

    def tables(self) -> Iterable[_Table]:
        """Yield what must be there."""


@dataclass(frozen=True)
class Proof:
    """What was compared and found equal; `findings` are worth knowing, `unverified` is what nobody could compare."""

    tables: int
    rows: int
    large_objects: int
    sequences: int
    findings: tuple[Finding, ...]
    unverified: tuple[str, ...]


@dataclass
class _Report:
    differences: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)


def prove(clients: Clients, backup: Material, dump: Path, roles: Mapping[str, str] | None = None) -> Proof:
    """Hold a restored database against its backup.

    Args:
        clients: PostgreSQL's programs; their address names the restored database.
        backup: What it was restored from.
        dump: The extracted dump, on the host.
        roles: Roles of the backup that others took the place of.

    Raises:
        ProofError: It differs; everything that does is told at once.
        DumpError: The dump or the database cannot be read.
    """
    report, record = _Report(), backup.manifest
    expected = {plain_label(one.table): Content(one.rows, one.fingerprint) for one in backup.tables()}
    file = DumpFile(dump, clients.programs, clients.host) if backup.database_format == "custom" else None
    with connect(clients.address) as connection, open_snapshot(connection) as snapshot:
        full = record is not None and record.fingerprint == "full"
        found = _read_tables(clients, snapshot) if full else snapshot.count_rows()
        found = {plain_label(label): content for label, content in found.items()}
        objects = snapshot.large_objects()
        sequences = snapshot.sequences()
        if record:
            report.differences += list_differences(expected, found, BACKUP, COPY)
            _compare_sequences(
                report, record, {plain_label(one.label): one.last_value for one in sequences}, connection
            )
            _compare_extensions(report, record, connection)
        else:
            report.unverified.append("rows, sequences and extensions: the backup does not say how many there were")
        if record and not full:
            report.unverified.append("the content of the rows: only their number was counted")
        _compare_objects(report, record, file, objects)
        owners, grants = catalog.read_object_owners(connection), catalog.read_object_grants(connection)
        not_valid = catalog.find_not_valid(connection)
        broken = catalog.find_broken_indexes(connection)
        unlogged = catalog.find_unlogged(connection)
    report.differences += [f"index {name} is not valid" for name in broken]
    if file is None:
        report.unverified.append("schema, owners and grants: they can be compared with a custom dump only")
        _tell_of(report, "constraints", "every constraint validated", not_valid, "ALTER TABLE ... VALIDATE CONSTRAINT")
        _tell_of(report, "unlogged tables", "tables that survive a crash", unlogged, "ALTER TABLE ... SET LOGGED")
    else:
        schema = file.schema.with_roles(roles or {})
        new = sorted({*map(plain_label, not_valid)} - {*map(plain_label, schema.not_valid())})
        report.differences += [f"constraint {name} is not validated, which it was in the backup" for name in new]
        _compare_schema(report, file.schema, schema, catalog.read_schema(clients).with_roles({}))
        if schema.owners():
            _compare_object_owners(report, schema, owners)
        if _is_one_to_one(file.schema, schema):
            _compare_object_grants(report, schema, grants)
    if report.differences:
        raise ProofError(
            f"{clients.address.name!r} is not what the backup says: {len(report.differences)} differences",
            expected="the rows, sequences, large objects, schema, owners and grants of the backup",
            found=list_first(report.differences, SHOWN),
            kept="the live database is as it was",
            hint="look at what differs, and at the server's log; then run it again",
        )
    rows = sum(content.rows or 0 for content in found.values())
    return Proof(
        len(found), rows, len(objects), len(sequences), tuple(report.findings), tuple(report.unverified)
    )  # fmt: skip


def read_contents(clients: Clients, *, full: bool) -> dict[str, Content]:
    """Return rows and, where `full`, fingerprint of every table of a database, by its label.

    Raises:
        DumpError: It cannot be read.
    """
    with connect(clients.address) as connection, open_snapshot(connection) as snapshot:
        return _read_tables(clients, snapshot) if full else snapshot.count_rows()


def _read_tables(clients: Clients, snapshot: Snapshot) -> dict[str, Content]:
    tables = CopyStream([table.label for table in snapshot.tables])
    try:
        with clients.print_tables(snapshot, LOCK_SECONDS) as psql:
            while data := psql.read():
                tables.feed(data)
            psql.finish()
    except HostError as error:
        raise explain_dump_error(error, clients.address) from error
    return tables.finish()


def _compare_sequences(
    report: _Report, record: Record, found: Mapping[str, int | None], connection: Connection
) -> None:
    descending = {*map(plain_label, catalog.read_descending(connection))}
    expected = {plain_label(one.sequence): one.last_value for one in record.sequences}
    for label in sorted({*expected, *found}):
        if label not in found or label not in expected:
            report.differences.append(f"sequence {label} is only in {COPY if label in found else BACKUP}")
            continue
        wanted, value = expected[label], found[label]
        sign = -1 if label in descending else 1
        if wanted is not None and (value is None or value * sign < wanted * sign):
            report.differences.append(f"sequence {label}: {wanted} in {BACKUP}, {value} in {COPY}")


def _compare_extensions(report: _Report, record: Record, connection: Connection) -> None:
    found = catalog.read_extensions(connection)
    expected = {one.name: one.version for one in record.database.extensions}
    for name in sorted({*expected, *found}):
        if name not in found or name not in expected:
            report.differences.append(f"extension {name} is only in {COPY if name in found else BACKUP}")
        elif found[name] != expected[name]:
            report.findings.append(
                Finding(
                    "extensions", f"{name} {expected[name]}", found[name], "ALTER EXTENSION ... UPDATE", blocks=False
                )
            )


def _compare_objects(
    report: _Report, record: Record | None, file: DumpFile | None, found: Mapping[int, Content]
) -> None:
    if record:
        wanted = record.totals.large_objects, record.totals.large_object_bytes
        there = len(found), sum(content.rows or 0 for content in found.values())
        if wanted != there:
            told = [f"{count} large objects of {size} bytes" for count, size in (wanted, there)]
            report.differences.append(f"{told[0]} in {BACKUP}, {told[1]} in {COPY}")
    if file is not None:
        contents = ({f"large object {oid}": one for oid, one in each.items()} for each in (file.large_objects(), found))
        report.differences += list_differences(next(contents), next(contents), BACKUP, COPY)
    elif found:
        report.unverified.append("the content of large objects: it can be compared with a custom dump only")


def _compare_object_owners(report: _Report, schema: Schema, found: Mapping[int, str]) -> None:
    report.differences += [
        f"large object {oid}: of {role!r} in {BACKUP}, of {found[oid]!r} in {COPY}"
        for oid, role in sorted(schema.object_owners().items())
        if found.get(oid, role) != role
    ]


def _compare_object_grants(report: _Report, schema: Schema, found: frozenset[tuple[int, str, str]]) -> None:
    expected = schema.object_grants()
    for oid, role, privilege in sorted(expected ^ found):
        place = BACKUP if (oid, role, privilege) in expected else COPY
        report.differences.append(f"large object {oid}: granted to {role!r} ({privilege}) only in {place}")


def _is_one_to_one(original: Schema, mapped: Schema) -> bool:
    """Tell whether as many roles are left: a grant to two that have become one may be said once, or not at all."""
    return len(original.roles()) == len(mapped.roles())


def _compare_schema(report: _Report, original: Schema, expected: Schema, found: Schema) -> None:
    grants = _is_one_to_one(original, expected)
    owners = bool(expected.owners()) or not found.owners()
    if not owners:
        report.unverified.append("owners and grants: the dump does not name any")
    elif not grants:
        report.unverified.append("grants: --map-role puts one role in the place of several")
    differences = list_schema_differences(expected, found, owners=owners, grants=owners and grants)
    if not differences or expected.server_major == expected.client_major == found.server_major:
        report.differences += differences
        return
    report.differences += list_object_differences(expected, found, owners=owners)
    report.unverified.append(
        f"the schema's text and grants: PostgreSQL {found.server_major} prints them in other words than"
        f" {expected.server_major} did ({len(differences)} lines)"
    )


def _tell_of(report: _Report, subject: str, expected: str, names: Iterable[str], hint: str) -> None:
    report.findings += [Finding(subject, expected, name, hint, blocks=False) for name in sorted(names)]
