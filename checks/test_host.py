"""The machines of a target: room for what comes next, clocks that agree, and the programs that it takes. Read-only."""

from __future__ import annotations

import pytest

from opsproof.inspection.clock import check_clock, read_host_clock, read_server_clock, read_store_clock
from opsproof.inspection.hostroom import check_room, is_server_in_sight, needs_of_backup, needs_of_restore
from opsproof.plugin.run import Run
from opsproof.procedures.backup.survey import Survey
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.server import Connection
from opsproof.system.store import Store
from opsproof.target import Target


@pytest.fixture(scope="class")
def survey(run: Run, target: Target, store: Store) -> Survey:
    """A first look at the target: its database and its files."""
    looked = Survey(target, store, run.journal, dry_run=True)
    looked.find_database()
    looked.find_filestore()
    return looked


class TestHost:
    """What backups and restores need of the host, of this machine, and of the database's server."""

    def test_next_backup_has_room(self, survey: Survey, target: Target, run: Run) -> None:
        """Every disk that the next backup writes to has the bytes and the inodes for it."""
        survey.check_room()
        for sentence in check_room(needs_of_backup(target, survey.facts, survey.live_files), "the next backup"):
            run.journal.warn(f"{target.name}: {sentence}")

    def test_next_restore_has_room(self, survey: Survey, target: Target, database: Connection, run: Run) -> None:
        """Every disk that a restore of the newest backup writes to has the bytes and the inodes for it."""
        needs = needs_of_restore(database, target, survey.facts, survey.live_files)
        for sentence in check_room(needs, "the next restore"):
            run.journal.warn(f"{target.name}: {sentence}")
        if not is_server_in_sight(target):
            run.journal.warn(f"{target.name}: the disk of {target.database.server} cannot be looked at from here")

    def test_host_clock_agrees(self, target: Target) -> None:
        """The clock of the host is that of this machine."""
        check_clock(read_host_clock(Host(target.connection)), target.policies.thresholds.clock_skew)

    def test_server_clock_agrees(self, target: Target, database: Connection) -> None:
        """The clock of the database's server is that of this machine."""
        check_clock(read_server_clock(database), target.policies.thresholds.clock_skew)

    def test_store_clock_agrees(self, target: Target) -> None:
        """The clock of the store is that of this machine."""
        clock = read_store_clock(target.store)
        if clock is None:
            pytest.skip("the store tells no time")
        check_clock(clock, target.policies.thresholds.clock_skew)

    def test_client_programs_fit(self, survey: Survey) -> None:
        """The host has the client programs of the server's own major version."""
        clients = survey.find_clients()
        assert clients.programs.version.split(".")[0] == str(survey.server.major)
