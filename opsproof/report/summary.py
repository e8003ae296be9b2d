"""The summary at the end of a run: what each target came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from opsproof.procedures.backup import Outcome
from opsproof.procedures.restore import RestoreOutcome
from opsproof.report.quantities import show_bytes, show_seconds


def lines(
    outcomes: Mapping[str, Outcome],
    restored: Mapping[str, RestoreOutcome],
    recovered: Mapping[str, Sequence[str]],
    plans: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """Yield the lines of every target that came to something."""
    for target, outcome in outcomes.items():
        yield from _backup_lines(target, outcome)
    for target, restore in restored.items():
        yield from _restore_lines(target, restore)
    for target, verdict in recovered.items():
        yield f"{target}: recovered"
        yield from (f"  {line}" for line in verdict)
    for target, plan in plans.items():
        if target not in outcomes and target not in restored:
            yield f"{target}: the plan"
            yield from (f"  {number}. {line}" for number, line in enumerate(plan, 1))


def _backup_lines(target: str, outcome: Outcome) -> Iterator[str]:
    source = outcome.database_bytes + outcome.filestore_bytes
    ratio = f"{source / outcome.bytes:.1f} : 1" if outcome.bytes else "-"
    yield f"{target}: backup {outcome.id} is stored and verified"
    yield f"  location   {outcome.location}"
    yield f"  size       {show_bytes(outcome.bytes)} of {show_bytes(source)} ({ratio})"
    yield f"  content    {outcome.tables} tables, {outcome.rows:,} rows, {outcome.files:,} files"
    yield f"  SHA-256    {outcome.sha256}"
    yield f"  durations  {_phases(outcome.phases)}"


def _restore_lines(target: str, outcome: RestoreOutcome) -> Iterator[str]:
    outage = outcome.outage
    yield f"{target}: backup {outcome.backup} is live and proven"
    yield f"  location   {outcome.location}"
    yield f"  content    {outcome.tables} tables, {outcome.rows:,} rows"
    yield (
        f"  files      {outcome.files_present:,} were there, {outcome.files_added:,} added,"
        f" {outcome.files_repaired:,} repaired"
    )
    yield (
        f"  outage     {show_seconds(outage.total)}: stop {show_seconds(outage.stop)},"
        f" swap {show_seconds(outage.swap)}, start {show_seconds(outage.start)}, healthy {show_seconds(outage.healthy)}"
    )
    yield f"  before     {outcome.parked or 'nothing was live'}; safety backup {outcome.safety or 'none'}"
    for sentence in outcome.unverified:
        yield f"  unverified {sentence}"
    yield f"  durations  {_phases(outcome.phases)}"


def _phases(phases: Mapping[str, float]) -> str:
    return ", ".join(f"{phase} {show_seconds(seconds)}" for phase, seconds in phases.items())
