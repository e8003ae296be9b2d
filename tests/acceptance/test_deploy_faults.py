"""Deploys that fail, whatever fails: code, data and services are as they were, and nothing of the release is left."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from opsproof.errors import DatabaseError
from tests.lab.action_run import require_failure
from tests.lab.deployable import COUPON, DEPLOY, STEPS, WANTS_COUPON, Deployable
from tests.lab.migrated import ENVIRONMENT, Script
from tests.lab.moments import MOMENTS

pytest_plugins = ["tests.lab.deployed"]

NAMES = [name for name, _ in STEPS]
# In the default tier those that leave something else behind each; all of them in the slow one, where a dozen moments
# have to do those with a migration.
QUICK = ("plan_update", "update_database", "flip")
ENDS = [(name, True) for name in NAMES] + [(name, False) for name in (NAMES if MOMENTS > 12 else QUICK)]
SLEEP = "import time; time.sleep(60)"


@pytest.mark.parametrize(
    ("last", "changes"),
    [
        pytest.param(
            name,
            changes,
            id=f"{name}-{'migration' if changes else 'code'}",
            marks=[] if changes and name in QUICK else [pytest.mark.slow],
        )
        for name, changes in ENDS
    ],
)
def test_a_failure_after_any_step_leaves_everything_as_it_was(shop: Deployable, last: str, changes: bool) -> None:
    before = shop.look()
    release = shop.write_release("two", COUPON, wants=WANTS_COUPON) if changes else shop.write_release("two")
    deploy = shop.procedure(release)
    try:
        for name, step in STEPS[: NAMES.index(last) + 1]:
            step(deploy)
            assert name != "flip" or shop.current == deploy.release
    finally:
        deploy.close()
    shop.require_as_before(before)


def test_a_release_whose_health_check_fails(shop: Deployable) -> None:
    before = shop.look()
    run = shop.deploy(shop.write_release("two", COUPON, mood="ill"))
    require_failure(run, "test_application_is_healthy", "is not healthy", "HTTP 500")
    assert "current leads to" in run.output
    shop.require_as_before(before)


@pytest.mark.slow
def test_a_release_that_does_not_start(shop: Deployable) -> None:
    before = shop.look()
    run = shop.deploy(shop.write_release("two", mood="dies"))
    require_failure(run, "test_start_services")
    shop.require_as_before(before)


@pytest.mark.slow
def test_a_migration_that_fails(shop: Deployable) -> None:
    before = shop.look()
    broken = Script("broken_01", "coupon_01", "op.execute('SELECT 1/0')", "pass")
    run = shop.deploy(shop.write_release("two", COUPON, broken))
    require_failure(run, "test_update_database", "division by zero")
    shop.require_as_before(before)


@pytest.mark.slow
def test_a_rehearsal_finds_it_while_people_still_work(shop: Deployable) -> None:
    before = shop.look()
    shop.describe(deploy={"rehearse": True})
    broken = Script("broken_01", "customers_name", "op.execute('SELECT 1/0')", "pass")
    run = shop.deploy(shop.write_release("two", broken))
    require_failure(run, "test_plan_update", "division by zero")
    assert not any(event["event"] == "phase begins" and event["phase"] == "stop" for event in run.events)
    shop.require_as_before(before)


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["after_update_code", "before_symlink"])
def test_a_hook_that_fails(shop: Deployable, moment: str) -> None:
    before = shop.look()
    shop.describe(hooks={moment: ["true", "echo to stderr >&2; echo to stdout; pwd; exit 7", "touch never"]})
    run = shop.deploy(shop.write_release("two"))
    message = require_failure(run, f"test_{moment}", "exit status 7", "to stderr", "to stdout", "/releases/")
    assert "never" not in message
    (failed,) = [one for one in run.named("hook") if one["status"]]
    assert failed["output"].startswith("to stderr\nto stdout\n")
    shop.require_as_before(before)


def test_a_hook_that_hangs(shop: Deployable) -> None:
    before = shop.look()
    shop.describe(hooks={"before_symlink": f"printf 'Sure? '; python3 -c '{SLEEP}'"}, deploy={"hook_timeout": 0.5})
    run = shop.deploy(shop.write_release("two"))
    require_failure(run, "test_before_symlink", "did not end within 0.5 seconds", "hook_timeout", "found:    Sure?")
    (killed,) = run.named("hook")
    assert (killed["status"], killed["output"]) == (None, "Sure?")
    shop.require_as_before(before)


@pytest.mark.slow
def test_a_hook_after_the_cleanup_leaves_the_release_live(shop: Deployable) -> None:
    """People work with it already: what they have written since must not go."""
    shop.describe(hooks={"after_cleanup": "exit 1"})
    run = shop.deploy(shop.write_release("later"))
    require_failure(run, "test_after_cleanup", "exit status 1")
    assert shop.look().version == "later"
    assert "is live" in run.output


@pytest.mark.slow
def test_two_deploys_at_once(shop: Deployable) -> None:
    """The second one is kept off, and changes nothing."""
    shop.describe(hooks={"before_symlink": "sleep 3"})
    release = f"--release={shop.write_release('first')}"
    with shop.app.project.begin(release, action=DEPLOY, env=ENVIRONMENT) as begun:
        begun.wait_until(lambda: any(event["event"] == "release uploaded" for event in begun.events()))
        other = shop.deploy(shop.write_release("second"))
        run = begun.finish()
    assert other.status == 1, other.output
    # By the lock, or by what stands on the server: it is looked at before the lock is taken.
    assert other.failed_step().step in ("test_nothing_is_unfinished", "test_take_lock")
    assert run.status == 0, run.output
    assert shop.look().version == "first"
    assert len([one for one in shop.look().releases if one[:1] != "."]) >= 2


@pytest.mark.slow
def test_the_lock_keeps_a_second_one_off(shop: Deployable) -> None:
    first, second = shop.procedure(shop.write_release("a")), shop.procedure(shop.write_release("b"))
    try:
        for deploy in (first, second):
            for _, step in STEPS[:3]:
                step(deploy)
        first.take_lock()
        with pytest.raises(DatabaseError, match="Another run of opsproof is at work"):
            second.take_lock()
    finally:
        first.close()
        second.close()


@pytest.mark.slow
def test_an_interrupted_deploy_is_taken_back(shop: Deployable) -> None:
    before = shop.look()
    shop.describe(hooks={"before_symlink": "sleep 60"})
    release = f"--release={shop.write_release('two')}"
    with shop.app.project.begin(release, action=DEPLOY, env=ENVIRONMENT) as begun:
        begun.wait_until(lambda: any(event["event"] == "release uploaded" for event in begun.events()))
        time.sleep(0.5)
        begun.send(signal.SIGTERM)
        run = begun.finish()
    assert run.status != 0
    shop.require_as_before(before)


def test_a_dry_run_changes_nothing(shop: Deployable) -> None:
    before = shop.look()
    shop.describe(hooks={"after_update_code": "make assets"})
    run = shop.deploy(shop.write_release("two", COUPON), "--dry-run")
    assert run.status == 0, run.output
    for words in ("make assets", f"live is {before.current}", "take a backup and prove it"):
        assert words in run.output
    shop.require_as_before(before)


@pytest.mark.slow
def test_a_protected_target_has_to_be_named(shop: Deployable) -> None:
    before = shop.look()
    shop.describe(protected=True)
    run = shop.deploy(shop.write_release("two"))
    require_failure(run, "test_confirmed", "--confirm=shop")
    shop.require_as_before(before)


@pytest.mark.slow
def test_a_database_that_is_ahead_of_the_release_is_not_deployed_to(shop: Deployable) -> None:
    before = shop.look()
    source = Path(shop.write_release("older"))
    (source / "migrations/versions/customers_name.py").unlink()
    run = shop.deploy(str(source))
    require_failure(run, "test_plan_update", "a revision that the release does not know", "--type=release")
    shop.require_as_before(before)
