"""`--metrics-file=FILE`: what each target came to, for Prometheus, written at the end of the session.

Only the process that workers report to writes it. A dry run changes nothing, and writes nothing.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from opsproof.errors import ConfigurationError
from opsproof.plugin.monitoring.tally import TALLIES, Tallies, Tally, run_of, target_named
from opsproof.plugin.run import Run
from opsproof.plugin.steps import is_worker
from opsproof.policies import Objectives

if TYPE_CHECKING:  # most runs do without what it loads
    from opsproof.report.metrics import Came


def pytest_configure(config: pytest.Config) -> None:
    """Refuse a file that could not be written, before anything is run.

    Raises:
        pytest.UsageError: It could not.
    """
    path = config.getoption("--metrics-file")
    if path and not is_worker(config):
        from opsproof.report.metrics import require_metrics_file

        try:
            require_metrics_file(Path(path))
        except ConfigurationError as error:
            raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(trylast=True)  # after the undo of what was cut short
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the file; where that fails, the result is what it was, and a warning says so."""
    config = session.config
    if is_worker(config) or config.option.collectonly or not config.getoption("--metrics-file"):
        return
    run = run_of(config)
    if run is None or run.options.metrics_file is None or run.options.dry_run:
        return
    from opsproof.report.metrics import write_metrics

    tallies = config.stash[TALLIES]
    came = [_came(one, tallies, run) for one in tallies.all()]
    try:
        if came:
            write_metrics(run.options.metrics_file, came, time.time())
    except ConfigurationError as error:
        run.journal.warn(str(error))


def _came(one: Tally, tallies: Tallies, run: Run) -> Came:
    from opsproof.report.metrics import Came

    target = target_named(run, one.target)
    return Came(
        environment=run.environment.name,
        target=one.target,
        action=one.action,
        verdict=tallies.verdict(one),  # type: ignore[arg-type] # one of the four
        ended=one.ended,
        seconds=max(0.0, one.ended - one.began) if one.began else 0.0,
        phases=one.phases,
        backup_taken=one.taken,
        backup_bytes=one.bytes,
        outage=one.outage,
        is_restore=one.is_restore,
        rto=one.rto,
        objectives=target.policies.objectives if target else Objectives(),
    )
