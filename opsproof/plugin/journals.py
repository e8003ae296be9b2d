"""The end of a journal: its head goes into the JUnit XML, and a copy beside the backups, before anybody rewrites it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from opsproof.errors import OpsproofError
from opsproof.plugin.run import RUN, Run, without_libpq_variables
from opsproof.plugin.steps import PROGRESSIONS, is_worker
from opsproof.system.store import Store

FOLDER = "journals/"
HEAD, PATH = "opsproof_journal_head", "opsproof_journal"


@pytest.hookimpl(tryfirst=True)  # before the JUnit XML is written; after the others that are, see `startup`
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Close the chain of a run's events, and put it where the backups are."""
    run = session.config.stash.get(RUN, None)
    path = run.journal.path if run is not None else None
    if run is None or path is None or is_worker(session.config):
        return
    run.journal.work_on("", "")
    run.journal.record("run ends", exit_status=int(session.exitstatus))
    _put_into_xml(session.config, {PATH: path.name, HEAD: run.journal.head})
    if any(one.has_begun_changes for one in session.config.stash[PROGRESSIONS].values()):
        with without_libpq_variables():
            _store(run, path)


def _put_into_xml(config: pytest.Config, properties: dict[str, str]) -> None:
    # pytest has a fixture for it alone (record_testsuite_property), and no hook.
    from _pytest.junitxml import xml_key

    xml = config.stash.get(xml_key, None)
    if xml is not None:
        for name, value in properties.items():
            xml.add_global_property(name, value)


def _store(run: Run, path: Path) -> None:
    for store in _stores_of(run):
        try:
            store.put_small(FOLDER + path.name, path.read_bytes(), locked=False)
        except (OpsproofError, OSError) as error:
            run.journal.warn(f"The journal is not beside the backups: {error}")


def _stores_of(run: Run) -> Iterator[Store]:
    """Yield the stores of the run's targets, each once."""
    seen = set()
    for target in run.environment.targets:
        store = run.store(target)
        if store.location not in seen:
            seen.add(store.location)
            yield store
