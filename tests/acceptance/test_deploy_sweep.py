"""A deploy that is killed at any moment: what is live is whole, code and data belong together, and it recovers.

`OPSPROOF_MOMENTS=40 pytest -m slow tests/acceptance/test_deploy_sweep.py` takes 40 moments instead of 12.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from actions import test_deploy
from tests.lab.deployable import DEPLOY
from tests.lab.deploysweep import NEW, OLD, DeployGround, deploy_ground
from tests.lab.migrated import RECOVER
from tests.lab.moments import MOMENTS, Moment, kill_at, kill_when, mixed_moments, passed, rehearse, sweep
from tests.lab.postgres_server import PostgresServer

pytestmark = pytest.mark.slow

STEPS = [name for name in vars(test_deploy.TestDeploy) if name.startswith("test_")]
KINDS = ("migration", "code")
COUNTS = {"migration": max(2, round(MOMENTS * 0.4)), "code": max(2, round(MOMENTS * 0.2))}
# Where a kill leaves something else behind each; with many moments all of them, of either kind.
ENDS = [(kind, step) for kind in KINDS for step in STEPS]
if MOMENTS <= 12:
    ENDS = [("migration", "test_before_symlink"), ("migration", "test_update_database"), ("code", "test_flip")]
RECOVERED = KINDS if MOMENTS > 12 else KINDS[:1]


@pytest.fixture(scope="module", params=KINDS)
def ground(request: pytest.FixtureRequest, wheel_postgres: PostgresServer) -> Iterator[DeployGround]:
    with deploy_ground(wheel_postgres, migrates=request.param == "migration") as ground:
        yield ground


def kind_of(ground: DeployGround) -> str:
    return "migration" if ground.migrates else "code"


def test_a_deploy_killed_at_any_moment(ground: DeployGround) -> None:
    def attempt(moment: Moment) -> None:
        ground.reset()
        kill_at(ground, moment, DEPLOY)  # it has all that is asked of a ground
        ground.require_whole()
        ground.recover()

    ground.reset()
    rehearsal = rehearse(ground, DEPLOY)
    assert ground.require_settled() == NEW
    kind = f"deploy, {kind_of(ground)}"
    sweep(kind, mixed_moments(rehearsal, COUNTS[kind_of(ground)], kind), attempt)


@pytest.mark.parametrize(("ground", "step"), ENDS, indirect=["ground"])
def test_a_deploy_killed_between_two_steps(ground: DeployGround, step: str) -> None:
    ground.reset()
    kill_when(ground, passed(step), DEPLOY)
    ground.require_whole()
    # The first of its commits. Without anything to update it follows the stop faster than anybody can kill.
    is_done = ground.shop.app.heads() == ["coupon_01"] if ground.migrates else ground.shop.current != ground.first
    commit = "test_update_database" if ground.migrates else "test_flip"
    assert is_done or STEPS.index(step) < STEPS.index(commit)
    assert not is_done or STEPS.index(step) >= STEPS.index("test_stop_services")
    # From there on what was done can be proven and is finished.
    state = ground.recover()
    assert state == (NEW if is_done else OLD)
    if state == OLD:
        with ground.begin() as begun:
            run = begun.finish()
        assert run.status == 0, run.output
        assert ground.require_settled() == NEW


@pytest.mark.parametrize("ground", RECOVERED, indirect=True)
def test_a_recovery_that_is_killed_is_recovered_from(ground: DeployGround) -> None:
    def attempt(moment: Moment) -> None:
        ground.reset()
        kill_when(ground, passed("test_flip"), DEPLOY)
        kill_at(ground, moment, RECOVER)
        ground.require_whole()
        ground.recover()

    ground.reset()
    kill_when(ground, passed("test_flip"), DEPLOY)
    rehearsal = rehearse(ground, RECOVER)
    kind = f"recovery of a deploy, {kind_of(ground)}"
    sweep(kind, mixed_moments(rehearsal, max(1, MOMENTS // 12), kind), attempt)
