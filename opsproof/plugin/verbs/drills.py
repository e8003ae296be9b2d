"""The drill of `actions/test_drill.py`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from opsproof.plugin.fixtures import request_of, undoing
from opsproof.plugin.run import Run
from opsproof.system.store import Store
from opsproof.target import Target

# What rehearses rollbacks takes its time to load, which other actions need not wait for.
if TYPE_CHECKING:
    from opsproof.procedures.drill.procedure import Drill


@pytest.fixture(scope="class")
def drill(run: Run, target: Target, store: Store) -> Iterator[Drill]:
    """A drill on the target's environment; its copy is removed after the last step, whatever has happened."""
    from opsproof.procedures.drill.drilling import DrillRequest
    from opsproof.procedures.drill.procedure import Drill
    from opsproof.procedures.rollback.descending import Consent

    options = run.options
    consent = Consent(options.revision, data_loss=options.data_loss, drift=options.drift)
    wish = DrillRequest(random=options.random, consent=consent, dry_run=options.dry_run)
    procedure = Drill(target, store, run.journal, request_of(run, target), wish)
    yield procedure
    with undoing(run, target):
        procedure.close()
    if procedure.outcome is not None:
        run.drilled[target.name] = procedure.outcome
