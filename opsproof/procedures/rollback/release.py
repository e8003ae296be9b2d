"""Go back to another release, with its database where the two go together.

Each public method is one step of `TestReleaseRollback` in `actions/test_rollback.py`, after those of `GoingBack`, in
the order in which they stand here. `close` takes back whatever was not brought to its end.
"""

from __future__ import annotations

from dataclasses import replace

from opsproof.errors import ProofError
from opsproof.inspection.validation import find_orphans
from opsproof.intent import Intent
from opsproof.procedures.deploy.deployed import DeployOutcome
from opsproof.procedures.deploy.turnover import ROLLED_BACK, free_names, options_of
from opsproof.procedures.restore.files import FilesRestore
from opsproof.procedures.restore.fromsafety import build_from_safety_backup
from opsproof.procedures.rollback.goingback import GoingBack
from opsproof.procedures.rollback.rehearsal import require_heads
from opsproof.system.alembic.migrations import place_of, read_heads
from opsproof.system.postgres.lock import Lock
from opsproof.system.postgres.server import connect

SESSION = "opsproof rollback"


class ReleaseRollback(GoingBack):
    """One rollback of one target to another release; arguments are those of `GoingBack`."""

    def take_lock(self) -> Lock:
        """Keep other runs off this target.

        Raises:
            DatabaseError: Another run is at work on it.
            ProofError: One has left something unfinished since, or has let `current` lead elsewhere.
        """
        self._hold_releases("rollback")
        self.require_same_database()
        planned = self.layout.current, self.release
        if (self.releases.look().current, self.choose_release()) != planned:
            raise ProofError(
                "Another run has changed the releases meanwhile: the plan is not true any more",
                expected=f"current at {planned[0]}, and {planned[1]} to go back to",
                found=f"current at {self.layout.current}, and {self.release}",
                kept="nothing was changed",
                hint="run the same command again, and read its plan",
            )
        return self.lock

    def prepare_database(self) -> str:
        """Build the backup's database beside the live one, where it is to come back. Return what becomes of it.

        Raises:
            OpsproofError: It could not be built.
        """
        self.lock.check()
        self._begin(self._intent())
        self.exchange.begin()
        with connect(self.target.database) as connection:
            self.orphans = find_orphans(connection)
        if self.how == "backup" and self.choice is not None:
            intent = replace(self.exchange.intent, safety=self.choice.id)
            with build_from_safety_backup(self.target, self.store, self.journal, intent) as (_, backup):
                # Files that are named by their content are only ever added: they harm nobody.
                FilesRestore(self.target, self.host, self.journal).add(backup, None)
        return self.in_words()

    def change_database(self) -> str:
        """Undo the revisions in a copy, with the scripts of the newer release, and swap it in; or swap in the backup's.

        Raises:
            OpsproofError: It failed; what was live is live.
        """
        self.lock.check()
        if self.how == "downgrade":
            self._undo_revisions(self.exchange.copy(self.facts))
        if self.how != "stays":
            self.lock.check()
            self.exchange.swap()
        return self.how

    def finish(self) -> DeployOutcome:
        """Say the last word.

        Raises:
            OpsproofError: It could not be written down.
        """
        return self._keep(() if self.how == "stays" else (self.in_words(),))

    def _undo_revisions(self, side: str) -> None:
        if self.descent is None or self.migrations is None:
            return
        planned = self.descent.planned
        with self.journal.phase("migrate"):
            place = place_of(self.target.database, side)
            self.migrations.downgrade(place, planned, settings={"application_name": SESSION})
        with connect(self.target.database, database=side) as connection:
            require_heads(read_heads(connection, planned.table), planned.left, side)

    def _intent(self) -> Intent:
        said = options_of(
            self.release,
            self.layout.current,
            ROLLED_BACK,
            revision=self.revision,
            source="",
            exchanges=self.how != "stays",
        )
        names = free_names(self.target, self.moment)
        return self._intent_of(
            "rollback to another release", names, backup=self.release, safety=self.safety, options=said
        )
