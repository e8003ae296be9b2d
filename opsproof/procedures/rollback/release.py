"""Go back to another release, with its database where the two go together.

Each public method is one step of `TestReleaseRollback` in `actions/test_rollback.py`, after those of `GoingBack`, in
the order in which they stand here. `close` takes back whatever was not brought to its end.
"""

from __future__ import annotations

import getpass
import secrets
import socket
from dataclasses import replace
from datetime import UTC, datetime

from opsproof.errors import OpsproofError, ProofError
from opsproof.inspection.validation import find_orphans, validate
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.deploy.deploying import DeployOutcome
from opsproof.procedures.deploy.turnover import ROLLED_BACK, Turnover, free_names, options_of
from opsproof.procedures.restore.exchange import Outage, explain_failed_undo
from opsproof.procedures.restore.files import FilesRestore
from opsproof.procedures.restore.safety import build_from_safety_backup, take_safety_backup
from opsproof.procedures.rollback.goingback import Going, GoingBack
from opsproof.procedures.rollback.rehearsal import require_heads
from opsproof.system.alembic.migrations import place_of, read_heads
from opsproof.system.postgres.lock import Lock, hold_lock
from opsproof.system.postgres.server import connect
from opsproof.system.store import Store
from opsproof.target import Target

SESSION = "opsproof rollback"


class ReleaseRollback(GoingBack):
    """One rollback of one target to another release; arguments are those of `GoingBack`."""

    lock: Lock
    turnover: Turnover
    outage: Outage

    def __init__(self, target: Target, store: Store, journal: Journal, going: Going) -> None:
        super().__init__(target, store, journal, going)
        self.outcome: DeployOutcome | None = None
        self.safety = ""
        self._orphans: frozenset[str] = frozenset()

    def take_lock(self) -> Lock:
        """Keep other runs off this target.

        Raises:
            DatabaseError: Another run is at work on it.
            ProofError: One has left something unfinished since, or has let `current` lead elsewhere.
        """
        self.lock = self._undo.enter_context(hold_lock(self.target.database, "rollback"))
        self._undo.enter_context(self.releases.held())
        self.require_nothing_unfinished()
        self.releases.clear_unfinished()
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

    def take_safety_backup(self) -> str:
        """Back up what is live, and prove that, before anything changes. Return its id.

        Raises:
            OpsproofError: It failed.
        """
        self.lock.check()
        with self.journal.phase("safety backup"):
            self.safety = take_safety_backup(self.target, self.store, self.journal).id
        return self.safety

    def prepare_database(self) -> str:
        """Build the backup's database beside the live one, where it is to come back. Return what becomes of it.

        Raises:
            OpsproofError: It could not be built.
        """
        self.lock.check()
        self.turnover = Turnover(self.target, self.host, self.releases, self._intent(), self.journal)
        self._undo.callback(self._take_back)
        self.turnover.begin()
        with connect(self.target.database) as connection:
            self._orphans = find_orphans(connection)
        if self.how == "backup" and self.choice is not None:
            intent = replace(self.turnover.intent, safety=self.choice.id)
            with build_from_safety_backup(self.target, self.store, self.journal, intent) as (_, backup):
                # Files that are named by their content are only ever added: they harm nobody.
                FilesRestore(self.target, self.host, self.journal).add(backup, None)
        return self.in_words()

    def stop_services(self) -> int:
        """Stop the services; the outage begins. Return how many there are.

        Raises:
            HostError: One does not stop.
        """
        self.lock.check()
        return len(self.turnover.stop_services())

    def change_database(self) -> str:
        """Undo the revisions in a copy, with the scripts of the newer release, and swap it in; or swap in the backup's.

        Raises:
            OpsproofError: It failed; what was live is live.
        """
        self.lock.check()
        if self.how == "downgrade":
            self._undo_revisions(self.turnover.copy(self.facts))
        if self.how != "stays":
            self.lock.check()
            self.turnover.swap()
        return self.how

    def flip(self) -> str:
        """Let `current` lead to the release, in one rename. Return its name.

        Raises:
            OpsproofError: It cannot be done.
        """
        self.turnover.flip()
        return self.release

    def start_services(self) -> int:
        """Start the services. Return how many there are.

        Raises:
            HostError: One does not come up.
        """
        return len(self.turnover.start_services())

    def wait_for_health(self) -> Outage:
        """Wait until the application answers; the outage ends.

        Raises:
            ProofError: It does not.
        """
        self.outage = self.turnover.wait_for_health()
        return self.outage

    def validate(self) -> None:
        """Look at what is live now: its files, its tables, its relations, and the answers to the inventory's queries.

        Raises:
            ProofError: Something does not hold.
        """
        self.turnover.check_application()
        with connect(self.target.database) as connection:
            validate(connection, self.target.validation, self._orphans)

    def finish(self) -> DeployOutcome:
        """Say the last word.

        Raises:
            OpsproofError: It could not be written down.
        """
        self.turnover.keep()
        intent = self.turnover.intent
        self.outcome = DeployOutcome(
            event=ROLLED_BACK,
            release=self.release,
            revision=self.revision,
            source=f"the release of {self.release}",
            previous=self.layout.current,
            backup=self.safety,
            parked=intent.parked if self.turnover.has_swapped else "",
            changes=() if self.how == "stays" else (self.in_words(),),
            outage=self.outage,
            hooks=(),
            phases=dict(self.journal.phases),
        )
        self.journal.record("release rolled back", outcome={**vars(self.outcome), "outage": vars(self.outage)})
        return self.outcome

    def close(self) -> None:
        """Take back what was not brought to its end: database, link, services, lock.

        Raises:
            OpsproofError: Something could not be taken back; its hint is what to type.
        """
        self._undo.close()

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
        name = self.target.database.name
        said = options_of(
            self.release,
            self.layout.current,
            ROLLED_BACK,
            revision=self.revision,
            source="",
            exchanges=self.how != "stays",
        )
        side, parked = free_names(self.target, self.moment)
        return Intent(
            procedure="rollback to another release",
            run=secrets.token_hex(4),
            environment=self.target.environment,
            target=self.target.name,
            live=name,
            side=side,
            parked=parked,
            backup=self.release,
            safety=self.safety,
            stage="building",
            services=self.target.services,
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            by=f"{getpass.getuser()}@{socket.gethostname()}",
            options=dict(said),
        )

    def _take_back(self) -> None:
        if self.outcome is not None:
            return
        try:
            for line in self.turnover.take_back(self.store):
                self.journal.warn(f"undone: {line}")
        except OpsproofError as error:
            raise explain_failed_undo(self.target, self.turnover.intent, error) from error
