"""A drill that is killed at any moment, and many drills in a row: what is served never notices, and nothing is left.

`OPSPROOF_MOMENTS=30 pytest -m slow tests/acceptance/test_drill_sweep.py` takes 30 moments instead of 12; the seed that
is printed with a failure brings the same ones again by OPSPROOF_SEED.
"""

from __future__ import annotations

import pytest

from tests.lab.drilling import DRILL, DrillGround, drill_ground
from tests.lab.moments import MOMENTS, Moment, kill_at, mixed_moments, rehearse, sweep
from tests.lab.moto_server import S3Server, moto_server
from tests.lab.postgres_server import PostgresServer
from tests.lab.trialserver import TRACE
from tests.lab.waiting import await_true

__all__ = ["moto_server"]

pytestmark = pytest.mark.slow
pytest_plugins = ["tests.lab.drilling"]

IN_A_ROW = 10
# So many are killed before one is not.
BETWEEN = 3


def test_a_drill_killed_at_random_moments(ground: DrillGround) -> None:
    """What is live is untouched, the application is gone with the drill, and the next drill removes the rest."""
    ground.describe(**ground.starting("well"))
    before = ground.look()
    rehearsal = rehearse(ground, DRILL)
    ground.require_untouched(before)
    moments = mixed_moments(rehearsal, MOMENTS, "drill")
    left = []

    def attempt(moment: Moment) -> None:
        kill_at(ground, moment, DRILL)
        await_true(lambda: ground.project.processes() == [], "something outlives the drill")
        ground.require_untouched(before)
        left.extend(ground.left())
        # What several have left is more to remove than what one has.
        if moments.index(moment) % BETWEEN and moment is not moments[-1]:
            return
        run = ground.drill()
        assert run.status == 0, run.output
        ground.require_untouched(before)
        ground.require_nothing_left()

    sweep("drill", moments, attempt)
    # Otherwise the kills came when there was nothing to leave.
    assert any("__scratch_" in one for one in left), left


def test_ten_drills_in_a_row_leave_nothing(wheel_postgres: PostgresServer, moto_server: S3Server) -> None:
    with drill_ground(wheel_postgres, s3=moto_server) as ground:
        ground.describe(**ground.starting("well"))
        before, bucket = ground.look(), ground.bucket
        assert bucket is not None
        stored = bucket.keys()
        for number in range(IN_A_ROW):
            run = ground.drill()
            assert run.status == 0, run.output
            assert len(run.named("drill history")[0]["history"]) == number
        ground.require_untouched(before)
        ground.require_nothing_left()
        assert TRACE not in repr(ground.look())
        assert (bucket.keys(), bucket.unfinished()) == (stored, [])
        journals = [name for name in bucket.journals() if name.startswith("drill_")]
        assert len(journals) == IN_A_ROW
        with ground.shop.server.connect() as connection:
            query = "SELECT datname FROM pg_database WHERE datname LIKE '%\\_\\_scratch\\_%'"
            assert connection.execute(query).fetchall() == []
