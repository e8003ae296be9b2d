"""Killing actions at many moments: some by the clock, some at each of the changes that they make.

OPSPROOF_MOMENTS is how many, 12 by default. OPSPROOF_SEED, which is told with a failure, brings the same ones again.
"""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tests.lab.action_run import REPOSITORY, Begun, Project
from tests.lab.ground import RESTORE, Ground

MOMENTS = int(os.environ.get("OPSPROOF_MOMENTS", "12"))
SEED = int(os.environ.get("OPSPROOF_SEED", "0")) or random.SystemRandom().randrange(1 << 30)
CUT = "tests.lab.cut"
# A change that is cut short rather than left out ends this much later at most.
CHANGE_SECONDS = 0.05
RUN_SECONDS = 60.0

Event = dict[str, Any]


class Stage(Protocol):
    """Where actions are begun."""

    @property
    def project(self) -> Project: ...

    def begin(
        self, action: str, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Begun]: ...


@dataclass(frozen=True)
class Moment:
    """When to kill: `seconds` after a change has begun, 0 before it; without a change, after the journal's first line.

    `what` is the change in words.
    """

    seconds: float
    change: int | None = None
    what: str = ""

    def __str__(self) -> str:
        return f"{self.seconds:.3f} s after {f'change {self.change}, {self.what}' if self.what else 'it began'}"


@dataclass(frozen=True)
class Rehearsal:
    """A run that nobody disturbs: its seconds from the first line of its journal on, and its changes."""

    seconds: float
    changes: tuple[str, ...]


def share(parts: int) -> int:
    """Return how many moments each of several variants gets."""
    return max(2, -(-MOMENTS // parts))


def clock_moments(seconds: float, count: int, kind: str) -> list[Moment]:
    """Return one moment in each of as many equal parts: chance alone leaves gaps."""
    dice = random.Random(f"{SEED} {kind}")
    return [Moment(seconds * (number + dice.random()) / count) for number in range(count)]


def mixed_moments(rehearsal: Rehearsal, count: int, kind: str) -> list[Moment]:
    """Return moments by the clock and, no fewer, at changes spread over all of them."""
    dice = random.Random(f"{SEED} {kind} changes")
    changes, half = rehearsal.changes, -(-count // 2)
    assert changes, "it changes nothing"
    chosen = sorted({int(len(changes) * (number + dice.random()) / half) for number in range(half)})
    cut = [
        Moment(dice.choice((0.0, CHANGE_SECONDS * dice.random())), number, changes[number][:80]) for number in chosen
    ]
    return cut + clock_moments(rehearsal.seconds, count - len(cut), kind) if count > len(cut) else cut


def rehearse(ground: Stage, action: str = RESTORE, *arguments: str) -> Rehearsal:
    """Run an action without disturbing it, which must succeed."""
    environ = _watching(ground)
    with ground.begin(action, "-p", CUT, *arguments, environ=environ) as begun:
        begun.wait_until(lambda: begun.events() != ())
        started = time.monotonic()
        run = begun.finish()
        seconds = time.monotonic() - started
    assert run.status == 0, run.output
    return Rehearsal(seconds, tuple(Path(environ["CUT_LIST"]).read_text().splitlines()))


def kill_at(ground: Stage, moment: Moment, action: str = RESTORE, *arguments: str) -> None:
    """Run an action and kill it, unless it is over by then."""
    if moment.change is None:
        with ground.begin(action, *arguments) as begun:
            begun.wait_until(lambda: begun.events() != ())
            time.sleep(moment.seconds)
            begun.send(signal.SIGKILL)
            begun.process.wait(10)
        return
    environ = {**_watching(ground), "CUT_AT": str(moment.change), "CUT_SECONDS": str(moment.seconds)}
    with ground.begin(action, "-p", CUT, *arguments, environ=environ) as begun:
        run = begun.finish(RUN_SECONDS)
    # A change that the run waits for long may outlive the time that was given, the last ones the run itself.
    assert run.status in (-signal.SIGKILL, 0), run.output


def kill_when(ground: Stage, happened: Callable[[Event], bool], action: str = RESTORE, *arguments: str) -> None:
    """Kill an action once its journal has an event; it is stopped before anything else is looked at."""
    with ground.begin(action, *arguments) as begun:
        begun.wait_until(lambda: any(happened(event) for event in begun.events()), RUN_SECONDS)
        begun.send(signal.SIGSTOP)
        begun.send(signal.SIGKILL)
        assert begun.process.wait(10) == -signal.SIGKILL


def phase(name: str) -> Callable[[Event], bool]:
    """Tell a phase's beginning."""
    return lambda event: event["event"] == "phase begins" and event["phase"] == name


def passed(step: str) -> Callable[[Event], bool]:
    """Tell a step's end."""
    return lambda event: event["event"] == "step" and event["step"] == step


def sweep(kind: str, moments: Sequence[Moment], attempt: Callable[[Moment], None]) -> None:
    """Attempt something at one moment after the other, and tell all that went wrong, not only the first.

    Raises:
        AssertionError: Something went wrong.
    """
    failures = []
    for number, moment in enumerate(moments):
        try:
            attempt(moment)
        except Exception as error:
            where = "".join(traceback.format_tb(error.__traceback__)[-2:])
            failures.append(f"{kind} {number}, {moment}: {type(error).__name__}: {error}\n{where}")
            print(failures[-1], flush=True)
    assert not failures, f"OPSPROOF_SEED={SEED}\n" + "\n\n".join(failures)


def require_recovery(ground: Ground, *, parked: int | None = None) -> str:
    """Check that a recovery exits with 0 and leaves nothing; return which database is live.

    What was live may have changed only from new to old, and is what it was before a restore where there was nothing.
    """
    before = ground.require_whole()
    ground.require_refusal()
    run = ground.recover()
    assert run.status == 0, run.output
    after = ground.require_settled(parked=parked)
    assert (before, after) in {("old", "old"), ("new", "new"), ("new", "old"), ("gone", "old")}, run.output
    return after


def _watching(ground: Stage) -> dict[str, str]:
    handle, name = tempfile.mkstemp(prefix="changes-", dir=ground.project.folder)
    os.close(handle)
    return {"PYTHONPATH": str(REPOSITORY), "CUT_LIST": name}
