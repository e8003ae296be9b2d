"""`pytest actions/test_recover.py --undo`, killed before its end: the kept database says what it said before."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import pytest

from opsproof.intent import Intent
from opsproof.procedures.outage.undoing import UNDO
from opsproof.system.postgres.databases import STAMP, parked_name, read_intent, write_intent
from opsproof.system.postgres.swap import swap, swap_back
from tests.lab.restored import ENVIRONMENT, RECOVER, Restorable, drop_others

pytest_plugins = ["tests.lab.shop"]

LOST = "LOSE 11 rows written to public.mail_message since"


@dataclass(frozen=True)
class Undone:
    """An application whose restore is to be taken back, after eleven rows were written.

    Attributes:
        parked: What the restore has kept.
        old: What that holds.
        since: What is live.
        said: What the kept database says of itself.
    """

    shop: Restorable
    parked: str
    old: dict[str, tuple[int, str]]
    since: dict[str, tuple[int, str]]
    said: Intent

    def intent(self) -> Intent | None:
        with self.shop.server.connect() as connection:
            return read_intent(connection, self.parked)

    def again(self) -> Intent:
        """Return what an undo writes on the kept database before it stops a service."""
        moment = datetime.now(UTC)
        while parked_name(self.shop.name, moment) == self.parked:
            moment += timedelta(seconds=1)
        options = {"stamp": moment.strftime(STAMP), UNDO: self.said.to_json()}
        other = parked_name(self.shop.name, moment)
        return replace(self.said, side=self.parked, parked=other, stage="stopping", options=options)

    def require_kept(self) -> None:
        """Check that nothing was taken back, and that the undo does its whole work now."""
        assert self.shop.live_contents() == self.since
        assert self.shop.parked() == [self.parked]
        assert self.shop.databases()[self.parked] == (False, False)
        assert self.intent() == self.said
        looked = self.shop.recover("--undo", "--dry-run")
        assert looked.status == 0, looked.output
        assert LOST in looked.output
        undone = self.shop.recover("--undo")
        assert undone.status == 0, undone.output
        assert self.shop.live_contents() == self.old


@pytest.fixture
def undone(shop: Restorable) -> Iterator[Undone]:
    shop.execute("DELETE FROM mail_message WHERE id % 9 = 0")
    old = shop.live_contents()
    restored = shop.restore("--no-safety-backup")
    assert restored.status == 0, restored.output
    (parked,) = shop.parked()
    shop.execute("INSERT INTO mail_message (partner_id, body) SELECT 1, 'after' FROM generate_series(1, 11)")
    with shop.server.connect() as connection:
        said = read_intent(connection, parked)
    assert said is not None
    assert (said.stage, said.parked) == ("kept", parked)
    yield Undone(shop, parked, old, shop.live_contents(), said)
    drop_others(shop.application)


def test_killed_before_its_swap_it_is_put_aside(undone: Undone) -> None:
    shop = undone.shop
    # The role may not end a superuser's session, so that the swap waits for this one.
    with shop.server.connect(shop.name), shop.project.begin("--undo", action=RECOVER, env=ENVIRONMENT) as begun:
        begun.wait_until(lambda: (found := undone.intent()) is not None and found.stage == "stopping")
        begun.send(signal.SIGKILL)
        assert begun.process.wait(10) == -signal.SIGKILL
    left = undone.intent()
    assert left is not None
    assert (left.stage, left.side) == ("stopping", undone.parked)

    refused = shop.restore()
    assert refused.failed_step().step == "test_nothing_is_unfinished"

    plan = shop.recover("--undo", "--dry-run").output
    assert "undo of the restore of" in plan
    assert f"keep '{undone.parked}'; '{shop.name}' is as it was" in plan
    assert "nothing is taken back yet: the same command again does that" in plan
    assert f"drop '{undone.parked}'" not in plan

    run = shop.recover("--undo")

    assert run.status == 0, run.output
    assert f"'{undone.parked}' is kept as before" in run.output
    assert "nothing is taken back yet: the same command again does that" in run.output
    undone.require_kept()


def test_killed_after_it_was_swapped_back_it_is_put_aside(undone: Undone) -> None:
    """The way back is a transaction of its own; a run can be killed between that and what it says afterwards."""
    shop, again = undone.shop, undone.again()
    with shop.server.connect() as connection:
        write_intent(connection, undone.parked, again)
    address = shop.application.address
    swap(address, shop.name, undone.parked, again.parked, again)
    swap_back(address, shop.name, again.parked, undone.parked)
    run = shop.recover()
    assert run.status == 0, run.output
    assert f"'{undone.parked}' is kept as before" in run.output
    undone.require_kept()


def test_killed_after_its_swap_it_is_finished_if_the_old_database_passes(undone: Undone) -> None:
    shop, again = undone.shop, undone.again()
    swap(shop.application.address, shop.name, undone.parked, again.parked, again)
    run = shop.recover()
    assert run.status == 0, run.output
    assert f"is taken back; what was live since is '{again.parked}'" in run.output
    assert shop.live_contents() == undone.old
    assert shop.parked() == [again.parked]
    assert shop.recover("--undo").status == 0
    assert shop.live_contents() == undone.since


def test_killed_after_its_swap_it_is_put_aside_if_the_old_database_does_not_pass(undone: Undone) -> None:
    shop = undone.shop
    folder = shop.application.filestore
    (path,) = shop.query("SELECT store_fname FROM ir_attachment WHERE store_fname <> '' ORDER BY id LIMIT 1")[0]
    shop.execute("DELETE FROM ir_attachment WHERE store_fname = (SELECT store_fname FROM ir_attachment"
                 " WHERE store_fname <> '' ORDER BY id LIMIT 1)")  # fmt: skip
    undone = replace(undone, since=shop.live_contents())
    again = undone.again()
    swap(shop.application.address, shop.name, undone.parked, again.parked, again)
    (folder / path).rename(folder / "taken away")

    run = shop.recover()

    assert run.status == 0, run.output
    assert "the new database does not pass" in run.output
    assert f"'{undone.parked}' is kept as before" in run.output
    (folder / "taken away").rename(folder / path)
    undone.require_kept()
