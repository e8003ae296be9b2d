"""A rollback to another release that is killed at any moment: code and data go together, and the same command works.

`OPSPROOF_MOMENTS=40 pytest -m slow tests/acceptance/test_release_rollback_sweep.py` takes 40 moments.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.deploysweep import OLD, DeployGround, rollback_ground
from tests.lab.migrated import ROLLBACK
from tests.lab.moments import MOMENTS, Moment, kill_at, mixed_moments, rehearse, sweep
from tests.lab.postgres_server import PostgresServer

pytestmark = pytest.mark.slow

# How many moments each of the ways gets that a database may go: its revisions are undone, a backup comes back, or it
# stays. A dozen are few: the last one, of which the least can be said, goes without.
COUNTS = {"downgrade": 2, "backup": 1}
if MOMENTS > 12:
    COUNTS = {"downgrade": round(MOMENTS * 0.4), "backup": round(MOMENTS * 0.35), "stays": round(MOMENTS * 0.25)}


@pytest.fixture(scope="module", params=COUNTS)
def ground(request: pytest.FixtureRequest, wheel_postgres: PostgresServer) -> Iterator[tuple[str, DeployGround]]:
    way = request.param
    with rollback_ground(wheel_postgres, migrates=way != "stays", with_backup=way == "backup") as ground:
        yield way, ground


def test_a_release_rollback_killed_at_any_moment(ground: tuple[str, DeployGround]) -> None:
    way, lies = ground

    def attempt(moment: Moment) -> None:
        lies.reset()
        kill_at(lies, moment, ROLLBACK)
        lies.require_whole()
        lies.recover()
        with lies.begin(ROLLBACK) as begun:
            run = begun.finish()
        assert run.status == 0, run.output
        assert lies.require_settled() == OLD

    rehearsal = rehearse(lies, ROLLBACK)
    assert lies.require_settled() == OLD
    kind = f"release rollback, {way}"
    sweep(kind, mixed_moments(rehearsal, COUNTS[way], kind), attempt)
