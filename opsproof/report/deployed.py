"""What a deploy, or a rollback to another release, came to: lines for the summary."""

from __future__ import annotations

from collections.abc import Iterator

from opsproof.procedures.deploy.deployed import DeployOutcome
from opsproof.report.quantities import show_seconds


def lines(target: str, outcome: DeployOutcome) -> Iterator[str]:
    """Yield the lines of one target."""
    yield f"{target}: release {outcome.release} is live ({outcome.event}; before: {outcome.previous or 'none'})"
    yield f"  revision   {outcome.revision or 'not known'} of {outcome.source or 'not known'}"
    for change in outcome.changes or ("nothing: it stays as it is",):
        yield f"  database   {change}"
    one = outcome.outage
    rest = one.total - one.stop - one.start - one.healthy
    yield (
        f"  outage     {show_seconds(one.total)}: stop {show_seconds(one.stop)}, change {show_seconds(rest)},"
        f" start {show_seconds(one.start)}, healthy {show_seconds(one.healthy)}"
    )
    yield f"  before     {outcome.parked or 'the same database'}; backup {outcome.backup or 'none'}"
    for hook in outcome.hooks:
        yield f"  hook       {hook}"
    yield f"  durations  {', '.join(f'{phase} {show_seconds(seconds)}' for phase, seconds in outcome.phases.items())}"
