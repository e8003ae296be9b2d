"""The story of a run, as its journal tells it: what was done to each target, with which evidence, and how it ended.

Nothing is known here but the journal's lines, so that a report can be made of any run, also of one that was killed, by
anybody who has its journal. Events and fields that are not known are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Verdict = Literal["passed", "failed", "planned", "broken"]

# The worst first: a run is what the worst of its targets is.
VERDICTS: tuple[Verdict, ...] = ("broken", "failed", "planned", "passed")


@dataclass(frozen=True)
class Step:
    """A step of a procedure, or a check.

    Attributes:
        name: The test's.
        sentence: What it proves, in one sentence; empty where the journal does not say.
        outcome: `passed`, `failed`, `skipped`, or `not reached` of a step that the journal knows only by name.
        when: `call`, or `setup` and `teardown` for what failed around it.
        seconds: None where it did not run.
        error: The message of what failed, or why it was skipped.
    """

    name: str
    sentence: str
    outcome: str
    when: str = "call"
    seconds: float | None = None
    error: str = ""

    @property
    def title(self) -> str:
        """Return the name as people read it: `take lock` of `test_take_lock`."""
        return self.name.removeprefix("test_").replace("_", " ")


@dataclass(frozen=True)
class Phase:
    """A timed part of the work.

    Attributes:
        name: Its name; several may have the same one.
        within: The names of the phases that it is a part of, the outermost first.
        begin: Seconds after the target's story began.
        end: The same.
        outcome: `done`, `failed`, or `cut off` where the journal ends before it.
    """

    name: str
    within: tuple[str, ...]
    begin: float
    end: float
    outcome: str

    @property
    def seconds(self) -> float:
        """Return how long it took."""
        return self.end - self.begin


@dataclass(frozen=True)
class Fact:
    """One thing that is known of what was done. Several values are lines."""

    label: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """What is known of one thing: the backup, the restore, the outage."""

    title: str
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Objective:
    """A recovery time or a recovery point, against what it has to be. Seconds; None where it is not known.

    Attributes:
        name: `RTO` or `RPO`.
        measured: What it was.
        objective: The most that it may be; None where nobody said.
        phases: What the time was spent on.
        widest_gap: The longest time between two verified backups.
        earlier: What earlier drills measured, the oldest first.
    """

    name: str
    measured: float | None
    objective: float | None
    phases: Mapping[str, float]
    widest_gap: float | None
    earlier: tuple[Earlier, ...]

    @property
    def worst(self) -> float | None:
        """Return what is held against the objective: the widest gap where that is more than the age now."""
        known = [one for one in (self.measured, self.widest_gap) if one is not None]
        return max(known) if known else None

    @property
    def is_met(self) -> bool | None:
        """Tell whether it is as it has to be; None where that cannot be told."""
        if self.worst is None or self.objective is None:
            return None
        return self.worst <= self.objective

    @property
    def costliest(self) -> tuple[str, float] | None:
        """Return the phase that took longest, and its seconds."""
        return max(self.phases.items(), key=lambda one: one[1]) if self.phases else None


@dataclass(frozen=True)
class Earlier:
    """What an earlier drill measured, in seconds, when, and how it ended."""

    time: datetime | None
    seconds: float
    verdict: str


@dataclass(frozen=True)
class Rows:
    """How many rows a table had and has; None for a table that was not or is not there."""

    table: str
    then: int | None
    now: int | None

    @property
    def is_same(self) -> bool:
        """Tell whether there are as many as there were."""
        return self.then == self.now

    @property
    def difference(self) -> int | None:
        """Return how many more there are now."""
        return None if self.then is None or self.now is None else self.now - self.then


@dataclass(frozen=True)
class Drill:
    """What a drill found: whether the backup could be restored, and whether what was restored is right."""

    restore: str
    validation: str


@dataclass(frozen=True)
class TargetStory:
    """What was done to a target.

    Attributes:
        name: The target's.
        procedure: The class of the steps; empty for checks alone.
        verdict: How it ended: `failed` where something was checked and is not as it must be, `broken` where the run
            itself did not come to its end.
        reason: Why, in one sentence; empty where it passed.
        began: When its first event was written.
        ended: When its last was.
        is_cut_off: Whether the journal ends in the middle of it.
        steps: Of the procedure, in order.
        checks: What was looked at besides.
        phases: In the order in which they began.
        facts: What is known of what was done.
        plan: What a dry run would do.
        warnings: Sentences.
        drill: Where it was one.
        objectives: RTO and RPO.
        rows: Of each table that was counted.
    """

    name: str
    procedure: str
    verdict: Verdict
    reason: str
    began: datetime | None
    ended: datetime | None
    is_cut_off: bool
    steps: tuple[Step, ...]
    checks: tuple[Step, ...]
    phases: tuple[Phase, ...]
    facts: tuple[Facts, ...]
    plan: tuple[str, ...]
    warnings: tuple[str, ...]
    drill: Drill | None
    objectives: tuple[Objective, ...]
    rows: tuple[Rows, ...]

    @property
    def seconds(self) -> float:
        """Return how long it took."""
        return seconds_between(self.began, self.ended)

    @property
    def failures(self) -> tuple[Step, ...]:
        """Return the steps and the checks that failed."""
        return tuple(one for one in (*self.steps, *self.checks) if one.outcome == "failed")


@dataclass(frozen=True)
class Story:
    """A run.

    Attributes:
        environment: What it was about.
        action: What was done: `restore`; of several checks, the first one's name.
        began: When its first event was written; None for an empty journal.
        ended: When its last was.
        is_dry: Whether nothing was changed.
        is_cut_off: Whether the journal ends before the run did: it was killed.
        targets: The story of each.
        warnings: That are about no target.
        journal: The name of the journal's file, or empty.
        head: Of its chain of lines, which the JUnit XML has, too; or empty.
        status: pytest's exit status; None where nobody knows it.
    """

    environment: str
    action: str
    began: datetime | None
    ended: datetime | None
    is_dry: bool
    is_cut_off: bool
    targets: tuple[TargetStory, ...]
    warnings: tuple[str, ...]
    journal: str = ""
    head: str = ""
    status: int | None = None

    @property
    def verdict(self) -> Verdict:
        """Return how it ended: as its worst target did; a run without any confirmed nothing, and is broken."""
        if self.is_cut_off or not self.targets or self.is_at_odds:
            return "broken"
        return min((one.verdict for one in self.targets), key=VERDICTS.index)

    @property
    def is_at_odds(self) -> bool:
        """Tell whether pytest says that something went wrong, and no target does: some may not have been begun."""
        return bool(self.status) and all(one.verdict in ("passed", "planned") for one in self.targets)

    @property
    def seconds(self) -> float:
        """Return how long it took."""
        return seconds_between(self.began, self.ended)


def seconds_between(began: datetime | None, ended: datetime | None) -> float:
    """Return the seconds between two moments; 0 where one is not known."""
    return 0.0 if began is None or ended is None else max(0.0, (ended - began).total_seconds())
