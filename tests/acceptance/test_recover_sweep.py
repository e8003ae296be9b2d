"""Recovering, and undoing, killed at any moment in its turn: another recovery brings it to its end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest

from tests.lab.ground import RECOVER
from tests.lab.moments import (
    MOMENTS,
    Event,
    Moment,
    kill_at,
    kill_when,
    mixed_moments,
    passed,
    phase,
    rehearse,
    require_recovery,
    share,
    sweep,
)
from tests.lab.offended import offended
from tests.lab.postgres_server import SYSTEM, WHEEL
from tests.lab.sweeping import Ground, Variant, prepared_ground

pytestmark = pytest.mark.slow

ILL = "swapped, and ill"
# Each stage, with a dozen moments every third one, on one of the servers, with one of the filestores.
LEFT = [
    (Variant(WHEEL), "building", phase("load")),
    (Variant(SYSTEM, exchanged=True), "built", passed("test_add_files")),
    (Variant(SYSTEM), "stopping", passed("test_stop_services")),
    (Variant(WHEEL, exchanged=True), "swapped", passed("test_swap")),
    (Variant(SYSTEM, in_place=True), "dropped", phase("load")),
    (Variant(WHEEL, exchanged=True, in_place=True), "dropped, with files", passed("test_add_files")),
    (Variant(SYSTEM, exchanged=True), ILL, passed("test_swap")),
    (Variant(SYSTEM, exchanged=True, in_place=True), ILL, passed("test_swap")),
][:: 1 if MOMENTS > 12 else 3]
# Nothing was live before: where a server is made anew.
LOST = [
    (variant, stage, left_at)
    for variant in (Variant(SYSTEM, in_place=True), Variant(WHEEL))[: 2 if MOMENTS > 12 else 1]
    for stage, left_at in (
        ("building", phase("load")),
        ("stopping", passed("test_stop_services")),
        ("swapped", passed("test_swap")),
    )
]
UNDONE = [Variant(WHEEL, exchanged=True), Variant(SYSTEM), Variant(SYSTEM, exchanged=True)][: 3 if MOMENTS > 12 else 1]
EACH = share(len(LEFT) + len(UNDONE))


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with prepared_ground(request.param) as ground:
        yield ground


@pytest.mark.parametrize(
    ("ground", "stage", "left_at"), LEFT, indirect=["ground"], ids=[f"{variant}-{stage}" for variant, stage, _ in LEFT]
)
def test_a_recovery_killed_at_any_moment(ground: Ground, stage: str, left_at: Callable[[Event], bool]) -> None:
    def leave() -> None:
        ground.reset()
        kill_when(ground, left_at)

    def health() -> AbstractContextManager[None]:
        return offended(ground, "new") if stage == ILL else nullcontext()

    def attempt(moment: Moment) -> None:
        leave()
        before = ground.require_whole()
        with health():
            kill_at(ground, moment, RECOVER)
            after = require_recovery(ground)
        assert after == ("new" if before == "new" and stage != ILL else "old")
        ground.restore()
        assert ground.require_settled(parked=None if ground.variant.in_place else (after == "new") + 1) == "new"

    leave()
    with health():
        rehearsal = rehearse(ground, RECOVER)
    ground.require_settled()
    kind = f"recover, {stage}, {ground.variant}"
    sweep(kind, mixed_moments(rehearsal, EACH, kind), attempt)


@pytest.mark.parametrize("ground", UNDONE, indirect=True, ids=str)
def test_an_undo_killed_at_any_moment(ground: Ground) -> None:
    """It is finished by the next recovery, or taken back, and can then be had again."""

    def restore() -> None:
        ground.reset()
        ground.restore()

    def attempt(moment: Moment) -> None:
        restore()
        kill_at(ground, moment, RECOVER, "--undo")
        if require_recovery(ground, parked=1) == "new":
            with ground.begin(RECOVER, "--undo") as begun:
                run = begun.finish()
            assert run.status == 0, run.output
            assert ground.require_settled(parked=1) == "old"
        ground.restore()
        assert ground.require_settled(parked=2) == "new"

    restore()
    rehearsal = rehearse(ground, RECOVER, "--undo")
    assert ground.require_settled(parked=1) == "old"
    kind = f"undo, {ground.variant}"
    sweep(kind, mixed_moments(rehearsal, EACH, kind), attempt)


@pytest.mark.parametrize("ground", UNDONE, indirect=True, ids=str)
def test_a_killed_undo_whose_database_does_not_pass_is_taken_back(ground: Ground) -> None:
    ground.reset()
    ground.restore()
    changes = rehearse(ground, RECOVER, "--undo").changes
    assert ground.require_settled(parked=1) == "old"
    ground.reset()
    ground.restore()
    start = next(number for number, change in enumerate(changes) if change.endswith("start application"))
    finished = max(number for number, change in enumerate(changes[:start]) if change == "COMMIT")
    kill_at(ground, Moment(0.0, finished, changes[finished]), RECOVER, "--undo")
    assert ground.require_whole() == "old"
    with ground.server.connect() as connection:
        assert set(ground.stages(connection).values()) == {"swapped"}
    with offended(ground, "old"):
        run = ground.recover()
    assert run.status == 0, run.output
    assert ground.require_settled(parked=1) == "new"
    with ground.begin(RECOVER, "--undo") as begun:
        run = begun.finish()
    assert run.status == 0, run.output
    assert ground.require_settled(parked=1) == "old"


@pytest.mark.parametrize(
    ("ground", "stage", "left_at"), LOST, indirect=["ground"], ids=[f"{variant}-{stage}" for variant, stage, _ in LOST]
)
def test_a_killed_restore_onto_a_server_without_the_database_is_cleared_away(
    ground: Ground, stage: str, left_at: Callable[[Event], bool]
) -> None:
    """It says that there is no database, as before; and then there is nothing in the way of the next restore."""
    ground.reset()
    ground.lose()
    kill_when(ground, left_at)
    with ground.server.connect() as connection:
        assert set(ground.stages(connection).values()) == {stage}
    ground.require_refusal()
    run = ground.recover()
    with ground.server.connect() as connection:
        assert ground.stages(connection) == {}
        left = ground.databases(connection)
    if stage == "swapped":
        assert run.status == 0, run.output
        assert ground.require_settled(parked=0) == "new"
    else:
        assert left == []
        assert run.outcomes()["test_bring_to_an_end"] == "passed", run.output
        assert run.failed_step().step == "test_application_is_whole"
        assert f"Database '{ground.application.name}' does not exist" in run.failed_step().message
        ground.restore()
        assert ground.require_settled(parked=0) == "new"
