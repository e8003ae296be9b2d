"""RTO and RPO: what is measured, and what is said of one that is missed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from opsproof.errors import ProofError
from opsproof.inspection.objectives import RecoveryPoint, RecoveryTime, measure_point, require_objectives
from opsproof.policies import Objectives, Retention

NOW = datetime(2026, 3, 31, tzinfo=UTC)
WINDOW = timedelta(days=30)
DAY = 86_400.0
QUICK = RecoveryTime(None, 1.0, {})


def ago(*days: float) -> list[datetime]:
    return [NOW - timedelta(days=one) for one in days]


@pytest.mark.parametrize(
    ("others", "taken", "age", "gap", "backups"),
    [
        (ago(3, 1, 2), 1, 1, 1, 3),
        # An older one was restored, by chance: what would be lost is what the newest has not.
        (ago(1, 2, 9), 9, 1, 7, 3),
        # What is newer than the window's beginning began before it.
        (ago(40, 10, 1), 1, 1, 30, 2),
        (ago(40), 40, 40, 40, 0),
        (ago(), 2, 2, 2, 1),
        (ago(-1, 1), 1, 1, 1, 1),
        (ago(), None, None, None, 0),
    ],
)  # fmt: skip
def test_what_would_be_lost(
    others: list[datetime], taken: float | None, age: float | None, gap: float | None, backups: int
) -> None:
    when = None if taken is None else ago(taken)[0]
    found = measure_point(when, others, NOW, Objectives(), WINDOW)
    wanted = [None if one is None else one * DAY for one in (age, gap)]
    assert [found.age, found.widest_gap, found.backups] == [*wanted, backups]


def missed(time: RecoveryTime, point: RecoveryPoint) -> str:
    with pytest.raises(ProofError) as refused:
        require_objectives(time, point)
    return str(refused.value)


def test_a_missed_one_is_told_with_the_phase_that_cost_most() -> None:
    time = RecoveryTime(60.0, 90.0, {"load": 50.0, "prove": 30.0})
    point = measure_point(None, ago(1, 3), NOW, Objectives(rpo=timedelta(hours=26)), WINDOW)
    text = missed(time, point)
    assert "RTO: 90.0 s; load took 50.0 s of it, more than any other phase" in text
    assert "RPO: 172,800 s, in the last 30 days" in text
    assert "its snapshot is" not in text
    require_objectives(QUICK, measure_point(None, ago(1, 2), NOW, Objectives(rpo=timedelta(hours=26)), WINDOW))


def test_an_objective_that_nothing_was_measured_for_is_not_met() -> None:
    assert "RPO: there is none" in missed(QUICK, measure_point(None, [], NOW, Objectives(rpo=timedelta(1)), WINDOW))


@pytest.mark.parametrize(
    ("retention", "days"),
    [
        (Retention(), None),
        (Retention(last=7), None),
        (Retention(within=timedelta(days=9), weekly=4), 9),
        (Retention(daily=14, monthly=12), 14),
        (Retention(weekly=4), 1),
    ],
)
def test_a_gap_that_retention_made_is_none(retention: Retention, days: int | None) -> None:
    assert retention.dense_for == (None if days is None else timedelta(days=days))
