"""Deploy a release: prepare it beside the live one, then change link and database together.

Each public method is one step of `actions/test_deploy.py`, after those of `Preparing`, in the order in which they stand
here. `close` takes back whatever was not brought to its end.
"""

from __future__ import annotations

from dataclasses import replace

from opsproof.archive.names import sidecar_name
from opsproof.inspection.validation import Validated, validate
from opsproof.journal import Journal
from opsproof.procedures.deploy.deploying import DeployOutcome, DeployRequest
from opsproof.procedures.deploy.preparing import Preparing
from opsproof.procedures.deploy.turnover import DEPLOYED
from opsproof.procedures.restore.exchange import Outage
from opsproof.system.postgres.server import connect
from opsproof.system.store import Store
from opsproof.target import Target


class Deploy(Preparing):
    """One deploy to one target; arguments are those of `Deploying`."""

    outage: Outage
    validated: Validated

    def __init__(self, target: Target, store: Store, journal: Journal, request: DeployRequest) -> None:
        super().__init__(target, store, journal, request)
        self.pruned: list[str] = []

    def stop_services(self) -> int:
        """Stop the services; the outage begins. Return how many there are.

        Raises:
            HostError: One does not stop.
        """
        self.lock.check()
        intent = self.turnover.intent
        exchanges = "yes" if self.pending or self.facts is None else ""
        self.turnover.intent = replace(intent, options={**intent.options, "exchanges": exchanges})
        return len(self.turnover.stop_services())

    def update_database(self) -> tuple[str, ...]:
        """Update a copy of the database, and let it take the live one's name. Return what was done to it.

        Raises:
            OpsproofError: It failed; what was live is live.
        """
        if self.facts is not None and not self.pending:
            return ()  # at once: people wait
        self.lock.check()
        side = self.turnover.intent.side
        if self.facts is None:
            with self.journal.phase("update"):
                self.update.initialise(side)
        else:
            self.turnover.copy(self.facts)
            with self.journal.phase("update"):
                self.update.apply(side)
        self.lock.check()
        self.turnover.swap()
        return self.pending

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

    def validate(self) -> Validated:
        """Look at what is live now: its files, its tables, its relations, and the answers to the inventory's queries.

        Raises:
            ProofError: Something does not hold.
        """
        self.turnover.check_application()
        self.validated = Validated(0, 0, 0)
        if self.has_to_validate:
            with connect(self.target.database) as connection:
                self.validated = validate(connection, self.target.validation, self.orphans)
        return self.validated

    def keep(self) -> DeployOutcome:
        """Say that the release is live: from now on only a rollback goes back.

        Raises:
            OpsproofError: It could not be written down.
        """
        intent = self.turnover.intent
        self.turnover.keep()
        self.outcome = DeployOutcome(
            event=DEPLOYED,
            release=self.release,
            revision=self.package.revision,
            source=self.package.source,
            previous=self.previous,
            backup=self.backup,
            parked=intent.parked if self.turnover.has_swapped else "",
            changes=self.pending,
            outage=self.outage,
            hooks=tuple(f"{one.moment}: {one.command} ({one.seconds:.1f} s)" for one in self.ran),
            phases=dict(self.journal.phases),
        )
        self.journal.record("deploy finished", outcome={**vars(self.outcome), "outage": vars(self.outage)})
        return self.outcome

    def prune(self) -> list[str]:
        """Remove the oldest releases, but never one that somebody may have to go back to. Return which went.

        A backup is of the data that the release before it has worked on: both stay for as long as it is kept.

        Raises:
            HostError: One cannot be removed.
            StoreError: The store does not say which backups it keeps.
        """
        self.lock.check()
        needed = {self.previous, self.release}
        for entry in self.releases.ledger():
            if {entry.release, entry.previous} - needed and entry.backup and self._is_kept(entry.backup):
                needed |= {entry.release, entry.previous}
        self.pruned = self.releases.prune(self.target.deploy.keep_releases, needed)
        return self.pruned

    def _is_kept(self, backup: str) -> bool:
        return self.store.exists(sidecar_name(backup))
