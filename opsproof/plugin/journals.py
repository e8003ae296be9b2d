"""The end of a journal: its head goes into the JUnit XML, and a copy beside the backups, before anybody rewrites it.

Where there is a signing key the copy is signed. A run that has changed nothing leaves none there, but for a drill: that
one failed before it changed anything is what its history has to tell.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from opsproof.archive.names import SEALED
from opsproof.archive.sealing.seal import seal
from opsproof.archive.sealing.signature import Signer, load_signer
from opsproof.chain import SIGNATURE
from opsproof.errors import ObjectExists, OpsproofError
from opsproof.plugin.run import RUN, Run, without_libpq_variables
from opsproof.plugin.steps import PROGRESSIONS, Progression, is_worker
from opsproof.system.store import Store
from opsproof.target import Target

FOLDER = "journals/"
DRILL = ".TestDrill"
MOST_NAMES = 9
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
    if _is_evidence(session.config, run):
        with without_libpq_variables():
            _store(run, path)


def _is_evidence(config: pytest.Config, run: Run) -> bool:
    if run.options.dry_run:
        return False
    known = config.stash[PROGRESSIONS].items()
    return any(one.has_begun_changes or (procedure.endswith(DRILL) and _has_run(one)) for (procedure, _), one in known)


def _has_run(one: Progression) -> bool:
    return bool(one.passed or one.stopped_by)


def _put_into_xml(config: pytest.Config, properties: dict[str, str]) -> None:
    # pytest has a fixture for it alone (record_testsuite_property), and no hook.
    from _pytest.junitxml import xml_key

    xml = config.stash.get(xml_key, None)
    if xml is not None:
        for name, value in properties.items():
            xml.add_global_property(name, value)


def _store(run: Run, path: Path) -> None:
    recipients = sorted({one for target in run.environment.targets for one in target.policies.sealing.recipients})
    for target in _one_of_each_store(run):
        try:
            _put_beside(run.store(target), path, recipients, load_signer(target.policies.sealing))
        except (OpsproofError, OSError) as error:
            run.journal.warn(f"The journal is not beside the backups: {error}")


def _put_beside(store: Store, path: Path, recipients: Sequence[str], signer: Signer | None) -> None:
    data = path.read_bytes()
    # An error may quote a row, and whoever encrypts backups wants none of those to be read there.
    kept, ending = (seal(data, recipients), SEALED) if recipients else (data, "")
    for number in itertools.count(1):
        # Another machine's run of this very second has the name.
        name = f"{FOLDER}{path.name}" if number == 1 else f"{FOLDER}{path.stem}_{number}{path.suffix}"
        try:
            store.put_small(name + ending, kept, locked=False)
        except ObjectExists:
            if number < MOST_NAMES:
                continue
            raise
        if signer is not None:
            store.put_small(name + SIGNATURE, signer.sign(data), locked=False)
        return


def _one_of_each_store(run: Run) -> Iterator[Target]:
    """Yield a target of each of the run's stores."""
    seen = set()
    for target in run.environment.targets:
        where = (target.store, target.customer)
        if where not in seen:
            seen.add(where)
            yield target
