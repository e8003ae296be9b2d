"""Clean up: `pytest actions/test_cleanup.py --env=prod [--older-than=30d] [--dry-run]`."""

from __future__ import annotations

import pytest

from opsproof.plugin.run import Run
from opsproof.procedures.cleanup.procedure import Cleanup
from opsproof.system.postgres.server import Connection


@pytest.mark.procedure
class TestCleanup:
    """Remove backups that no rule keeps any more, and what runs and migrations have left behind.

    Run it every night after the backup. The dry run shows exactly what would go, and why each other backup stays. The
    last verified backup never goes, nor anything newer, locked, in use, somebody else's, or not recognised.
    """

    def test_rules_say_what_is_kept(self, cleanup: Cleanup) -> None:
        """The inventory or --older-than says which backups are kept, and the clocks agree."""
        rules = cleanup.require_rules()
        assert rules.policy.has_rules or rules.older_than is not None

    def test_nothing_is_unfinished(self, cleanup: Cleanup) -> None:
        """No earlier procedure of this target was left halfway: it may need what would go."""
        cleanup.require_nothing_unfinished()

    def test_take_stock(self, cleanup: Cleanup) -> None:
        """Every backup of the store is looked at: whose it is, of when, verified, locked, in use."""
        stock = cleanup.take_stock()
        assert stock.last is None or stock.last.id not in {one.known.id for one in stock.going}

    def test_find_remains(self, cleanup: Cleanup, run: Run) -> None:
        """Unfinished uploads, parked databases, folders, logs, and what migrations left; this is the plan."""
        cleanup.find_remains()
        run.plans[cleanup.target.name] = cleanup.plan()

    def test_what_goes_from_the_database_is_in_a_backup(self, cleanup: Cleanup) -> None:
        """Where tables or rows are to go, there is a verified backup of the last 24 hours; it has the tables' rows."""
        cleanup.require_fresh_backup()

    @pytest.mark.changes
    def test_take_lock(self, cleanup: Cleanup) -> None:
        """No other run is at work on this target, and what was to go may still go."""
        cleanup.take_lock().check()

    @pytest.mark.changes
    def test_remove_backups(self, cleanup: Cleanup) -> None:
        """Remove the backups of the plan: each manifest first, and only if it is still what the plan knew."""
        removed = cleanup.remove_backups()
        assert all(not cleanup.store.exists(f"{backup}.manifest.json") for backup in removed.backups[-1:])

    @pytest.mark.changes
    def test_remove_unfinished_uploads(self, cleanup: Cleanup) -> None:
        """Remove what killed backups had begun to send."""
        assert cleanup.remove_uploads() == len(cleanup.remains.uploads)

    @pytest.mark.changes
    def test_drop_parked_databases(self, cleanup: Cleanup, database: Connection) -> None:
        """Drop what was live before restores that nobody undoes any more; the live database is not touched."""
        cleanup.drop_parked()
        assert database.execute("SELECT current_database()").fetchone() == (cleanup.target.database.name,)

    @pytest.mark.changes
    def test_clear_this_machine(self, cleanup: Cleanup) -> None:
        """Remove the folders of killed restores, and old logs."""
        cleanup.clear_machine()
        assert not any(path.exists() for path in cleanup.remains.logs)

    @pytest.mark.changes
    def test_clean_database(self, cleanup: Cleanup) -> None:
        """Delete the rows and drop the tables that migrations have left; nothing that depends on them goes, too."""
        cleanup.clean_database()

    @pytest.mark.changes
    def test_result(self, cleanup: Cleanup) -> None:
        """What should be gone is gone, what should be there is there, and the last verified backup can be read."""
        kept = cleanup.check_result()
        assert kept or cleanup.stock.last is None
