"""Deploys and rollbacks that somebody disturbs: a reboot, a hook, a user, a backup that does not belong there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from opsproof.errors import CommandFailed, MigrationError, ProofError
from opsproof.journal import Journal, Redactor
from opsproof.procedures.deploy.deployed import DeployOutcome
from opsproof.procedures.deploy.procedure import Deploy
from opsproof.procedures.rollback.goingback import Going
from opsproof.procedures.rollback.release import ReleaseRollback
from opsproof.system.store import open_store
from tests.lab.deployable import COUPON, STEPS, WANTS_COUPON, Deployable
from tests.lab.migrated import Script

pytest_plugins = ["tests.lab.deployed"]

NAMES = [name for name, _ in STEPS]
AHEAD = "UPDATE alembic_version SET version_num = 'ahead'"


def go_through(deploy: Deploy, last: str) -> None:
    """Call the steps up to one, and that."""
    for _, step in STEPS[: NAMES.index(last) + 1]:
        step(deploy)


def compared(shop: Deployable, going: Going) -> ReleaseRollback:
    """Return a rollback that has looked at the releases and the database."""
    target = shop.target()
    rollback = ReleaseRollback(target, open_store(target.store, target.customer), Journal(None, Redactor()), going)
    rollback.find_server()
    rollback.choose_release()
    rollback.compare_database()
    return rollback


@contextmanager
def ahead(shop: Deployable) -> Iterator[None]:
    """Let the database be at another revision for as long as the block lasts, or from somewhere in it on."""
    (head,) = shop.app.heads()
    shop.app.execute(AHEAD)
    try:
        yield
    finally:
        shop.app.execute(f"UPDATE alembic_version SET version_num = '{head}'")


@pytest.mark.slow
def test_a_user_who_migrates_while_hooks_pass_keeps_what_is_written_since(shop: Deployable) -> None:
    """A hook of the inventory is no reason to take the live database for one that it has changed."""
    shop.describe(hooks={"before_symlink": "true"})
    deploy = shop.procedure(shop.write_release("two"))
    try:
        go_through(deploy, "before_symlink")
        with ahead(shop):
            shop.app.execute("INSERT INTO orders (id, name) VALUES (7000, 'since')")
            deploy.close()
    finally:
        deploy.close()
    assert shop.app.query("SELECT name FROM orders WHERE id = 7000") == [("since",)]
    assert shop.look().databases == ()


@pytest.mark.slow
def test_a_backup_of_before_does_not_take_the_place_of_what_a_hook_has_migrated(shop: Deployable) -> None:
    shop.app.back_up()
    shop.app.execute("INSERT INTO orders (id, name) VALUES (7001, 'since')")
    shop.describe(hooks={"before_symlink": [f'psql "{shop.app.url}" -c "{AHEAD}"', "exit 3"]})
    (head,) = shop.app.heads()
    deploy = shop.procedure(shop.write_release("two"), timedelta(days=1))
    try:
        with pytest.raises(CommandFailed, match="exit status 3"):
            go_through(deploy, "before_symlink")
    finally:
        deploy.close()
        shop.app.execute(f"UPDATE alembic_version SET version_num = '{head}'")
    assert shop.app.query("SELECT name FROM orders WHERE id = 7001") == [("since",)]
    assert shop.look().databases == ()


@pytest.mark.slow
def test_a_hook_that_lets_current_lead_elsewhere_is_taken_back(shop: Deployable) -> None:
    before = shop.look()
    shop.describe(hooks={"before_symlink": [f"ln -sfnT .. '{shop.folder}/current'", "exit 3"]})
    deploy = shop.procedure(shop.write_release("two"))
    try:
        with pytest.raises(CommandFailed, match="exit status 3"):
            go_through(deploy, "before_symlink")
    finally:
        deploy.close()
    shop.require_as_before(before)


@pytest.mark.slow
def test_a_release_that_has_lost_its_migrations_is_not_deployed(shop: Deployable) -> None:
    shop.app.describe(**{**shop.service.variables, "health_timeout": 2, "alembic_ini": None})
    before = shop.look()
    source = Path(shop.write_release("two", COUPON))
    (source / "alembic.ini").unlink()
    deploy = shop.procedure(str(source))
    try:
        with pytest.raises(MigrationError, match="one that is live has"):
            go_through(deploy, "plan_update")
    finally:
        deploy.close()
    shop.require_as_before(before)


@pytest.mark.slow
def test_after_a_reboot_between_swap_and_flip_the_new_release_is_what_runs(shop: Deployable) -> None:
    deploy = shop.procedure(shop.write_release("two", COUPON, wants=WANTS_COUPON))
    try:
        go_through(deploy, "update_database")
    finally:
        deploy.outcome = cast(DeployOutcome, object())  # killed: it takes nothing back
        deploy.close()
    # The machine starts its services: `current` still leads to the code of before.
    shop.service.control("start", shop.service.name)
    assert shop.service.await_answer() == "one"
    recovered = shop.app.recover()
    assert recovered.status == 0, recovered.output
    assert (shop.service.await_answer(), shop.current) == ("two", deploy.release)


@pytest.mark.slow
def test_a_backup_that_does_not_go_with_the_release_is_refused_and_the_hint_names_the_one_that_does(
    shop: Deployable,
) -> None:
    if shop.app.heads() != ["coupon_01"]:
        shop.run_through(shop.write_release("two", COUPON))
    (first,) = [one.release for one in shop.procedure("").releases.ledger().entries if not one.previous]
    (second,) = [one.backup for one in shop.procedure("").releases.ledger().entries if one.previous == first]
    more = Script("note_01", "coupon_01", "op.add_column('orders', sa.Column('note', sa.String))", "pass")
    third = shop.run_through(shop.write_release("three", COUPON, more)).safety
    with pytest.raises(ProofError, match="does not go with release") as caught:
        compared(shop, Going(first, backup=third))
    assert "coupon_01" in caught.value.found
    shop.app.execute("INSERT INTO orders (id, name, coupon) VALUES (7002, 'since', 'SAVE10')")
    with pytest.raises(ProofError) as caught:
        compared(shop, Going(first))
    assert f"--backup={second} " in caught.value.hint
    fitting = compared(shop, Going(first, backup=second))
    assert second in fitting.in_words()
    # Somebody restores, or migrates, until the lock is there.
    with ahead(shop), pytest.raises(ProofError, match="has changed the database meanwhile"):
        fitting.take_lock()
    fitting.close()
