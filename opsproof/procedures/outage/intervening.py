"""What procedures have in common that change a live application in an outage: lock, safety backup, services, way back.

The public methods are steps of the actions; they stand here in the order in which those call them.
"""

from __future__ import annotations

import getpass
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime

from opsproof.errors import OpsproofError
from opsproof.intent import Intent, Stage
from opsproof.journal import Journal
from opsproof.procedures.leftovers import drop_looks
from opsproof.procedures.outage.exchange import Exchange, Outage
from opsproof.procedures.outage.failedundo import explain_failed_undo
from opsproof.procedures.outage.safety import take_safety_backup
from opsproof.procedures.procedure import Procedure
from opsproof.system.postgres.lock import Lock, hold_lock
from opsproof.system.store import Store
from opsproof.target import Target


class Intervening(Procedure):
    """One procedure that changes what is live; arguments are those of `Procedure`."""

    lock: Lock
    exchange: Exchange
    outage: Outage

    def __init__(self, target: Target, store: Store, journal: Journal) -> None:
        super().__init__(target, store, journal)
        self.safety = self.safety_sha256 = ""

    def take_safety_backup(self) -> str:
        """Back up what is live, and prove that, before anything changes. Return its id.

        Raises:
            OpsproofError: It failed.
        """
        self.lock.check()
        with self.journal.phase("safety backup"):
            taken = take_safety_backup(self.target, self.store, self.journal)
        self.safety, self.safety_sha256 = taken.id, taken.sha256
        return self.safety

    def stop_services(self) -> int:
        """Stop the services; the outage begins. Return how many there are.

        Raises:
            HostError: One does not stop.
        """
        self.lock.check()
        return len(self.exchange.stop_services())

    def start_services(self) -> int:
        """Start the services. Return how many there are.

        Raises:
            HostError: One does not come up.
        """
        return len(self.exchange.start_services())

    def wait_for_health(self) -> Outage:
        """Wait until the application answers; the outage ends.

        Raises:
            ProofError: It does not.
        """
        self.outage = self.exchange.wait_for_health()
        return self.outage

    def _hold_lock(self, name: str) -> Lock:
        """Keep other runs off, look again whether one has ended halfway meanwhile, and drop what looks have left."""
        self.lock = self._undo.enter_context(hold_lock(self.target.database, name))
        self.require_nothing_unfinished()
        for one in drop_looks(self.target, self.journal):
            self.journal.warn(f"{one!r} of an earlier look is dropped")
        return self.lock

    def _intent_of(
        self,
        procedure: str,
        names: tuple[str, str],
        *,
        backup: str,
        safety: str,
        options: Mapping[str, str],
        stage: Stage = "building",
    ) -> Intent:
        """Return what any machine needs to know to bring this procedure to its end, before anything has changed.

        Args:
            procedure: In words.
            names: Of the side database, and of the one that is kept; the latter is empty where none is live.
            backup: What is brought in: a backup's id, or a release.
            safety: Id of the backup before.
            options: What this kind of procedure needs besides.
            stage: What it begins with.
        """
        side, parked = names
        return Intent(
            procedure=procedure,
            run=secrets.token_hex(4),
            environment=self.target.environment,
            target=self.target.name,
            live=self.target.database.name,
            side=side,
            parked=parked,
            backup=backup,
            safety=safety,
            stage=stage,
            services=self.target.services,
            since=datetime.now(UTC).isoformat(timespec="seconds"),
            by=f"{getpass.getuser()}@{socket.gethostname()}",
            options=dict(options),
        )

    def _tell_undo(self, undo: Callable[[], Iterable[str]]) -> None:
        """Undo, and tell each thing that was undone; where that fails, where the data is and what to type."""
        try:
            for line in undo():
                self.journal.warn(f"undone: {line}")
        except OpsproofError as error:
            self.journal.record(f"{self.exchange.intent.procedure} failed to be undone", error=str(error))
            raise explain_failed_undo(self.target, self.exchange.intent, error) from error
