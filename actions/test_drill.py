"""Drill: `pytest actions/test_drill.py --env=staging --from=prod --junitxml=drill.xml --report-html=drill.html`."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from opsproof.plugin.run import Run
from opsproof.procedures.drill.procedure import Drill


@pytest.mark.procedure
class TestDrill:
    """Prove on an environment that goes on working that a backup restores, how long that takes, and what would be lost.

    Run it every week, from production onto staging. The backup goes into a scratch database and a scratch folder that
    no application sees; they are compared, looked through, and removed. What the environment serves is not touched.
    """

    def test_choose_backup(self, drill: Drill) -> None:
        """The newest verified backup, or the one that was named, or one by chance; the clock begins."""
        assert drill.choose_backup().bytes > 0

    def test_server_answers(self, drill: Drill) -> None:
        """The server answers, and the client programs are of its own major version."""
        server, _ = drill.find_server()
        assert drill.find_clients().programs.version.split(".")[0] == str(server.major)

    def test_nothing_is_unfinished(self, drill: Drill) -> None:
        """No restore or rollback of this target was left halfway."""
        drill.require_nothing_unfinished()

    def test_backup_is_whole(self, drill: Drill) -> None:
        """The backup, read to its end, is what was stored."""
        backup = drill.fetch_backup()
        assert drill.unpacked.stat().st_size == backup.database_bytes

    def test_nothing_is_in_the_way(self, drill: Drill, run: Run) -> None:
        """Versions, roles, extensions, privileges and room are as the copy needs them; this is the plan."""
        assert not any(finding.blocks for finding in drill.examine())
        run.plans[drill.target.name] = drill.plan()

    @pytest.mark.changes
    def test_take_lock(self, drill: Drill) -> None:
        """No other run is at work on this target; what a killed drill left is removed."""
        drill.take_lock().check()

    @pytest.mark.changes
    def test_note_what_is_served(self, drill: Drill) -> None:
        """Note which database, which folder and which processes are live."""
        assert drill.note_served().services.keys() == set(drill.target.services)

    @pytest.mark.changes
    def test_build_scratch_database(self, drill: Drill) -> None:
        """Build the backup's database under a scratch name, where no application sees it."""
        assert drill.build_copy().name == drill.name != drill.target.database.name

    @pytest.mark.changes
    def test_scratch_database_is_the_backup(self, drill: Drill) -> None:
        """Every table, sequence, large object, constraint, index, owner and grant is as the backup says."""
        assert drill.prove_copy().tables >= drill.least_tables

    @pytest.mark.changes
    def test_neutralize(self, drill: Drill, record_property: Callable[[str, object], None]) -> None:
        """The copy is made harmless while no application sees it."""
        record_property("identity", drill.neutralize().shown)

    @pytest.mark.changes
    def test_bring_files(self, drill: Drill) -> None:
        """Every file of the backup is in the scratch folder, with its bytes."""
        assert drill.bring_files().added == (drill.backup.files_count if drill.target.filestore else 0)

    @pytest.mark.changes
    def test_data_holds(self, drill: Drill) -> None:
        """Tables, relations and queries hold, and every file that the rows name is there."""
        drill.check_data()

    @pytest.mark.changes
    def test_tables_and_indexes_are_sound(self, drill: Drill) -> None:
        """PostgreSQL's amcheck finds nothing wrong in any table or index, where the role may ask it."""
        drill.check_structure()

    @pytest.mark.changes
    def test_application_starts(self, drill: Drill, record_property: Callable[[str, object], None]) -> None:
        """The application answers on the copy, where the inventory says how it is started."""
        record_property("application", drill.start_application())

    @pytest.mark.changes
    def test_schema_rolls_back(self, drill: Drill) -> None:
        """The copy's schema goes back to --to-revision, where that was asked for."""
        assert (drill.rehearse_rollback() is None) == (drill.wish.consent.revision is None)

    @pytest.mark.changes
    def test_objectives_are_met(self, drill: Drill, record_property: Callable[[str, object], None]) -> None:
        """The restore took no longer than the RTO, and no more would be lost than the RPO allows."""
        time, point = drill.meet_objectives()
        record_property("rto_seconds", round(time.measured, 1))
        if point.age is not None and point.widest_gap is not None:
            record_property("rpo_seconds", round(point.age))
            record_property("widest_gap_seconds", round(point.widest_gap))

    @pytest.mark.changes
    def test_nothing_is_left(self, drill: Drill) -> None:
        """The copy is removed, and what is live is what it was."""
        drill.leave_nothing()

    @pytest.mark.changes
    def test_finish(self, drill: Drill) -> None:
        """Say the last word."""
        assert drill.finish().has_passed
