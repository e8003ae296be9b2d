"""Whether a drill meets its objectives: how long a restore takes (RTO), and how much would be lost (RPO)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise

from opsproof.errors import ProofError
from opsproof.policies import Objectives

KEPT = "the backup, and what the environment serves"


@dataclass(frozen=True)
class RecoveryTime:
    """How long a restore took. Seconds; `phases` overlap no others, and need not add up to all of it."""

    objective: float | None
    measured: float
    phases: Mapping[str, float]

    @property
    def longest(self) -> tuple[str, float]:
        """Return the phase that cost most, and its seconds."""
        return max(self.phases.items(), key=lambda one: one[1], default=("nothing that was timed", 0.0))


@dataclass(frozen=True)
class RecoveryPoint:
    """How much would be lost. Seconds.

    Attributes:
        objective: How old the newest backup may be; None where the inventory says nothing.
        age: How old the newest verified backup is; None where there is none. A drill restores that one, unless it was
            asked for another.
        widest_gap: The widest gap between two verified backups in the window, and between the last one and now; None
            where there is none.
        window: How far back that looks.
        backups: How many verified backups there are in the window.
    """

    objective: float | None
    age: float | None
    widest_gap: float | None
    window: float
    backups: int


def measure_point(
    taken: datetime | None, others: Sequence[datetime], now: datetime, objectives: Objectives, window: timedelta
) -> RecoveryPoint:
    """Return how much would be lost.

    Args:
        taken: The restored snapshot's time; it counts where no other is known, and None where the backup has none.
        others: The times of all verified backups, in any order.
        now: The present time.
        objectives: Of the inventory.
        window: How far back gaps are looked for.
    """
    times = sorted(one for one in (others or filter(None, [taken])) if one <= now)
    known = [one for one in times if one >= now - window]
    # What lay between the last backup before the window and the first in it is a gap of the window, too.
    before = [one for one in times if one < now - window]
    edges = [*before[-1:], *known, now]
    gaps = [(later - earlier).total_seconds() for earlier, later in pairwise(edges)]
    return RecoveryPoint(
        objective=objectives.rpo.total_seconds() if objectives.rpo else None,
        age=(now - times[-1]).total_seconds() if times else None,
        widest_gap=max(gaps, default=None),
        window=window.total_seconds(),
        backups=len(known),
    )


def require_objectives(time: RecoveryTime, point: RecoveryPoint) -> None:
    """Make sure that both are met.

    Raises:
        ProofError: One is not; names the phase that cost most.
    """
    expected, found, hints = [], [], []
    if time.objective is not None and time.measured > time.objective:
        phase, seconds = time.longest
        expected.append(f"RTO: restored and checked within {time.objective:,.0f} s")
        found.append(f"RTO: {time.measured:,.1f} s; {phase} took {seconds:,.1f} s of it, more than any other phase")
        hints.append("a faster way from the store, more processors for pg_restore, or another objectives: rto")
    if point.objective is not None and point.age is None:
        expected.append(f"RPO: a verified backup at most {point.objective:,.0f} s old")
        found.append("RPO: there is none, and what was restored does not say when it was taken")
        hints.append("pytest actions/test_backup.py --env=NAME   takes one that does")
    elif point.objective is not None and point.age is not None and point.age > point.objective:
        expected.append(f"RPO: the newest verified backup at most {point.objective:,.0f} s old")
        found.append(f"RPO: its snapshot is {point.age:,.0f} s old")
        hints.append("pytest actions/test_backup.py --env=NAME   and look why none has run")
    if point.objective is not None and point.widest_gap is not None and point.widest_gap > point.objective:
        expected.append(f"RPO: never more than {point.objective:,.0f} s between two verified backups")
        found.append(f"RPO: {point.widest_gap:,.0f} s, in the last {point.window / 86_400:,.0f} days")
        hints.append("take backups more often, or another objectives: rpo")
    if found:
        raise ProofError(
            "The drill misses its objectives",
            expected="\n".join(expected),
            found="\n".join(found),
            kept=KEPT,
            hint="\n".join(dict.fromkeys(hints)),
        )
