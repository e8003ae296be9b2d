"""The summary at the end of a run: what each target came to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from opsproof.procedures.backup import Outcome
from opsproof.report.quantities import show_bytes, show_seconds


def lines(outcomes: Mapping[str, Outcome], plans: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the lines of every target that came to something."""
    for target, outcome in outcomes.items():
        source = outcome.database_bytes + outcome.filestore_bytes
        ratio = f"{source / outcome.bytes:.1f} : 1" if outcome.bytes else "-"
        yield f"{target}: backup {outcome.id} is stored and verified"
        yield f"  location   {outcome.location}"
        yield f"  size       {show_bytes(outcome.bytes)} of {show_bytes(source)} ({ratio})"
        yield f"  content    {outcome.tables} tables, {outcome.rows:,} rows, {outcome.files:,} files"
        yield f"  SHA-256    {outcome.sha256}"
        phases = ", ".join(f"{phase} {show_seconds(seconds)}" for phase, seconds in outcome.phases.items())
        yield f"  durations  {phases}"
    for target, plan in plans.items():
        if target not in outcomes:
            yield f"{target}: the plan"
            yield from (f"  {number}. {line}" for number, line in enumerate(plan, 1))
