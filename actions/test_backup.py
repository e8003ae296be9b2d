"""Back up: `pytest actions/test_backup.py --env=prod`."""

from __future__ import annotations

import pytest
from testinfra.host import Host

from opsproof.plugin.run import Run
from opsproof.procedures.backup.procedure import Backup
from opsproof.system.postgres.server import Connection


@pytest.mark.procedure
class TestBackup:
    """Take a backup of database and filestore, and prove it before anybody relies on it.

    Run it every night, before a deploy, and whenever you are about to do something that you may regret. It only reads
    the application, which goes on working meanwhile. A backup that fails any step is removed from the store again.
    """

    def test_database_exists(self, backup: Backup) -> None:
        """The database exists and answers."""
        server, facts = backup.find_database()
        assert facts.name == backup.target.database.name
        assert server.system_identifier

    def test_client_programs_fit(self, backup: Backup) -> None:
        """The client programs are those of the server's own major version."""
        clients = backup.find_clients()
        assert clients.programs.version.split(".")[0] == str(backup.server.major)

    def test_filestore_exists(self, backup: Backup, host: Host) -> None:
        """The filestore is where the configuration says, or the inventory says that there is none."""
        files = backup.find_filestore()
        if files is not None:
            assert host.file(files.path).is_directory

    def test_store_takes_backups(self, backup: Backup) -> None:
        """The store can be listed and written."""
        assert backup.check_store() == backup.store.location

    def test_room_is_enough(self, backup: Backup, run: Run) -> None:
        """There is room for the temporary files and for the backup; this is the plan."""
        assert all(room.free >= room.needed for room in backup.check_room())
        run.plans[backup.target.name] = backup.plan()

    @pytest.mark.changes
    def test_take_lock(self, backup: Backup) -> None:
        """No other run is at work on this target; what a killed one left is cleared away."""
        backup.take_lock()

    @pytest.mark.changes
    def test_dump_database(self, backup: Backup) -> None:
        """Dump one snapshot: pg_dump, pg_restore and psql read it to its end, and the SQL has its footer."""
        captured = backup.capture()
        assert captured.dump.size > 0
        assert captured.sql.size > 0

    @pytest.mark.changes
    def test_dump_is_the_snapshot(self, backup: Backup) -> None:
        """Every table of the dump has the rows and the fingerprint that it has in the snapshot."""
        assert backup.compare_dump() == len(backup.captured.counted)

    @pytest.mark.changes
    def test_write_bundle(self, backup: Backup) -> None:
        """Send everything to the store, where nobody sees it yet."""
        files = backup.write_bundle()
        assert files.files == backup.manifest.filestore.files if backup.manifest.filestore else files.files == 0

    @pytest.mark.changes
    def test_attachments_are_in_the_bundle(self, backup: Backup) -> None:
        """Every attachment that the snapshot names is in the bundle, with the SHA-1 that it promises."""
        files = backup.check_attachments()
        assert len(files.missing) + len(files.damaged) <= backup.accepted_losses

    @pytest.mark.changes
    def test_complete_upload(self, backup: Backup) -> None:
        """The store has the bundle now, under a name that was free."""
        stored = backup.complete_upload()
        assert backup.store.exists(stored.name)

    @pytest.mark.changes
    def test_stored_copy_is_what_was_sent(self, backup: Backup) -> None:
        """The stored copy, read back to its end, has the bytes and the fingerprint of what was sent."""
        assert backup.read_back() == backup.sent

    @pytest.mark.changes
    def test_nothing_temporary_is_left(self, backup: Backup, host: Host, database: Connection) -> None:
        """The frozen files, the temporary disk and the snapshot are given back."""
        assert backup.clear_away() == []
        assert backup.filestore is None or not host.file(str(backup.filestore.frozen)).exists
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_xmin IS NOT NULL"
        assert database.execute(
            f"{query} AND application_name = 'opsproof' AND pid <> pg_backend_pid()"
        ).fetchone() == (0,)

    @pytest.mark.changes
    def test_publish_manifest(self, backup: Backup, request: pytest.FixtureRequest) -> None:
        """Write the manifest beside the backup: from now on it counts."""
        steps = [name for name in vars(type(self)) if name.startswith("test_")]
        outcome = backup.publish(tuple(steps[: steps.index(request.function.__name__)]))
        assert backup.store.exists(f"{outcome.id}.manifest.json")
