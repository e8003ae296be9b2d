"""`pytest actions/test_recover.py` after a restore that was killed: one directed moment for each stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from psycopg import sql

from tests.lab.moments import Event, kill_when, passed, phase
from tests.lab.sweeping import RESTORE, Ground, prepared_ground


@pytest.fixture(scope="module")
def prepared() -> Iterator[Ground]:
    with prepared_ground() as ground:
        yield ground


@pytest.fixture
def ground(prepared: Ground) -> Ground:
    prepared.reset()
    return prepared


@pytest.mark.parametrize(
    ("moment", "stage", "left", "ended"),
    [
        (phase("load"), "building", "old", "is dropped"),
        (passed("test_stop_services"), "stopping", "old", "runs again"),
        (passed("test_swap"), "swapped", "new", "is finished"),
    ],
    ids=["building", "stopping", "swapped"],
)
def test_a_killed_restore_is_brought_to_an_end(
    ground: Ground, moment: Callable[[Event], bool], stage: str, left: str, ended: str
) -> None:
    kill_when(ground, moment)
    assert ground.require_whole() == left
    with ground.server.connect() as connection:
        assert set(ground.stages(connection).values()) == {stage}

    again = ground.project.run(action=RESTORE, env="staging")
    assert again.status == 1
    refusal = again.failed_step()
    assert refusal.step == "test_nothing_is_unfinished"
    assert f"{stage}, begun" in refusal.message
    assert "pytest actions/test_recover.py --env=staging --target=shop" in refusal.message
    assert ground.require_whole() == left

    run = ground.recover()
    assert run.status == 0, run.output
    assert ended in run.output
    assert ground.require_settled() == left


def test_a_runner_that_knows_nothing_recovers_what_another_left(ground: Ground) -> None:
    kill_when(ground, passed("test_swap"))
    elsewhere = ground.move_elsewhere()
    run = ground.recover(elsewhere)
    assert run.status == 0, run.output
    assert ground.require_settled(elsewhere) == "new"


def test_where_nothing_is_unfinished_nothing_is_changed(ground: Ground) -> None:
    run = ground.recover()
    assert run.status == 0, run.output
    assert "nothing was unfinished" in run.output
    assert ground.require_settled() == "old"


def test_what_a_safety_backup_left_is_cleared_away(ground: Ground) -> None:
    kill_when(ground, phase("dump"))
    assert ground.application.frozen.is_dir()
    unfinished = ground.application.attachments()[0].parent / ".opsproof-adding-1"
    unfinished.write_bytes(b"half a fi")
    run = ground.recover()
    assert run.status == 0, run.output
    assert f"{unfinished} is removed" in run.output
    assert ground.require_settled() == "old"


def test_a_side_database_without_an_intent_is_told_and_dropped(ground: Ground) -> None:
    """A run that is killed between CREATE DATABASE and the statement after it leaves one."""
    side = f"{ground.application.name}__side_20260131020000"
    with ground.server.connect() as connection:
        words = sql.Identifier(side), sql.Identifier(ground.application.role)
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {} TEMPLATE template0 IS_TEMPLATE true").format(*words))

    refused = ground.project.run(action=RESTORE, env="staging")
    assert refused.failed_step().step == "test_nothing_is_unfinished"
    assert repr(side) in refused.failed_step().message
    assert "pytest actions/test_recover.py --env=staging --target=shop" in refused.failed_step().message

    run = ground.recover()
    assert run.status == 0, run.output
    assert f"{side!r} is dropped" in run.output
    assert ground.require_settled() == "old"
