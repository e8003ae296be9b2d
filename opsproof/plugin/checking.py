"""What one's own checks ask for: a database that can only be read, the files, a service; and what they have to say.

A check that meets `Unanswered` is skipped with its reason: it is neither a pass nor a fault.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from opsproof.archive.catalogue.absence import Place
from opsproof.archive.catalogue.newest import find_newest
from opsproof.archive.catalogue.ownership import owner_of
from opsproof.archive.manifest import Sidecar
from opsproof.inspection.databases.looking import Unanswered, look_at
from opsproof.plugin.run import RUN, Run, without_libpq_variables
from opsproof.procedures.commands import backup_command
from opsproof.system.files.filestore import Filestore
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.server import Connection
from opsproof.system.services.service import Service
from opsproof.system.store import Store
from opsproof.target import Target

Note = Callable[[str, object], None]
# What reports carry, a worker's too: shown at the end of the run.
NOTES = "opsproof_notes"
TAKEN_DOWN = pytest.StashKey[list[str]]()


@dataclass(frozen=True)
class CheckedService:
    """A service as a check sees it, whichever manager it has; the words are testinfra's."""

    name: str
    _service: Service

    @property
    def is_running(self) -> bool:
        """Tell whether its manager says that it runs."""
        return self._service.is_running()

    @property
    def is_enabled(self) -> bool:
        """Tell whether it is started when its host is."""
        return self._service.at_boot().is_started

    def last_lines(self) -> str:
        """Return the last lines of its log."""
        return self._service.last_lines()


@pytest.fixture(scope="class")
def db(target: Target) -> Iterator[Connection]:
    """A connection to the target's database in which nothing can be written; each statement is its own transaction."""
    with ExitStack() as lasting:
        with without_libpq_variables():
            connection = lasting.enter_context(look_at(target.database))
        yield connection


@pytest.fixture(scope="class")
def filestore(target: Target) -> Filestore:
    """The folder of the target's files, on its host; without one there is nothing to check."""
    if target.filestore is None:
        pytest.skip(f"the inventory names no filestore of {target.name}")
    return Filestore(Host(target.connection), target.filestore)


@pytest.fixture(scope="class")
def service(services: tuple[Service, ...]) -> CheckedService:
    """The target's first service; without any there is nothing to check."""
    return CheckedService(services[0].label, services[0])


@pytest.fixture(scope="class")
def newest_backup(target: Target, store: Store) -> Sidecar:
    """What is known of the target's newest verified backup; without one there is nothing to compare with."""
    found = find_newest(Place(store, target, owner_of(target)), None).found
    if found is None or found.sidecar is None:
        pytest.skip(f"{target.name} has no verified backup yet: {backup_command(target)}")
    return found.sidecar


@pytest.fixture
def note(request: pytest.FixtureRequest, run: Run, target: Target) -> Note:
    """A way to say something besides pass or fail: into the JUnit XML, the journal, and the end of the run."""
    item = request.node

    def take_down(name: str, value: object) -> None:
        item.user_properties.append((name, run.redactor.clean(str(value))))
        run.journal.record("check", check=item.name, target=target.name, noted=name, value=value)
        item.stash.setdefault(TAKEN_DOWN, []).append(f"{item.name}: {name} {value}")

    return take_down


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Skip what cannot be told."""
    try:
        return (yield)
    except Unanswered as unanswered:
        run = item.config.stash.get(RUN, None)
        text = str(unanswered)
        pytest.skip(run.redactor.clean(text) if run is not None else text)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Hand what a check has said to the report."""
    report = yield
    if report.when == "call" and TAKEN_DOWN in item.stash:
        run = item.config.stash[RUN]
        setattr(report, NOTES, [run.redactor.clean(line) for line in item.stash[TAKEN_DOWN]])
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what checks have said besides pass or fail."""
    lines = [line for report in terminalreporter.getreports("passed") for line in getattr(report, NOTES, ())]
    if lines:
        terminalreporter.section("opsproof: noted by checks")
        for line in lines:
            terminalreporter.write_line(line)
