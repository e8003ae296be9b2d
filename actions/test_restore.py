"""Restore: `pytest actions/test_restore.py --env=staging`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from testinfra.host import Host

from opsproof.plugin.run import Run
from opsproof.procedures.restore.procedure import Restore
from opsproof.system.postgres.server import Connection


@pytest.mark.procedure
class TestRestore:
    """Bring back a backup: build it beside the live database, prove it, and only then swap the names.

    Run it when data is lost or spoiled. Until the swap the application goes on working; then it is down for as long as
    its own stop and start take. What was live is kept. A restore that fails any step leaves everything as it was.
    """

    def test_choose_backup(self, restore: Restore) -> None:
        """The newest verified backup of this target, or the one that was named."""
        assert restore.choose_backup().bytes > 0

    def test_server_answers(self, restore: Restore) -> None:
        """The server answers, and the client programs are of its own major version."""
        server, _ = restore.find_server()
        assert restore.find_clients().programs.version.split(".")[0] == str(server.major)

    def test_nothing_is_unfinished(self, restore: Restore) -> None:
        """No earlier procedure of this target was left halfway."""
        restore.require_nothing_unfinished()

    def test_backup_is_whole(self, restore: Restore) -> None:
        """The backup, read to its end, is what was stored, and holds nothing that nobody should unpack."""
        backup = restore.fetch_backup()
        assert restore.unpacked.stat().st_size == backup.database_bytes

    def test_nothing_is_in_the_way(self, restore: Restore, run: Run) -> None:
        """Versions, roles, extensions, privileges and room are as the restore needs them; this is the plan."""
        assert not any(finding.blocks for finding in restore.examine())
        run.plans[restore.target.name] = restore.plan()

    def test_confirmed(self, restore: Restore) -> None:
        """A protected environment is restored only where its target was named."""
        restore.require_confirmation()

    @pytest.mark.changes
    def test_take_lock(self, restore: Restore) -> None:
        """No other run is at work on this target."""
        restore.take_lock().check()

    @pytest.mark.changes
    def test_take_safety_backup(self, restore: Restore) -> None:
        """What is live is backed up, and that is proven, before anything changes."""
        safety = restore.take_safety_backup()
        assert not safety or restore.store.exists(f"{safety}.manifest.json")

    @pytest.mark.changes
    def test_build_side_database(self, restore: Restore) -> None:
        """Build the backup's database beside the live one, where no application sees it."""
        assert restore.build_side().name != restore.target.database.name

    @pytest.mark.changes
    def test_side_database_is_the_backup(self, restore: Restore) -> None:
        """Every table, sequence, large object, constraint, index, owner and grant is as the backup says."""
        assert restore.prove_side().tables >= restore.least_tables

    @pytest.mark.changes
    def test_neutralize(self, restore: Restore, record_property: Callable[[str, object], None]) -> None:
        """A copy is made harmless while no application sees it; what is the environment's own, or moves, is left."""
        neutralized = restore.neutralize()
        record_property("identity", neutralized.shown)
        assert restore.neutralizing.purpose.copies or not neutralized.done

    @pytest.mark.changes
    def test_add_files(self, restore: Restore) -> None:
        """Every file of the backup is in the filestore, with its bytes."""
        files = restore.add_files()
        assert files.present + files.added + files.repaired == restore.backup.files_count

    @pytest.mark.changes
    def test_stop_services(self, restore: Restore) -> None:
        """The services are stopped: the outage begins."""
        restore.stop_services()
        assert all(service.is_stopped() for service in restore.exchange.services)

    @pytest.mark.changes
    def test_swap(self, restore: Restore) -> None:
        """The side database is live, in one transaction; what was live is kept out of sight."""
        assert restore.swap().oid > 0

    @pytest.mark.changes
    def test_start_services(self, restore: Restore) -> None:
        """The services are started; that they stay up is seen once people can work again."""
        assert restore.start_services() == len(restore.exchange.services)

    @pytest.mark.changes
    def test_application_is_healthy(self, restore: Restore) -> None:
        """The application answers: the outage ends. The services keep running."""
        assert restore.wait_for_health().total >= 0
        assert all(service.is_running() for service in restore.exchange.services)

    @pytest.mark.changes
    def test_application_finds_its_data(self, restore: Restore, database: Connection, host: Host) -> None:
        """The live name is the database that was built, and all the files that its rows name are there."""
        restore.check_application()
        assert database.execute("SELECT current_database()").fetchone() == (restore.target.database.name,)
        filestore = restore.target.filestore
        assert filestore is None or not restore.backup.files_count or host.file(str(filestore.path)).is_directory

    @pytest.mark.changes
    def test_finish(self, restore: Restore) -> None:
        """Say the last word: from now on only --undo takes it back."""
        assert restore.finish().backup == restore.choice.id
