"""A rollback that is killed at any moment, or whose server or Alembic is: the live database is whole, and recovers.

`OPSPROOF_MOMENTS=40 pytest -m slow tests/acceptance/test_rollback_sweep.py` takes 40 moments instead of 12; the seeds
that are printed with a failure bring the same ones again by OPSPROOF_SEED.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from actions import test_rollback
from tests.lab.action_run import Begun
from tests.lab.crash import end_children
from tests.lab.migrated import RECOVER, ROLLBACK
from tests.lab.moments import (
    MOMENTS,
    Event,
    Moment,
    clock_moments,
    kill_at,
    kill_when,
    mixed_moments,
    passed,
    phase,
    rehearse,
    require_recovery,
    sweep,
)
from tests.lab.postgres_server import SYSTEM, WHEEL
from tests.lab.rollbacksweep import CHAINS, UNDOING_SECONDS, Chain, Slope, find_agent, prepared_slope

pytestmark = pytest.mark.slow

STEPS = [name for name in vars(test_rollback.TestSchemaRollback) if name.startswith("test_")]
# Most of the moments go to the chains that are one transaction, as most chains are.
COUNTS = {chain: max(2, round(MOMENTS * (0.125 if chain.per_migration else 0.375))) for chain in CHAINS}
FEWER = max(2, MOMENTS // 6)
# With a dozen moments one chain has to do where all are not looked at for the moments.
SOME = CHAINS if MOMENTS > 12 else [Chain(SYSTEM, per_migration=True)]
FEW = [Chain(WHEEL), Chain(SYSTEM, per_migration=True)][: 2 if MOMENTS > 12 else 1]
# Up to the outage both kinds of chain are the same.
OUTAGE = STEPS[STEPS.index("test_stop_services") :]
ENDS = [(Chain(WHEEL), step) for step in STEPS]
if MOMENTS > 12:
    ENDS += [(Chain(SYSTEM, per_migration=True), step) for step in OUTAGE]
# Each stage, with a dozen moments every third one, on one of the servers; at the last ones what is left is the
# rehearsal's database without an intent.
LEFT: list[tuple[Chain, str, Callable[[Event], bool]]] = [
    (Chain(WHEEL), "building", phase("rehearse")),
    (Chain(SYSTEM), "stopping", passed("test_stop_services")),
    (Chain(SYSTEM), "migrating", phase("migrate")),
    (Chain(WHEEL), "migrated", passed("test_undo_revisions")),
    (Chain(WHEEL, per_migration=True), "migrating a copy", phase("migrate")),
    (Chain(SYSTEM, per_migration=True), "swapped", passed("test_undo_revisions")),
][:: 1 if MOMENTS > 12 else 3]


@pytest.fixture(scope="module", params=CHAINS, ids=str)
def prepared(request: pytest.FixtureRequest) -> Iterator[Slope]:
    with prepared_slope(request.param) as slope:
        yield slope


@pytest.fixture
def slope(prepared: Slope) -> Slope:
    prepared.reset()
    return prepared


def require_another(slope: Slope, after: str) -> None:
    """Check that a rollback passes, and before it, where one has been finished already, that it can be taken back."""
    if after == "new":
        undo(slope)
    slope.restore()
    assert slope.require_settled(parked=(after == "new") + 1) == "new"


def undo(slope: Slope) -> None:
    with slope.begin(RECOVER, "--undo") as begun:
        run = begun.finish()
    assert run.status == 0, run.output
    assert slope.require_settled(parked=1) == "old"


def while_undoing(slope: Slope, disturb: Callable[[Begun], None], moment: Moment) -> Begun:
    """Begin a rollback, and disturb it a moment after its downgrade has begun; it may go on."""
    slope.reset()
    with slope.begin() as begun:
        begun.wait_until(lambda: any(phase("rehearse")(event) for event in begun.events()), 60)
        # The application works until it is stopped; after a crash the server goes on with a later number than the next.
        with slope.application.connect() as connection:
            connection.execute("SELECT nextval('ir_attachment_id_seq')")
        begun.wait_until(lambda: slope.undoing() != [], 60)
        time.sleep(moment.seconds)
        disturb(begun)
        begun.process.wait(120)
    return begun


def test_a_rollback_killed_at_any_moment(slope: Slope) -> None:
    def attempt(moment: Moment) -> None:
        slope.reset()
        kill_at(slope, moment, ROLLBACK)
        require_another(slope, require_recovery(slope))

    rehearsal = rehearse(slope, ROLLBACK)
    assert slope.require_settled() == "new"
    kind = f"rollback, {slope.variant}"
    sweep(kind, mixed_moments(rehearsal, COUNTS[slope.chain], kind), attempt)


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_a_rollback_killed_while_it_undoes_revisions(slope: Slope) -> None:
    def attempt(moment: Moment) -> None:
        while_undoing(slope, lambda begun: begun.send(signal.SIGKILL), moment)
        require_another(slope, require_recovery(slope))

    kind = f"undoing, {slope.variant}"
    sweep(kind, clock_moments(UNDOING_SECONDS, FEWER, kind), attempt)


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_a_rollback_killed_with_its_runner(slope: Slope) -> None:
    """Another machine recovers: of the one that is gone it knows nothing."""

    def attempt(moment: Moment) -> None:
        while_undoing(slope, lambda begun: begun.send(signal.SIGKILL), moment)
        end_children(slope.project)
        before, elsewhere = slope.require_whole(), slope.move_elsewhere()
        run = slope.recover(elsewhere)
        assert run.status == 0, run.output
        assert (before, slope.require_settled(elsewhere)) in {("old", "old"), ("new", "new")}

    kind = f"runner, {slope.variant}"
    sweep(kind, clock_moments(UNDOING_SECONDS, 1, kind), attempt)


@pytest.mark.parametrize(
    ("prepared", "step"), ENDS, indirect=["prepared"], ids=[f"{chain}-{step}" for chain, step in ENDS]
)
def test_a_rollback_killed_between_two_steps(slope: Slope, step: str) -> None:
    kill_when(slope, passed(step), ROLLBACK)
    is_undone = STEPS.index(step) >= STEPS.index("test_undo_revisions")
    assert require_recovery(slope) == ("new" if is_undone else "old")


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_alembic_killed_while_it_undoes_revisions(slope: Slope) -> None:
    """Its transaction is undone, or the copy that it was at work on is dropped; the run ends with what was before."""

    def strike(begun: Begun) -> None:
        with suppress(ProcessLookupError):
            os.kill(find_agent(begun), signal.SIGKILL)

    def attempt(moment: Moment) -> None:
        begun = while_undoing(slope, strike, moment)
        run = begun.finish()
        assert run.status == 1, run.output
        assert run.failed_step().step == "test_undo_revisions", run.output
        assert "ended without an answer" in run.failed_step().message
        assert slope.require_settled() == "old"
        slope.restore()
        assert slope.require_settled(parked=1) == "new"

    # At the very end of it the answer may be there already.
    kind = f"alembic, {slope.variant}"
    sweep(kind, clock_moments(UNDOING_SECONDS / 2, FEWER, kind), attempt)


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_the_server_crashes_while_revisions_are_undone(slope: Slope) -> None:
    def attempt(moment: Moment) -> None:
        run = while_undoing(slope, lambda _: slope.crashing.crash(), moment).finish()
        live = slope.require_whole()
        if run.status == 0:
            assert slope.require_settled() == "new"
        else:
            # Every wait for a server that comes back is longer than this one takes.
            assert "THE UNDO FAILED" not in run.output, run.output
            assert slope.require_settled() == live, run.output
        assert require_recovery(slope) == live
        require_another(slope, live)

    kind = f"server, {slope.variant}"
    sweep(kind, clock_moments(UNDOING_SECONDS, FEWER, kind), attempt)


@pytest.mark.parametrize(
    ("prepared", "stage", "left_at"), LEFT, indirect=["prepared"], ids=[f"{chain}-{stage}" for chain, stage, _ in LEFT]
)
def test_a_recovery_killed_at_any_moment(slope: Slope, stage: str, left_at: Callable[[Event], bool]) -> None:
    def leave() -> str:
        slope.reset()
        kill_when(slope, left_at, ROLLBACK)
        return slope.require_whole()

    def attempt(moment: Moment) -> None:
        before = leave()
        kill_at(slope, moment, RECOVER)
        assert require_recovery(slope) == before
        require_another(slope, before)

    leave()
    rehearsal = rehearse(slope, RECOVER)
    slope.require_settled()
    kind = f"recover, {stage}, {slope.variant}"
    sweep(kind, mixed_moments(rehearsal, FEWER, kind), attempt)


@pytest.mark.parametrize("prepared", FEW, indirect=True, ids=str)
def test_an_undo_killed_at_any_moment(slope: Slope) -> None:
    def attempt(moment: Moment) -> None:
        slope.reset()
        slope.restore()
        kill_at(slope, moment, RECOVER, "--undo")
        if require_recovery(slope, parked=1) == "new":
            undo(slope)

    slope.restore()
    rehearsal = rehearse(slope, RECOVER, "--undo")
    assert slope.require_settled(parked=1) == "old"
    kind = f"undo, {slope.variant}"
    sweep(kind, mixed_moments(rehearsal, FEWER, kind), attempt)


@pytest.mark.parametrize("prepared", FEW, indirect=True, ids=str)
def test_a_copy_does_not_outlive_its_run(slope: Slope) -> None:
    """Else the server finished it after the recovery, and left a database that nobody accounts for."""
    with slope.begin() as begun, slope.copying_held(begun) as held:
        begun.send(signal.SIGKILL)
        begun.process.wait(10)
        with slope.begin(RECOVER) as recovering:
            recovering.wait_until(lambda: any(event["event"] == "step" for event in recovering.events()))
            held.release()
            run = recovering.finish()
    assert run.status == 0, run.output
    assert slope.require_settled() == "old"
    require_another(slope, "old")


@pytest.mark.parametrize("prepared", SOME, indirect=True, ids=str)
def test_an_undo_counts_what_was_written_before_the_recovery(slope: Slope) -> None:
    """The services of a killed rollback may have been at work for hours until somebody recovers from it."""
    kill_when(slope, passed("test_start_services"), ROLLBACK)
    with slope.application.connect() as connection:
        connection.execute("INSERT INTO orders (id, name) VALUES (9999, 'since')")
    run = slope.recover()
    assert run.status == 0, run.output
    with slope.begin(RECOVER, "--undo", "--dry-run") as begun:
        run = begun.finish()
    assert "LOSE 1 rows written to public.orders since" in run.output
