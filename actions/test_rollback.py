"""Roll back: `pytest actions/test_rollback.py --env=staging --type=schema --to-revision=R`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from opsproof.plugin.run import Run
from opsproof.procedures.rollback.data import DataRollback, FullRollback
from opsproof.procedures.rollback.release import ReleaseRollback
from opsproof.procedures.rollback.schema import SchemaRollback
from opsproof.system.postgres.server import Connection


@pytest.mark.procedure
@pytest.mark.rollback("schema")
class TestSchemaRollback:
    """Undo Alembic revisions: rehearse it on a copy, count what it destroys, and only then touch the live database.

    Run it when a migration was a mistake. The application works until the very end of the rehearsal; then it is down
    for as long as its own stop and start, a copy, and the downgrade take. The database of before is kept.
    """

    def test_server_answers(self, schema_rollback: SchemaRollback) -> None:
        """The server answers, the database is there, and the client programs are of the server's own major version."""
        server = schema_rollback.find_server()
        assert schema_rollback.clients.programs.version.split(".")[0] == str(server.major)

    def test_nothing_is_unfinished(self, schema_rollback: SchemaRollback) -> None:
        """No earlier procedure of this target was left halfway."""
        schema_rollback.require_nothing_unfinished()

    def test_plan(self, schema_rollback: SchemaRollback, run: Run) -> None:
        """The way down is known: which revisions will be undone, in which order, and what that destroys."""
        descent = schema_rollback.make_plan()
        run.plans[schema_rollback.target.name] = schema_rollback.plan()
        assert descent.is_at_its_end or len(descent.readings) == len(descent.planned.undone)

    def test_plan_is_agreed_to(self, schema_rollback: SchemaRollback) -> None:
        """Every revision can be undone, and nobody loses data, or takes another plan, without having said so."""
        schema_rollback.require_agreement()

    def test_nothing_is_in_the_way(self, schema_rollback: SchemaRollback) -> None:
        """Privileges and room are as the rollback needs them."""
        assert not any(finding.blocks for finding in schema_rollback.examine())

    def test_schema_is_what_its_migrations_make(self, schema_rollback: SchemaRollback) -> None:
        """The live schema has not drifted; a scratch database, made and dropped, tells what it must become."""
        drift = schema_rollback.compare_with_migrations()
        assert drift == 0 or schema_rollback.consent.drift

    def test_confirmed(self, schema_rollback: SchemaRollback) -> None:
        """A protected environment is rolled back only where its target was named."""
        schema_rollback.require_confirmation()

    @pytest.mark.changes
    def test_take_lock(self, schema_rollback: SchemaRollback) -> None:
        """No other run is at work on this target."""
        schema_rollback.take_lock().check()

    @pytest.mark.changes
    def test_take_safety_backup(self, schema_rollback: SchemaRollback) -> None:
        """What is live is backed up, and that is proven, before anything changes."""
        assert schema_rollback.store.exists(f"{schema_rollback.take_safety_backup()}.manifest.json")

    @pytest.mark.changes
    def test_rehearse(self, schema_rollback: SchemaRollback) -> None:
        """On a side database built from that backup the downgrade works, and costs no more than was agreed to."""
        undone = [step.revision for step in schema_rollback.rehearse().steps]
        assert undone == [revision.id for revision in schema_rollback.descent.planned.undone]

    @pytest.mark.changes
    def test_stop_services(self, schema_rollback: SchemaRollback) -> None:
        """The services are stopped: the outage begins, and nobody writes any more."""
        schema_rollback.stop_services()
        assert all(service.is_stopped() for service in schema_rollback.exchange.services)

    @pytest.mark.changes
    def test_undo_revisions(self, schema_rollback: SchemaRollback) -> None:
        """The revisions are undone: in one transaction, or in a copy that is swapped in."""
        assert schema_rollback.undo_revisions() == schema_rollback.descent.planned.left

    @pytest.mark.changes
    def test_schema_is_as_rehearsed(self, schema_rollback: SchemaRollback) -> None:
        """The live database is at the target, and its schema is what the rehearsal has made."""
        assert sorted(schema_rollback.compare_schema()) == sorted(schema_rollback.descent.planned.left)

    @pytest.mark.changes
    def test_start_services(self, schema_rollback: SchemaRollback) -> None:
        """The services are started; that they stay up is seen once people can work again."""
        assert schema_rollback.start_services() == len(schema_rollback.exchange.services)

    @pytest.mark.changes
    def test_application_is_healthy(self, schema_rollback: SchemaRollback) -> None:
        """The application answers: the outage ends. The services keep running."""
        assert schema_rollback.wait_for_health().total >= 0
        assert all(service.is_running() for service in schema_rollback.exchange.services)

    @pytest.mark.changes
    def test_application_finds_its_data(self, schema_rollback: SchemaRollback, database: Connection) -> None:
        """Files, tables, relations and the inventory's own queries are as they must be."""
        schema_rollback.validate()
        assert database.execute("SELECT current_database()").fetchone() == (schema_rollback.target.database.name,)

    @pytest.mark.changes
    def test_finish(self, schema_rollback: SchemaRollback) -> None:
        """Say the last word: from now on only --undo takes it back."""
        assert schema_rollback.finish().after == schema_rollback.descent.planned.left


