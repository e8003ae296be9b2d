"""What a procedure or a check asks for: its target, the database, the store, the host, and the procedure itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from testinfra.host import Host as TestinfraHost

from opsproof.plugin.run import RUN, Run
from opsproof.procedures.backup.procedure import Backup
from opsproof.procedures.recover.procedure import Recover
from opsproof.procedures.restore.examination import Request
from opsproof.procedures.restore.procedure import Restore
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection, connect
from opsproof.system.services.service import Service, services_of
from opsproof.system.store import Store
from opsproof.target import Target


@pytest.fixture(scope="session")
def run(pytestconfig: pytest.Config) -> Run:
    """The run: options, environment, journal."""
    return pytestconfig.stash[RUN]


@pytest.fixture(scope="class")
def target(request: pytest.FixtureRequest, run: Run) -> Target:
    """The target that this procedure or check is about."""
    return run.target(request.param)


@pytest.fixture(scope="class")
def store(run: Run, target: Target) -> Store:
    """The place that the target's backups go to."""
    return run.store(target)


@pytest.fixture(scope="class")
def host(target: Target) -> TestinfraHost:
    """The target's host, as testinfra sees it."""
    return Host(target.connection).testinfra


@pytest.fixture(scope="class")
def services(target: Target) -> tuple[Service, ...]:
    """The target's services, in the order in which they are started; without any there is nothing to check."""
    found = services_of(target, Host(target.connection))
    if not found:
        pytest.skip(f"the inventory names no services of {target.name}")
    return found


@pytest.fixture
def database(target: Target) -> Iterator[Connection]:
    """A connection to the target's database, for one step."""
    with connect(target.database) as connection:
        yield connection


@pytest.fixture
def databases(target: Target) -> frozenset[str]:
    """The names of the databases of the target's server that take connections, for one step."""
    with maintenance(target.database) as connection:
        rows = connection.execute("SELECT datname::text FROM pg_database WHERE datallowconn").fetchall()
    return frozenset(name for (name,) in rows)


@pytest.fixture(scope="class")
def backup(run: Run, target: Target, store: Store) -> Iterator[Backup]:
    """A backup of the target; what it did not bring to its end is undone after the last step."""
    procedure = Backup(target, store, run.journal, dry_run=run.options.dry_run)
    yield procedure
    with undoing(run, target):
        procedure.close()
    if procedure.outcome is not None:
        run.outcomes[target.name] = procedure.outcome


@pytest.fixture(scope="class")
def restore(run: Run, target: Target, store: Store) -> Iterator[Restore]:
    """A restore of the target; what it did not bring to its end is taken back after the last step."""
    procedure = Restore(target, store, run.journal, request_of(run, target))
    yield procedure
    with undoing(run, target):
        procedure.close()
    if procedure.outcome is not None:
        run.restored[target.name] = procedure.outcome


@pytest.fixture(scope="class")
def recover(run: Run, target: Target, store: Store) -> Iterator[Recover]:
    """The recovery of a target from a run that was killed, or the undo of the last restore."""
    options = run.options
    confirmed = options.dry_run or target.name in options.confirm
    procedure = Recover(target, store, run.journal, undo=options.undo, confirmed=confirmed)
    yield procedure
    with undoing(run, target):
        procedure.close()
    if procedure.verdict:
        run.recovered[target.name] = procedure.verdict


def request_of(run: Run, target: Target) -> Request:
    """Return what the options ask of a restore."""
    options = run.options
    return Request(
        backup=options.backup,
        at=options.at,
        source=run.source_of(target),
        # A dry run changes nothing that would have to be confirmed.
        confirmed=options.dry_run or target.name in options.confirm,
        safety_backup=options.safety_backup,
        in_place=options.in_place,
        roles=options.role_map,
        keep_identity=options.keep_identity,
    )


@contextmanager
def undoing(run: Run, target: Target) -> Iterator[None]:
    """Put down in the journal when the undo of a target begins, and how it ends."""
    run.journal.record("undo begins", target=target.name)
    try:
        yield
    except BaseException as error:
        run.journal.warn(f"The undo of {target.name} failed: {error}")
        raise
    run.journal.record("undo ends", target=target.name)
