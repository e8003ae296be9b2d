"""The summary at the end of a run: what each target came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from opsproof.procedures.backup import Outcome
from opsproof.procedures.exchange import Outage
from opsproof.procedures.restore import RestoreOutcome
from opsproof.procedures.rolledback import RollbackOutcome
from opsproof.report.quantities import show_bytes, show_seconds


def lines(
    outcomes: Mapping[str, Outcome],
    restored: Mapping[str, RestoreOutcome],
    rolled_back: Mapping[str, RollbackOutcome],
    recovered: Mapping[str, Sequence[str]],
    plans: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    """Yield the lines of every target that came to something."""
    for target, outcome in outcomes.items():
        yield from _backup_lines(target, outcome)
    for target, restore in restored.items():
        yield from _restore_lines(target, restore)
    for target, rollback in rolled_back.items():
        yield from _rollback_lines(target, rollback)
    for target, verdict in recovered.items():
        yield f"{target}: recovered"
        yield from (f"  {line}" for line in verdict)
    for target, plan in plans.items():
        if not any(target in done for done in (outcomes, restored, rolled_back)):
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
    yield f"{target}: backup {outcome.backup} is live and proven"
    yield f"  location   {outcome.location}"
    yield f"  content    {outcome.tables} tables, {outcome.rows:,} rows" + (f", {outcome.odoo}" if outcome.odoo else "")
    yield f"  identity   {outcome.identity}"
    yield (
        f"  files      {outcome.files_present:,} were there, {outcome.files_added:,} added,"
        f" {outcome.files_repaired:,} repaired"
    )
    yield f"  outage     {_outage(outcome.outage)}"
    yield f"  before     {outcome.parked or 'nothing was live'}; safety backup {outcome.safety or 'none'}"
    for sentence in outcome.unverified:
        yield f"  unverified {sentence}"
    yield f"  durations  {_phases(outcome.phases)}"


def _rollback_lines(target: str, outcome: RollbackOutcome) -> Iterator[str]:
    after = ", ".join(outcome.after) or "base"
    yield f"{target}: {outcome.kind} rolled back, from {', '.join(outcome.before) or 'base'} to {after}"
    for revision, seconds in outcome.undone.items():
        yield f"  undone     {revision} in {show_seconds(seconds)}"
    for loss in outcome.losses:
        yield f"  lost       {loss}"
    yield f"  outage     {_outage(outcome.outage, 'copy, undo and compare' if outcome.kind == 'schema' else 'swap')}"
    seen = outcome.validated
    yield f"  validated  {seen.tables} tables, {seen.relations} relations, {seen.queries} queries"
    yield f"  before     {outcome.parked or 'nothing was live'}; safety backup {outcome.safety or 'none'}"
    for sentence in outcome.unverified:
        yield f"  unverified {sentence}"
    for line in outcome.forward:
        yield f"  forward    {line}"
    yield f"  durations  {_phases(outcome.phases)}"


def _outage(outage: Outage, between: str = "swap") -> str:
    rest = outage.total - outage.stop - outage.start - outage.healthy
    return (
        f"{show_seconds(outage.total)}: stop {show_seconds(outage.stop)}, {between} {show_seconds(rest)},"
        f" start {show_seconds(outage.start)}, healthy {show_seconds(outage.healthy)}"
    )


def _phases(phases: Mapping[str, float]) -> str:
    return ", ".join(f"{phase} {show_seconds(seconds)}" for phase, seconds in phases.items())
