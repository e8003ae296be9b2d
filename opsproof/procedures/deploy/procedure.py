"""Deploy a release: prepare it beside the live one, then change link and database together.

Each public method is one step of `actions/test_deploy.py`, after those of `Preparing`, in the order in which they stand
here. `close` takes back whatever was not brought to its end.
"""

from __future__ import annotations

from dataclasses import replace

from opsproof.archive.names import sidecar_name
from opsproof.journal import Journal
from opsproof.procedures.deploy.deployed import DeployOutcome
from opsproof.procedures.deploy.deploying import DeployRequest
from opsproof.procedures.deploy.preparing import Preparing
from opsproof.system.store import Store
from opsproof.target import Target


class Deploy(Preparing):
    """One deploy to one target; arguments are those of `Deploying`."""

    def __init__(self, target: Target, store: Store, journal: Journal, request: DeployRequest) -> None:
        super().__init__(target, store, journal, request)
        self.pruned: list[str] = []

    def stop_services(self) -> int:
        """Stop the services; the outage begins. Return how many there are.

        Raises:
            HostError: One does not stop.
        """
        intent = self.exchange.intent
        exchanges = "yes" if self.pending or self.facts is None else ""
        self.exchange.intent = replace(intent, options={**intent.options, "exchanges": exchanges})
        return super().stop_services()

    def update_database(self) -> tuple[str, ...]:
        """Update a copy of the database, and let it take the live one's name. Return what was done to it.

        Raises:
            OpsproofError: It failed; what was live is live.
        """
        if self.facts is not None and not self.pending:
            return ()  # at once: people wait
        self.lock.check()
        side = self.exchange.intent.side
        if self.facts is None:
            with self.journal.phase("update"):
                self.update.initialise(side)
        else:
            self.exchange.copy(self.facts)
            with self.journal.phase("update"):
                self.update.apply(side)
        self.lock.check()
        self.exchange.swap()
        return self.pending

    def keep(self) -> DeployOutcome:
        """Say that the release is live: from now on only a rollback goes back.

        Raises:
            OpsproofError: It could not be written down.
        """
        hooks = tuple(f"{one.moment}: {one.command} ({one.seconds:.1f} s)" for one in self.ran)
        return self._keep(self.pending, hooks)

    def prune(self) -> list[str]:
        """Remove the oldest releases, but never one that somebody may have to go back to. Return which went.

        A backup is of the data that the release before it has worked on: both stay for as long as it is kept. Where a
        line of the ledger cannot be read nobody knows which: all stay.

        Raises:
            HostError: One cannot be removed.
            StoreError: The store does not say which backups it keeps.
        """
        self.lock.check()
        needed, ledger = {self.previous, self.release}, self.releases.ledger()
        if ledger.damaged:
            lines = ", ".join(str(number) for number in ledger.damaged)
            self.journal.warn(
                f"no release is pruned: line {lines} of {ledger.path} cannot be read; correct it, or remove it"
            )
            return []
        for entry in ledger.entries:
            if {entry.release, entry.previous} - needed and entry.backup and self._is_kept(entry.backup):
                needed |= {entry.release, entry.previous}
        self.pruned = self.releases.prune(self.target.deploy.keep_releases, needed)
        return self.pruned

    def _is_kept(self, backup: str) -> bool:
        return self.store.exists(sidecar_name(backup))
