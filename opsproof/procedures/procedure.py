"""What the procedures on a live application begin with: a target, its host, its store, and a way back."""

from __future__ import annotations

from contextlib import ExitStack
from datetime import UTC, datetime

from opsproof.journal import Journal
from opsproof.procedures.unfinished import require_nothing_unfinished
from opsproof.system.hosts.host import Host
from opsproof.system.store import Store
from opsproof.target import Target


class Procedure:
    """One procedure on one target. What it has begun is taken back by `close`, unless it was brought to its end.

    Args:
        target: Whose application.
        store: Where its backups are.
        journal: What happened.

    Attributes:
        moment: When it began; the names of what it makes have it.
    """

    def __init__(self, target: Target, store: Store, journal: Journal) -> None:
        self.target = target
        self.store = store
        self.journal = journal
        self.host = Host(target.connection)
        self.moment = datetime.now(UTC)
        self._undo = ExitStack()

    def require_nothing_unfinished(self) -> None:
        """Refuse to begin where an earlier procedure was not brought to its end.

        Raises:
            ProofError: One was not.
        """
        require_nothing_unfinished(self.target)

    def close(self) -> None:
        """Take back what was not brought to its end, and give the lock back.

        Raises:
            OpsproofError: Something could not be taken back; its hint is what to type.
        """
        self._undo.close()