@pytest.mark.procedure
@pytest.mark.rollback("data")
class TestDataRollback:
    """Bring the data of a backup back: a restore with a safety backup, and the inventory's validation afterwards.

    Run it when data is spoiled, and the schema with it. What was live is kept.
    """

    def test_choose_backup(self, data_rollback: DataRollback) -> None:
        """The newest verified backup of this target, or the one that was named."""
        assert data_rollback.choose_backup().bytes > 0

    def test_server_answers(self, data_rollback: DataRollback) -> None:
        """The server answers, and the client programs are of its own major version."""
        server, _ = data_rollback.find_server()
        assert data_rollback.find_clients().programs.version.split(".")[0] == str(server.major)

    def test_nothing_is_unfinished(self, data_rollback: DataRollback) -> None:
        """No earlier procedure of this target was left halfway."""
        data_rollback.require_nothing_unfinished()

    def test_backup_is_whole(self, data_rollback: DataRollback) -> None:
        """The backup, read to its end, is what was stored, and holds nothing that nobody should unpack."""
        backup = data_rollback.fetch_backup()
        assert data_rollback.unpacked.stat().st_size == backup.database_bytes

    def test_nothing_is_in_the_way(self, data_rollback: DataRollback, run: Run) -> None:
        """Versions, roles, extensions, privileges and room are as the rollback needs them; this is the plan."""
        assert not any(finding.blocks for finding in data_rollback.examine())
        run.plans[data_rollback.target.name] = data_rollback.plan()

    def test_confirmed(self, data_rollback: DataRollback) -> None:
        """A protected environment is restored only where its target was named."""
        data_rollback.require_confirmation()

    @pytest.mark.changes
    def test_take_lock(self, data_rollback: DataRollback) -> None:
        """No other run is at work on this target."""
        data_rollback.take_lock().check()

    @pytest.mark.changes
    def test_take_safety_backup(self, data_rollback: DataRollback) -> None:
        """What is live is backed up, and that is proven, before anything changes."""
        safety = data_rollback.take_safety_backup()
        assert not safety or data_rollback.store.exists(f"{safety}.manifest.json")

    @pytest.mark.changes
    def test_build_side_database(self, data_rollback: DataRollback) -> None:
        """Build the backup's database beside the live one, where no application sees it."""
        assert data_rollback.build_side().name != data_rollback.target.database.name

    @pytest.mark.changes
    def test_side_database_is_the_backup(self, data_rollback: DataRollback) -> None:
        """Every table, sequence, large object, constraint, index, owner and grant is as the backup says."""
        assert data_rollback.prove_side().tables >= data_rollback.least_tables

    @pytest.mark.changes
    def test_neutralize(self, data_rollback: DataRollback, record_property: Callable[[str, object], None]) -> None:
        """A copy is made harmless while no application sees it; what is the environment's own, or moves, is left."""
        neutralized = data_rollback.neutralize()
        record_property("identity", neutralized.shown)
        assert data_rollback.neutralizing.purpose.copies or not neutralized.done

    @pytest.mark.changes
    def test_add_files(self, data_rollback: DataRollback) -> None:
        """Every file of the backup is in the filestore, with its bytes."""
        files = data_rollback.add_files()
        assert files.present + files.added + files.repaired == data_rollback.backup.files_count

    @pytest.mark.changes
    def test_stop_services(self, data_rollback: DataRollback) -> None:
        """The services are stopped: the outage begins."""
        data_rollback.stop_services()
        assert all(service.is_stopped() for service in data_rollback.exchange.services)

    @pytest.mark.changes
    def test_swap(self, data_rollback: DataRollback) -> None:
        """The side database is live, in one transaction; what was live is kept out of sight."""
        assert data_rollback.swap().oid > 0

    @pytest.mark.changes
    def test_start_services(self, data_rollback: DataRollback) -> None:
        """The services are started; that they stay up is seen once people can work again."""
        assert data_rollback.start_services() == len(data_rollback.exchange.services)

    @pytest.mark.changes
    def test_application_is_healthy(self, data_rollback: DataRollback) -> None:
        """The application answers: the outage ends. The services keep running."""
        assert data_rollback.wait_for_health().total >= 0
        assert all(service.is_running() for service in data_rollback.exchange.services)

    @pytest.mark.changes
    def test_application_finds_its_data(self, data_rollback: DataRollback, database: Connection) -> None:
        """Files, tables, relations and the inventory's own queries are as they must be."""
        data_rollback.validate()
        assert database.execute("SELECT current_database()").fetchone() == (data_rollback.target.database.name,)

    @pytest.mark.changes
    def test_finish(self, data_rollback: DataRollback) -> None:
        """Say the last word: from now on only --undo takes it back."""
        assert data_rollback.finish_rollback().kind == "data"


