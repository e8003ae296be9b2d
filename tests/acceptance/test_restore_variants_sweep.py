"""The other kinds of restore, killed at any moment: `--in-place`, and with files that are exchanged.

In place, what was live is live, or comes back from its safety backup. Files and database belong together, or the
service is down.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest

from tests.lab.ground import RECOVER
from tests.lab.moments import (
    MOMENTS,
    Moment,
    Rehearsal,
    kill_at,
    mixed_moments,
    passed,
    phase,
    rehearse,
    require_recovery,
    share,
    sweep,
)
from tests.lab.postgres_server import SYSTEM, WHEEL
from tests.lab.sweeping import Ground, Variant, prepared_ground

pytestmark = pytest.mark.slow

IN_PLACE = [Variant(WHEEL, in_place=True), Variant(SYSTEM, exchanged=True, in_place=True)]
VARIANTS = [Variant(WHEEL, exchanged=True), *IN_PLACE]
if MOMENTS > 12:
    IN_PLACE += [Variant(SYSTEM, in_place=True), Variant(WHEEL, exchanged=True, in_place=True)]
    VARIANTS = [*(Variant(server, exchanged=True) for server in (WHEEL, SYSTEM)), *IN_PLACE]
EACH = share(6)


@pytest.fixture(scope="module")
def ground(request: pytest.FixtureRequest) -> Iterator[Ground]:
    with prepared_ground(request.param) as ground:
        yield ground


@pytest.fixture(scope="module")
def rehearsal(ground: Ground) -> Rehearsal:
    ground.reset()
    rehearsal = rehearse(ground)
    assert ground.require_settled() == "new"
    return rehearsal


@pytest.mark.parametrize("ground", VARIANTS, indirect=True, ids=str)
def test_a_restore_killed_at_any_moment(ground: Ground, rehearsal: Rehearsal) -> None:
    def attempt(moment: Moment) -> None:
        ground.reset()
        kill_at(ground, moment)
        live = require_recovery(ground)
        ground.restore()
        kept = 0 if ground.variant.in_place else (live == "new") + 1
        assert ground.require_settled(parked=kept) == "new"

    kind = f"restore, {ground.variant}"
    sweep(kind, mixed_moments(rehearsal, EACH, kind), attempt)


@pytest.mark.parametrize("ground", IN_PLACE, indirect=True, ids=str)
def test_a_drop_that_outlives_its_run_is_waited_for(ground: Ground) -> None:
    """The server goes on with it after the kill: the live database is there still, and soon is not."""
    dropping = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DROP DATABASE%'"
    ground.reset()
    with ground.server.connect() as holder, ground.server.connect() as watcher:
        with ground.begin() as begun:
            begun.wait_until(lambda: any(phase("stop")(event) for event in begun.events()))
            # Where the comments of databases are, which go with them.
            holder.execute("BEGIN; LOCK TABLE pg_catalog.pg_shdescription IN SHARE MODE")
            begun.wait_until(lambda: watcher.execute(dropping.encode()).fetchone() is not None)
            begun.send(signal.SIGKILL)
            begun.process.wait(10)
        with ground.begin(RECOVER) as recovering:
            recovering.wait_until(lambda: any(passed("test_take_lock")(event) for event in recovering.events()))
            time.sleep(0.5)
            holder.execute("ROLLBACK")
            run = recovering.finish()
    assert run.status == 0, run.output
    assert "is built anew from the safety backup" in run.output
    assert ground.require_settled() == "old"
