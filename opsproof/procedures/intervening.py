"""What procedures have in common that change a live application in an outage: lock, safety backup, services, way back.

The public methods are steps of the actions; they stand here in the order in which those call them.
"""

from __future__ import annotations

import getpass
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime

from opsproof.errors import OpsproofError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.restore.exchange import Exchange, Outage, explain_failed_undo
from opsproof.procedures.restore.safety import take_safety_backup
from opsproof.procedures.unfinished import require_nothing_unfinished
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.lock import Lock, hold_lock
from opsproof.system.postgres.scratch import drop_abandoned
from opsproof.system.store import Store
from opsproof.target import Target


class Intervening:
    """One procedure on one target. What it has changed is taken back by `close`, unless it was brought to its end.

    Args:
        target: Whose application.
        store: Where its backups are.
        journal: What happened.
    """

    lock: Lock
    exchange: Exchange
    outage: Outage

    def __init__(self, target: Target, store: Store, journal: Journal) -> None:
        self.target = target
        self.store = store
        self.journal = journal
        self.host = Host(target.connection)
        self.moment = datetime.now(UTC)
        self.safety = self.safety_sha256 = ""
        self._undo = ExitStack()

    def require_nothing_unfinished(self) -> None:
        """Refuse to begin where an earlier procedure was not brought to its end.

        Raises:
            ProofError: One was not.
        """
        require_nothing_unfinished(self.target)

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

    def close(self) -> None:
        """Take back what was not brought to its end, and give the lock back.

        Raises:
            OpsproofError: Something could not be taken back; its hint is what to type.
        """
        self._undo.close()

    def _hold_lock(self, name: str) -> Lock:
        """Keep other runs off, look again whether one has ended halfway meanwhile, and drop what looks have left."""
        self.lock = self._undo.enter_context(hold_lock(self.target.database, name))
        self.require_nothing_unfinished()
        for one in drop_abandoned(self.target.database):
            self.journal.warn(f"{one!r} of an earlier look is dropped")
        return self.lock

    def _intent_of(
        self, procedure: str, names: tuple[str, str], *, backup: str, safety: str, options: Mapping[str, str]
    ) -> Intent:
        """Return what any machine needs to know to bring this procedure to its end, before anything has changed.

        Args:
            procedure: In words.
            names: Of the side database, and of the one that is kept; the latter is empty where none is live.
            backup: What is brought in: a backup's id, or a release.
            safety: Id of the backup before.
            options: What this kind of procedure needs besides.
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
            stage="building",
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