@pytest.mark.procedure
@pytest.mark.rollback("full")
class TestFullRollback:
    """Bring the data of a backup back, with its schema below the backup's own: both on the side, then one swap.

    Run it when a migration and its data are both to go, further down than the backup is. What was live is kept.
    """

    def test_choose_backup(self, full_rollback: FullRollback) -> None:
        """The newest verified backup of this target, or the one that was named."""
        assert full_rollback.choose_backup().bytes > 0

    def test_server_answers(self, full_rollback: FullRollback) -> None:
        """The server answers, and the client programs are of its own major version."""
        server, _ = full_rollback.find_server()
        assert full_rollback.find_clients().programs.version.split(".")[0] == str(server.major)

    def test_nothing_is_unfinished(self, full_rollback: FullRollback) -> None:
        """No earlier procedure of this target was left halfway."""
        full_rollback.require_nothing_unfinished()

    def test_backup_is_whole(self, full_rollback: FullRollback) -> None:
        """The backup, read to its end, is what was stored, and holds nothing that nobody should unpack."""
        backup = full_rollback.fetch_backup()
        assert full_rollback.unpacked.stat().st_size == backup.database_bytes

    def test_plan_is_agreed_to(self, full_rollback: FullRollback) -> None:
        """The way down from the backup's own revision is known, and every revision of it can be undone."""
        descent = full_rollback.make_plan()
        assert descent.planned.heads == full_rollback.backup_heads

    def test_nothing_is_in_the_way(self, full_rollback: FullRollback, run: Run) -> None:
        """Versions, roles, extensions, privileges and room are as the rollback needs them; this is the plan."""
        assert not any(finding.blocks for finding in full_rollback.examine())
        run.plans[full_rollback.target.name] = full_rollback.plan()

    def test_confirmed(self, full_rollback: FullRollback) -> None:
        """A protected environment is restored only where its target was named."""
        full_rollback.require_confirmation()

    @pytest.mark.changes
    def test_take_lock(self, full_rollback: FullRollback) -> None:
        """No other run is at work on this target."""
        full_rollback.take_lock().check()

    @pytest.mark.changes
    def test_take_safety_backup(self, full_rollback: FullRollback) -> None:
        """What is live is backed up, and that is proven, before anything changes."""
        safety = full_rollback.take_safety_backup()
        assert not safety or full_rollback.store.exists(f"{safety}.manifest.json")

    @pytest.mark.changes
    def test_build_side_database(self, full_rollback: FullRollback) -> None:
        """Build the backup's database beside the live one, where no application sees it."""
        assert full_rollback.build_side().name != full_rollback.target.database.name

    @pytest.mark.changes
    def test_side_database_is_the_backup(self, full_rollback: FullRollback) -> None:
        """Every table, sequence, large object, constraint, index, owner and grant is as the backup says."""
        assert full_rollback.prove_side().tables >= full_rollback.least_tables

    @pytest.mark.changes
    def test_undo_revisions(self, full_rollback: FullRollback) -> None:
        """The revisions are undone on the side database, and cost no more than was agreed to."""
        undone = [step.revision for step in full_rollback.undo_revisions().steps]
        assert undone == [revision.id for revision in full_rollback.descent.planned.undone]

    @pytest.mark.changes
    def test_neutralize(self, full_rollback: FullRollback, record_property: Callable[[str, object], None]) -> None:
        """A copy is made harmless while no application sees it; what is the environment's own, or moves, is left."""
        neutralized = full_rollback.neutralize()
        record_property("identity", neutralized.shown)
        assert full_rollback.neutralizing.purpose.copies or not neutralized.done

    @pytest.mark.changes
    def test_add_files(self, full_rollback: FullRollback) -> None:
        """Every file of the backup is in the filestore, with its bytes."""
        files = full_rollback.add_files()
        assert files.present + files.added + files.repaired == full_rollback.backup.files_count

    @pytest.mark.changes
    def test_stop_services(self, full_rollback: FullRollback) -> None:
        """The services are stopped: the outage begins."""
        full_rollback.stop_services()
        assert all(service.is_stopped() for service in full_rollback.exchange.services)

    @pytest.mark.changes
    def test_swap(self, full_rollback: FullRollback) -> None:
        """The side database is live, in one transaction; what was live is kept out of sight."""
        assert full_rollback.swap().oid > 0

    @pytest.mark.changes
    def test_start_services(self, full_rollback: FullRollback) -> None:
        """The services are started; that they stay up is seen once people can work again."""
        assert full_rollback.start_services() == len(full_rollback.exchange.services)

    @pytest.mark.changes
    def test_application_is_healthy(self, full_rollback: FullRollback) -> None:
        """The application answers: the outage ends. The services keep running."""
        assert full_rollback.wait_for_health().total >= 0
        assert all(service.is_running() for service in full_rollback.exchange.services)

    @pytest.mark.changes
    def test_application_finds_its_data(self, full_rollback: FullRollback, database: Connection) -> None:
        """Files, tables, relations and the inventory's own queries are as they must be."""
        full_rollback.validate()
        assert database.execute("SELECT current_database()").fetchone() == (full_rollback.target.database.name,)

    @pytest.mark.changes
    def test_finish(self, full_rollback: FullRollback) -> None:
        """Say the last word: from now on only --undo takes it back."""
        assert full_rollback.finish_rollback().kind == "full"


