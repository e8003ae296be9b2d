"""The rollbacks of `actions/test_rollback.py`: the one that `--type` names runs, and finds its procedure here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeVar

import pytest

from opsproof.plugin.fixtures import request_of, undoing
from opsproof.plugin.options import ROLLBACKS
from opsproof.plugin.run import RUN, Run
from opsproof.system.store import Store
from opsproof.target import Target

# What reads migrations takes its time to load, which a backup need not wait for.
if TYPE_CHECKING:
    from opsproof.procedures.rollback.data import DataRollback, FullRollback
    from opsproof.procedures.rollback.descending import Consent
    from opsproof.procedures.rollback.schema import SchemaRollback

    Procedure = TypeVar("Procedure", SchemaRollback, DataRollback, FullRollback)

MARKER = "rollback"


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line("markers", f"{MARKER}(kind): this procedure is what --type=kind runs")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the rollbacks that were not asked for.

    Raises:
        pytest.UsageError: Nobody said which it is to be.
    """
    kinds = {item: marker.args[0] for item in items if (marker := item.get_closest_marker(MARKER))}
    run = config.stash.get(RUN, None)
    if not kinds or run is None:
        return  # without a run its fault is told
    if run.options.rollback is None:
        raise pytest.UsageError(
            "Nobody said what to roll back\n"
            f"  expected: --type={'|'.join(ROLLBACKS)}\n"
            "  found:    none\n"
            "  kept:     nothing was run\n"
            f"  hint:     pytest actions/test_rollback.py --env={run.options.environment} --type=schema"
            " --to-revision=R --dry-run"
        )
    left_out = [item for item, kind in kinds.items() if kind != chosen(run.options.rollback, run.options.names_backup)]
    items[:] = [item for item in items if item not in left_out]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="class")
def schema_rollback(run: Run, target: Target, store: Store) -> Iterator[SchemaRollback]:
    """A rollback of the target's schema; what it did not bring to its end is taken back after the last step."""
    from opsproof.procedures.rollback.schema import SchemaRollback

    if run.options.rollback == "full":
        run.journal.warn("no backup was named: a full rollback is one of the schema alone, and keeps the data")
    yield from _finished(run, target, SchemaRollback(target, store, run.journal, _consent(run, target)))


@pytest.fixture(scope="class")
def data_rollback(run: Run, target: Target, store: Store) -> Iterator[DataRollback]:
    """A rollback of the target's data to a backup."""
    from opsproof.procedures.rollback.data import DataRollback

    request = request_of(run, target)
    yield from _finished(run, target, DataRollback(target, store, run.journal, request))


@pytest.fixture(scope="class")
def full_rollback(run: Run, target: Target, store: Store) -> Iterator[FullRollback]:
    """A rollback of the target's data to a backup, and of its schema below that."""
    from opsproof.procedures.rollback.data import FullRollback

    request = request_of(run, target)
    yield from _finished(run, target, FullRollback(target, store, run.journal, request, _consent(run, target)))


def _finished(run: Run, target: Target, procedure: Procedure) -> Iterator[Procedure]:
    yield procedure
    with undoing(run, target):
        procedure.close()
    if procedure.rolled_back is not None:
        run.rolled_back[target.name] = procedure.rolled_back


def _consent(run: Run, target: Target) -> Consent:
    from opsproof.procedures.rollback.descending import Consent

    options = run.options
    return Consent(
        revision=options.revision,
        data_loss=options.data_loss,
        drift=options.drift,
        plan=options.plan,
        # A dry run changes nothing that would have to be confirmed.
        confirmed=options.dry_run or target.name in options.confirm,
    )


def chosen(kind: str, names_backup: bool) -> str:
    """Return the rollback that runs: a full one that names no backup is one of the schema alone."""
    return "schema" if kind == "full" and not names_backup else kind
