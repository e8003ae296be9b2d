"""A restore that is killed at any moment, or whose server, service or pg_restore is: the live name is always whole.

`OPSPROOF_MOMENTS=60 pytest -m slow tests/acceptance/test_restore_sweep.py` takes 60 moments instead of 12; the seeds
that are printed with a failure bring the same ones again by OPSPROOF_SEED.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from actions import test_restore
from tests.lab.action_run import ActionRun, Begun, Project
from tests.lab.crash import end_children, find_child
from tests.lab.moments import MOMENTS, Moment, clock_moments, rehearse, sweep
from tests.lab.postgres_server import SYSTEM, WHEEL
from tests.lab.sweeping import Ground, Variant, prepared_ground
from tests.lab.waiting import await_true

pytestmark = pytest.mark.slow

STEPS = [name for name in vars(test_restore.TestRestore) if name.startswith("test_")]
# A child, a server or a service that is killed makes other code run each time, but less of it.
FEWER = max(3, MOMENTS // 4)
SERVERS = [Variant(WHEEL), Variant(SYSTEM)]
# With a dozen moments all but those are looked at on one of the servers.
SOME = SERVERS if MOMENTS > 12 else SERVERS[1:]
ENDS = [(Variant(WHEEL), step) for step in STEPS]
if MOMENTS > 12:
    ENDS += [(Variant(SYSTEM), step) for step in STEPS]


@pytest.fixture(scope="module", params=SERVERS, ids=str)
def prepared(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with prepared_ground(request.param) as ground:
        yield ground


@pytest.fixture
def ground(prepared: Ground) -> Ground:
    prepared.reset()
    return prepared


@pytest.fixture(scope="module")
def duration(prepared: Ground) -> float:
    """Seconds of a restore that nobody disturbs, from the first line of its journal on."""
    prepared.reset()
    seconds = rehearse(prepared).seconds
    assert prepared.require_settled() == "new"
    return seconds


def disturb_restores(
    ground: Ground, duration: float, moments: int, disturb: Callable[[Begun, float], None], kind: str
) -> None:
    """Disturb one restore after the other, each at another moment."""

    def attempt(moment: Moment) -> None:
        ground.reset()
        with ground.begin() as begun:
            begun.wait_until(lambda: begun.events() != ())
            disturb(begun, moment.seconds)

    kind = f"{kind}, {ground.variant}"
    sweep(kind, clock_moments(duration, -(-moments // len(SERVERS)), kind), attempt)


def require_recovery(ground: Ground, before: str, project: Project | None = None) -> None:
    """Check that a recovery exits with 0 and leaves nothing; what was live may have changed only from new to old."""
    run = ground.recover(project)
    assert run.status == 0, run.output
    after = ground.require_settled(project)
    assert (before, after) != ("old", "new"), run.output


def kill(ground: Ground, begun: Begun) -> str:
    begun.send(signal.SIGKILL)
    begun.process.wait(10)
    return ground.require_whole()


def require_undone_or_told(ground: Ground, run: ActionRun) -> None:
    """Check the end of a restore that was disturbed but not killed."""
    live = ground.require_whole()
    if run.status == 0:
        assert ground.require_settled() == "new"
    elif "test_recover.py" not in run.output:
        assert ground.require_settled() == "old", run.output
    require_recovery(ground, live)


def test_a_restore_killed_at_random_moments(ground: Ground, duration: float) -> None:
    def disturb(begun: Begun, moment: float) -> None:
        time.sleep(moment)
        require_recovery(ground, kill(ground, begun))

    disturb_restores(ground, duration, MOMENTS, disturb, "kill")


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_a_restore_killed_with_its_runner(ground: Ground, duration: float) -> None:
    """Another machine recovers: of the one that is gone it knows nothing."""

    def disturb(begun: Begun, moment: float) -> None:
        time.sleep(moment)
        before = kill(ground, begun)
        end_children(ground.project)
        require_recovery(ground, before, ground.move_elsewhere())

    disturb_restores(ground, duration, FEWER, disturb, "runner")


@pytest.mark.parametrize(("prepared", "step"), ENDS, indirect=["prepared"])
def test_a_restore_killed_between_two_steps(ground: Ground, step: str) -> None:
    with ground.begin() as begun:
        begun.wait_until(lambda: any(event.get("step") == step for event in begun.events()), 60)
        before = kill(ground, begun)
    swapped = STEPS.index(step) >= STEPS.index("test_swap")
    assert before == ("new" if swapped else "old")
    require_recovery(ground, before)
    assert ground.require_whole() == before


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_pg_restore_killed(ground: Ground, duration: float) -> None:
    def disturb(begun: Begun, moment: float) -> None:
        def strike() -> bool:
            pid = find_child(ground.project, "pg_restore")
            if pid is not None and any(event.get("phase") == "load" for event in begun.events()):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                    return True
            return begun.process.poll() is not None

        await_true(strike, "pg_restore never ran", 60)
        run = begun.finish()
        assert run.status == 1
        assert ground.require_settled() == "old"
        require_recovery(ground, "old")

    disturb_restores(ground, duration, FEWER, disturb, "pg_restore")


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_the_server_crashes_at_random_moments(ground: Ground, duration: float) -> None:
    def disturb(begun: Begun, moment: float) -> None:
        time.sleep(moment)
        ground.crashing.crash()
        require_undone_or_told(ground, begun.finish())

    disturb_restores(ground, duration, FEWER, disturb, "server")


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_the_service_is_killed_at_random_moments(ground: Ground, duration: float) -> None:
    def disturb(begun: Begun, moment: float) -> None:
        time.sleep(moment)
        pid = ground.service.pid
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        require_undone_or_told(ground, begun.finish())

    disturb_restores(ground, duration, FEWER, disturb, "service")


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_two_signals_in_a_row_at_random_moments(ground: Ground, duration: float) -> None:
    """The first is undone, the second does not cut that short."""

    def disturb(begun: Begun, moment: float) -> None:
        # Before the steps begin a signal ends pytest on the spot, and there is nothing to undo.
        begun.wait_until(lambda: any(event["event"] == "step" for event in begun.events()))
        time.sleep(moment)
        for _ in range(2):
            if begun.process.poll() is None:
                begun.send(signal.SIGTERM)
                time.sleep(0.1)
        run = begun.finish()
        live = ground.require_settled()
        assert run.status in (0, 1, 2), run.output
        assert live == ("new" if run.outcomes().get("test_finish") == "passed" else "old"), run.output

    disturb_restores(ground, duration, FEWER, disturb, "signals")
