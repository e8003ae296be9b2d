"""The deploy of `actions/test_deploy.py`, and the rollback to another release of `actions/test_rollback.py`."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, TypeVar

import pytest

from opsproof.plugin.fixtures import undoing
from opsproof.plugin.run import RUN, Run
from opsproof.procedures.deploy.deploying import DeployRequest
from opsproof.system.store import Store
from opsproof.target import Target

# What reads migrations takes its time to load, which a backup need not wait for.
if TYPE_CHECKING:
    from opsproof.procedures.deploy.procedure import Deploy
    from opsproof.procedures.rollback.release import ReleaseRollback

    Procedure = TypeVar("Procedure", Deploy, ReleaseRollback)

FIXTURES = ("deploy", "release_rollback")


@pytest.fixture(scope="class")
def deploy(run: Run, target: Target, store: Store) -> Iterator[Deploy]:
    """A deploy to the target; what it did not bring to its end is taken back after the last step."""
    from opsproof.procedures.deploy.procedure import Deploy

    options = run.options
    # A dry run changes nothing that would have to be confirmed.
    confirmed = options.dry_run or target.name in options.confirm
    request = DeployRequest(options.release, options.reuse_backup, confirmed, options.data_loss)
    procedure = Deploy(target, store, run.journal, request)
    yield from _finished(run, target, procedure)


@pytest.fixture(scope="class")
def release_rollback(run: Run, target: Target, store: Store) -> Iterator[ReleaseRollback]:
    """A rollback of the target to another release, with its database where the two go together."""
    from opsproof.procedures.rollback.goingback import Going
    from opsproof.procedures.rollback.release import ReleaseRollback

    options = run.options
    going = Going(
        release=options.to_release or "",
        backup=options.backup if options.names_backup else "",
        data_loss=options.data_loss,
        confirmed=options.dry_run or target.name in options.confirm,
    )
    yield from _finished(run, target, ReleaseRollback(target, store, run.journal, going))


def _finished(run: Run, target: Target, procedure: Procedure) -> Iterator[Procedure]:
    yield procedure
    with undoing(run, target):
        procedure.close()
    if procedure.outcome is not None:
        run.deployed[target.name] = procedure.outcome


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put into the XML what a deploy came to."""
    report = yield
    funcargs = item.funcargs if isinstance(item, pytest.Function) else {}
    run = item.config.stash.get(RUN, None)
    if run is not None and call.when == "call":
        told = getattr(funcargs.get("deploy"), "told", [])
        item.user_properties += [(f"hook_{one.moment}", run.redactor.clean(one.output)) for one in told]
        told.clear()
    outcome = next((found for name in FIXTURES if (found := getattr(funcargs.get(name), "outcome", None))), None)
    if outcome is not None and call.when == "call":
        words = ("event", "release", "revision", "previous", "backup", "parked")
        item.user_properties += [(f"deploy_{name}", getattr(outcome, name)) for name in words]
        item.user_properties.append(("deploy_changes", "\n".join(outcome.changes)))
        item.user_properties += [
            (f"outage_{name}", round(seconds, 3)) for name, seconds in vars(outcome.outage).items()
        ]
    return report
