"""What `checks/test_backups.py` asks for: what is in the store, and the verification that `--backup` names."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from opsproof.errors import ConfigurationError
from opsproof.plugin.checking import TAKEN_DOWN
from opsproof.plugin.run import Run
from opsproof.report.quantities import show_bytes, show_seconds
from opsproof.system.store import Store
from opsproof.target import Target

# What reads backups takes its time to load, which other actions need not wait for.
if TYPE_CHECKING:
    from opsproof.archive.catalogue.drills import History
    from opsproof.archive.catalogue.recent import Stock
    from opsproof.procedures.verify.procedure import Verification, Verify


@pytest.fixture(scope="class")
def stock(target: Target, store: Store) -> Stock:
    """What is known of the target's newest backups."""
    from opsproof.archive.catalogue.recent import take_stock

    return take_stock(target, store)


@pytest.fixture(scope="class")
def drills(target: Target, store: Store) -> History:
    """The target's last drills, as the journals in its store tell of them."""
    from opsproof.archive.catalogue.drills import read_drills

    return read_drills(store, target)


@pytest.fixture(scope="class")
def verify(run: Run, target: Target, store: Store) -> Verify:
    """The verification of the backups that `--backup` names; without it nothing is read."""
    from opsproof.procedures.verify.procedure import Verify

    options = run.options
    if not options.names_backup:
        command = f"pytest checks/test_backups.py --env={options.environment} --backup=latest"
        pytest.skip(f"no backup was named: {command}   reads it to its end (or all, an id, a file)")
    if options.source is not None:
        raise ConfigurationError(
            "A verification takes no --from",
            expected=f"--env={options.source.environment}: a verdict is written beside the backup, by whose it is",
            found=f"--from={options.source.environment}",
            kept="nothing was read",
            hint=f"pytest checks/test_backups.py --env={options.source.environment} --backup={options.backup}",
        )
    return Verify(target, store, run.journal, options.backup, options.at, deep=options.deep, dry_run=options.dry_run)


@pytest.fixture
def report_verdict(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> Callable[[Verification], None]:
    """Put a verdict into the JUnit XML, by the backup's id, and a line of it at the end of the run."""
    said = request.node.stash.setdefault(TAKEN_DOWN, [])

    def report(done: Verification) -> None:
        record_property(f"verdict_{done.id}", done.verdict)
        record_property(f"seconds_{done.id}", done.seconds)
        if done.reason:
            record_property(f"reason_{done.id}", done.reason)
        for name, sentences in (("checked", done.checks), ("unverified", done.unverified)):
            if sentences:
                record_property(f"{name}_{done.id}", "; ".join(sentences))
        line = (
            f"{request.node.name}: {done.id} {done.verdict}, {show_bytes(done.bytes)} in {show_seconds(done.seconds)}"
        )
        said.append("; unverified: ".join((line, *done.unverified)))

    return report