@pytest.mark.procedure
@pytest.mark.rollback("release")
class TestReleaseRollback:
    """Go back to the previous release, or to a named one, with the database where the two go together.

    Run it when a release turns out to have been a mistake. The application works until code and data change hands,
    which takes its own stop and start, and a copy of the database where revisions are undone. What was live is kept.
    """

    def test_server_answers(self, release_rollback: ReleaseRollback) -> None:
        """The server answers, and the database is there."""
        assert release_rollback.find_server().system_identifier

    def test_nothing_is_unfinished(self, release_rollback: ReleaseRollback) -> None:
        """No earlier procedure of this target was left halfway."""
        release_rollback.require_nothing_unfinished()

    def test_choose_release(self, release_rollback: ReleaseRollback, run: Run) -> None:
        """There is a release to go back to."""
        assert release_rollback.choose_release() in release_rollback.layout.names
        if release_rollback.nothing_to_do:
            run.plans[release_rollback.target.name] = release_rollback.plan()

    def test_database_goes_with_it(self, release_rollback: ReleaseRollback, run: Run) -> None:
        """Whether the database must go back with the release is known, and it can; this is the plan."""
        assert release_rollback.compare_database()
        run.plans[release_rollback.target.name] = release_rollback.plan()

    def test_nothing_is_in_the_way(self, release_rollback: ReleaseRollback) -> None:
        """Privileges and room are as the rollback needs them."""
        assert not any(finding.blocks for finding in release_rollback.examine())

    def test_confirmed(self, release_rollback: ReleaseRollback) -> None:
        """A protected environment is rolled back only where its target was named."""
        release_rollback.require_confirmation()

    @pytest.mark.changes
    def test_take_lock(self, release_rollback: ReleaseRollback) -> None:
        """No other run is at work on this target."""
        release_rollback.take_lock().check()

    @pytest.mark.changes
    def test_take_safety_backup(self, release_rollback: ReleaseRollback) -> None:
        """What is live is backed up, and that is proven, before anything changes."""
        assert release_rollback.store.exists(f"{release_rollback.take_safety_backup()}.manifest.json")

    @pytest.mark.changes
    def test_prepare_database(self, release_rollback: ReleaseRollback) -> None:
        """Where a backup is to come back, it is built and proven beside the live database."""
        assert release_rollback.prepare_database()

    @pytest.mark.changes
    def test_stop_services(self, release_rollback: ReleaseRollback) -> None:
        """The services are stopped: the outage begins."""
        release_rollback.stop_services()
        assert all(service.is_stopped() for service in release_rollback.exchange.services)

    @pytest.mark.changes
    def test_change_database(self, release_rollback: ReleaseRollback) -> None:
        """The database stays, or one that goes with the release is live; what was live is kept out of sight."""
        assert release_rollback.change_database() == release_rollback.how

    @pytest.mark.changes
    def test_flip(self, release_rollback: ReleaseRollback) -> None:
        """The link `current` leads to the release, by one rename."""
        assert release_rollback.flip() == release_rollback.release

    @pytest.mark.changes
    def test_start_services(self, release_rollback: ReleaseRollback) -> None:
        """The services are started; that they stay up is seen once people can work again."""
        assert release_rollback.start_services() == len(release_rollback.exchange.services)

    @pytest.mark.changes
    def test_application_is_healthy(self, release_rollback: ReleaseRollback) -> None:
        """The application answers: the outage ends. The services keep running."""
        assert release_rollback.wait_for_health().total >= 0
        assert all(service.is_running() for service in release_rollback.exchange.services)

    @pytest.mark.changes
    def test_application_finds_its_data(self, release_rollback: ReleaseRollback, database: Connection) -> None:
        """Files, tables, relations and the inventory's own queries are as they must be."""
        release_rollback.validate()
        assert database.execute("SELECT current_database()").fetchone() == (release_rollback.target.database.name,)

    @pytest.mark.changes
    def test_finish(self, release_rollback: ReleaseRollback) -> None:
        """Say the last word, in the ledger and on the server."""
        assert release_rollback.releases.look().current == release_rollback.finish().release
