"""The summary at the end of a run: what each target came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from opsproof.procedures.backup.procedure import Outcome
from opsproof.procedures.drill.drilled import DrillOutcome
from opsproof.procedures.outage.exchange import Outage
from opsproof.procedures.restore.procedure import RestoreOutcome
from opsproof.procedures.rollback.rolledback import RollbackOutcome
from opsproof.report.quantities import show_bytes, show_seconds


@dataclass(frozen=True)
class Results:
    """What targets came to, by name; and the plans of those of which it is no more than that."""

    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    restored: Mapping[str, RestoreOutcome] = field(default_factory=dict)
    rolled_back: Mapping[str, RollbackOutcome] = field(default_factory=dict)
    drilled: Mapping[str, DrillOutcome] = field(default_factory=dict)
    recovered: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cleaned: Mapping[str, Sequence[str]] = field(default_factory=dict)
    plans: Mapping[str, Sequence[str]] = field(default_factory=dict)


def lines(results: Results) -> Iterator[str]:
    """Yield the lines of every target that came to something."""
    for target, outcome in results.outcomes.items():
        yield from _backup_lines(target, outcome)
    for target, restore in results.restored.items():
        yield from _restore_lines(target, restore)
    for target, rollback in results.rolled_back.items():
        yield from _rollback_lines(target, rollback)
    for target, drill in results.drilled.items():
        yield from _drill_lines(target, drill)
    for told, ends in (("recovered", results.recovered), ("cleaned up", results.cleaned)):
        for target, verdict in ends.items():
            yield f"{target}: {told}"
            yield from (f"  {line}" for line in verdict)
    ended = (
        results.outcomes,
        results.restored,
        results.rolled_back,
        results.drilled,
        results.recovered,
        results.cleaned,
    )
    for target, plan in results.plans.items():
        if not any(target in done for done in ended):
            yield f"{target}: the plan"
            yield from (f"  {number}. {line}" for number, line in enumerate(plan, 1))


def _backup_lines(target: str, outcome: Outcome) -> Iterator[str]:
    source = outcome.database_bytes + outcome.filestore_bytes
    ratio = f"{source / outcome.bytes:.1f} : 1" if outcome.bytes else "-"
    yield f"{target}: backup {outcome.id} is stored and verified"
    yield f"  location   {outcome.location}"
    yield f"  size       {show_bytes(outcome.bytes)} of {show_bytes(source)} ({ratio})"
    yield f"  content    {outcome.tables} tables, {outcome.rows:,} rows, {outcome.files:,} files"
    if outcome.sealed:
        yield f"  sealed     {outcome.sealed}"
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
    yield f"  before     {_before(outcome)}"
    for sentence in outcome.unverified:
        yield f"  unverified {sentence}"
    yield f"  durations  {_phases(outcome.phases)}"


def _rollback_lines(target: str, outcome: RollbackOutcome) -> Iterator[str]:
    after = ", ".join(outcome.after) or "base"
    yield f"{target}: {outcome.kind} rolled back, from {', '.join(outcome.before) or 'base'} to {after}"
    if outcome.backup:
        yield f"  backup     {outcome.backup}"
    for revision, seconds in outcome.undone.items():
        yield f"  undone     {revision} in {show_seconds(seconds)}"
    for loss in outcome.losses:
        yield f"  lost       {loss}"
    yield f"  outage     {_outage(outcome.outage, 'copy, undo and compare' if outcome.kind == 'schema' else 'swap')}"
    seen = outcome.validated
    yield f"  validated  {seen.tables} tables, {seen.relations} relations, {seen.queries} queries"
    yield f"  before     {_before(outcome)}"
    for sentence in outcome.unverified:
        yield f"  unverified {sentence}"
    for line in outcome.forward:
        yield f"  forward    {line}"
    yield f"  durations  {_phases(outcome.phases)}"


def _drill_lines(target: str, outcome: DrillOutcome) -> Iterator[str]:
    verdict = "passed" if outcome.has_passed else f"did not pass: {outcome.why or 'it was cut short'}"
    yield f"{target}: the drill of {outcome.backup or 'no backup'} {verdict}"
    yield f"  location   {outcome.location}"
    content = f"{outcome.tables} tables, {outcome.rows_total:,} rows, {outcome.files:,} files"
    yield f"  restore    {outcome.restore}: {content}"
    yield f"  validation {outcome.validation}"
    for sentence in outcome.checks:
        yield f"             {sentence}"
    if outcome.identity:
        yield f"  identity   {outcome.identity}"
    if outcome.rto is not None:
        phase, seconds = outcome.rto.longest
        objective = f" of {show_seconds(outcome.rto.objective)}" if outcome.rto.objective is not None else ""
        yield f"  RTO        {show_seconds(outcome.rto.measured)}{objective}; longest: {phase} {show_seconds(seconds)}"
    if outcome.rpo is not None:
        objective = f" of {show_seconds(outcome.rpo.objective)}" if outcome.rpo.objective is not None else ""
        age, widest = (
            show_seconds(one) if one is not None else "?" for one in (outcome.rpo.age, outcome.rpo.widest_gap)
        )
        yield f"  RPO        {age}{objective}; widest gap in {outcome.rpo.window / 86_400:,.0f} days {widest}"
    for sentence in outcome.unverified:
        yield f"  unverified {sentence}"
    yield f"  durations  {_phases(outcome.phases)}"


def _before(outcome: RestoreOutcome | RollbackOutcome) -> str:
    # A safety backup is of what was live; where that is not parked, --in-place has dropped it.
    gone = "dropped" if outcome.safety else "nothing was live"
    return f"{outcome.parked or gone}; safety backup {outcome.safety or 'none'}"


def _outage(outage: Outage, between: str = "swap") -> str:
    rest = outage.total - outage.stop - outage.start - outage.healthy
    return (
        f"{show_seconds(outage.total)}: stop {show_seconds(outage.stop)}, {between} {show_seconds(rest)},"
        f" start {show_seconds(outage.start)}, healthy {show_seconds(outage.healthy)}"
    )


def _phases(phases: Mapping[str, float]) -> str:
    return ", ".join(f"{phase} {show_seconds(seconds)}" for phase, seconds in phases.items())
