"""Whether what a dump holds is what the manifest says, what the SQL beside it holds, and what the files are for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from opsproof.errors import ProofError
from opsproof.inspection.dumpreading import KEPT, DumpContent
from opsproof.inspection.restores.sameness import list_differences, list_first
from opsproof.system.postgres.copytext import Content
from opsproof.system.postgres.schematext import plain_label

DUMP, MANIFEST = "the dump", "the manifest"


class _Table(Protocol):
    table: str
    rows: int
    fingerprint: str | None


class _Totals(Protocol):
    large_objects: int
    large_object_bytes: int


def require_content(expected: Iterable[_Table], totals: _Totals, found: DumpContent, what: str = DUMP) -> int:
    """Return how many tables hold what the manifest says, which is all of them; large objects likewise.

    Args:
        expected: The manifest's tables.
        totals: Its sums.
        found: What was read.
        what: Of what, as the error says it.

    Raises:
        ProofError: Some differ; each is named with both readings.
    """
    records = {plain_label(one.table): one for one in expected}
    contents = {name: Content(one.rows, one.fingerprint) for name, one in records.items()}
    # With `fingerprint: counts` there is only the number of rows to compare.
    counted = {
        name: Content(one.rows, one.fingerprint if name not in records or records[name].fingerprint else None)
        for name, one in found.tables.items()
    }
    differences = list_differences(contents, counted, MANIFEST, what)
    objects = (totals.large_objects, totals.large_object_bytes)
    there = (len(found.objects), sum(one.rows or 0 for one in found.objects.values()))
    if objects != there:
        told = [f"{count:,} large objects of {size:,} bytes" for count, size in (objects, there)]
        differences.append(f"{told[0]} in {MANIFEST}, {told[1]} in {what}")
    if differences:
        raise ProofError(
            f"{what[0].upper()}{what[1:]} does not hold what the manifest says",
            expected=f"the same rows and the same fingerprint in each of {len(contents):,} tables",
            found=list_first(differences),
            kept=KEPT,
            hint="the manifest is another backup's, or one of the two was changed: choose another with --backup=ID",
        )
    return len(contents)


def require_same_text(dump: DumpContent, plain: DumpContent) -> None:
    """Check that the plain SQL of a bundle holds what its dump does.

    Raises:
        ProofError: It does not.
    """
    objects = [{f"large object {oid}": one for oid, one in each.objects.items()} for each in (dump, plain)]
    differences = list_differences({**dump.tables, **objects[0]}, {**plain.tables, **objects[1]}, DUMP, "the SQL")
    if differences:
        raise ProofError(
            "The dump and the SQL of the bundle do not hold the same",
            expected=f"the same {len(dump.tables):,} tables",
            found=list_first(differences),
            kept=KEPT,
            hint="take a new backup; whoever restores by hand uses the .dump, not the .sql",
        )


def require_files(named: frozenset[str], there: Iterable[str], lost: Iterable[str]) -> int:
    """Return how many files the dump's rows name, each of which is in the backup.

    Args:
        named: What the rows name.
        there: The backup's files.
        lost: Those that were lost before the backup, as its manifest says.

    Raises:
        ProofError: Some are missing.
    """
    missing = set(named)
    missing.difference_update(there)
    missing.difference_update(lost)
    if missing:
        raise ProofError(
            f"{len(missing):,} of {len(named):,} attachments are not in the backup",
            expected="a file for each attachment that the dump's rows name",
            found=list_first([f"{name} is missing" for name in sorted(missing)]),
            kept=KEPT,
            hint="take a new backup, or choose another with --backup=ID",
        )
    return len(named)
