"""The cleanup of `actions/test_cleanup.py`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opsproof.plugin.fixtures import undoing
from opsproof.plugin.run import Run
from opsproof.procedures.cleanup.procedure import Cleanup
from opsproof.system.store import Store
from opsproof.target import Target


@pytest.fixture(scope="class")
def cleanup(run: Run, target: Target, store: Store) -> Iterator[Cleanup]:
    """A cleanup of the target; its lock is given back after the last step."""
    options = run.options
    procedure = Cleanup(target, store, run.journal, older_than=options.older_than, logs=options.logs)
    yield procedure
    with undoing(run, target):
        procedure.close()
    if procedure.verdict:
        run.cleaned[target.name] = procedure.verdict
