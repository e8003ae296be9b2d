"""What a cleanup finds out before it removes anything: the rules, the stock, and what would go by them.

Each public method is a step that changes nothing, and keeps what it found for later ones.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from opsproof.archive.catalogue.retention import Rules, show_span
from opsproof.archive.manifest import read_sidecar
from opsproof.archive.names import sidecar_name
from opsproof.errors import ProofError
from opsproof.journal import Journal
from opsproof.procedures.cleanup.covered import require_covered
from opsproof.procedures.cleanup.remains import Remains, find_remains
from opsproof.procedures.cleanup.stocktaking import Stock, take_stock
from opsproof.procedures.commands import backup_command, cleanup_command
from opsproof.procedures.unfinished import require_nothing_unfinished
from opsproof.system.postgres.databases import find_intents
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection, connect
from opsproof.system.store import Store
from opsproof.target import Target

CLOCKS_AGREE_WITHIN = timedelta(hours=1)
FRESH = timedelta(hours=24)


class Planning:
    """A look at one target, and at what of it would go.

    Args:
        target: What to clean up.
        store: Where its backups are.
        journal: What happened.
        older_than: Remove only backups that are older; None for what the inventory's policy says alone.
        logs: The folder of logs and journals of this machine's runs.

    Attributes:
        stock: The store as it was found, and what becomes of each backup.
        remains: What is to go beside the backups.
    """

    stock: Stock
    remains: Remains

    def __init__(
        self, target: Target, store: Store, journal: Journal, *, older_than: timedelta | None = None, logs: Path
    ) -> None:
        self.target = target
        self.store = store
        self.journal = journal
        self.rules = Rules(target.policies.retention, older_than)
        self._logs = logs
        self._now = datetime.now(UTC)

    def require_rules(self) -> Rules:
        """Make sure that something says which backups are kept, and that this machine knows what time it is.

        Raises:
            ConfigurationError: There is neither a policy nor a span.
            ProofError: The clock of the database's server is another.
        """
        self.rules.require(cleanup_command(self.target))
        self._now = datetime.now(UTC)
        with maintenance(self.target.database) as connection:
            row = connection.execute("SELECT clock_timestamp()").fetchone()
        there = self._now if row is None else row[0].astimezone(UTC)
        if abs(there - self._now) > CLOCKS_AGREE_WITHIN:
            raise ProofError(
                "This machine and the database's server do not agree on what time it is",
                expected=f"clocks that agree within {show_span(CLOCKS_AGREE_WITHIN)}: age is what backups go by",
                found=f"here {self._now:%Y-%m-%d %H:%M:%S} UTC, there {there:%Y-%m-%d %H:%M:%S} UTC",
                kept="everything",
                hint="date -u   here and on the server; correct the one that is wrong",
            )
        return self.rules

    def require_nothing_unfinished(self) -> None:
        """Make sure that no procedure of this target waits to be recovered from: it may need what would go.

        Raises:
            ProofError: One does.
        """
        require_nothing_unfinished(self.target)

    def take_stock(self) -> Stock:
        """Find out what is in the store, and decide what becomes of each backup.

        Raises:
            StoreError: The store cannot be listed or read.
        """
        with self.journal.phase("take stock"):
            self.stock = take_stock(self.target, self.store, self.rules, self._find_used(), self._now)
        contents = self.stock.contents
        self.journal.record(
            "stock taken", objects=len(contents.listed), backups=len(self.stock.holdings), manifests_read=contents.read
        )
        return self.stock

    def find_remains(self) -> Remains:
        """Find what runs and migrations have left, as far as its time is past.

        Raises:
            OpsproofError: The store or the server does not answer, or the inventory's artifacts are none.
        """
        gone, present = self._gone_before(), self.stock.contents.listed
        self.remains = find_remains(self.target, self.store, self._logs, gone, present, self._now)
        return self.remains

    def require_fresh_backup(self) -> None:
        """Make sure that what a cleanup takes out of the database is in a verified backup of the last 24 hours.

        Raises:
            ProofError: There is none.
        """
        if not self.remains.artifacts.is_anything:
            return
        last = self.stock.last
        if last is None or last.taken is None or self._now - last.taken > FRESH:
            raise ProofError(
                f"No verified backup of {self.target.name} holds what would go from its database",
                expected=f"one that is not older than {show_span(FRESH)}",
                found="none" if last is None else f"{last.id} is the last",
                kept="everything",
                hint=self._backup_first,
            )
        if self.remains.artifacts.going:
            with connect(self.target.database, lock_timeout=self.target.lock_timeout) as connection:
                self._require_covered(connection)

    def plan(self) -> list[str]:
        """Return exactly what would go, and why each other backup stays, a line each."""
        lines = [*self.stock.plan(), *self.remains.plan(self.target)]
        if self.target.policies.retention.noncurrent and self.stock.going:
            lines.append("remove the old versions of the backups that go, where the bucket keeps any")
        return lines

    def _require_covered(self, connection: Connection) -> None:
        """Make sure that the last verified backup has the rows of the tables that would go."""
        if self.stock.last is not None:
            name = sidecar_name(self.stock.last.id)
            manifest = read_sidecar(self.store.get_small(name), name).manifest
            going = self.remains.artifacts.going
            require_covered(connection, self.target.database.name, manifest, going, self._backup_first)

    @property
    def _backup_first(self) -> str:
        return f"{backup_command(self.target)}   and then the same command again"

    def _find_used(self) -> dict[str, str]:
        """Return the backups that an unfinished procedure on this server may need, whosever it is."""
        with maintenance(self.target.database) as connection:
            found = find_intents(connection)
        return {
            backup: f"a {one.procedure} of {one.environment}/{one.target} that is not finished names it"
            for _, one in found
            if one.stage != "kept"
            for backup in (one.backup, one.safety)
            if backup
        }

    def _gone_before(self) -> set[str]:
        """Return the ids of the target's backups of which nothing is there any more, as far as no rule keeps them.

        A cleanup that was killed may have left old versions of those. Of what somebody has deleted by mistake they are
        the last copy, so what a cleanup would not have removed does not count.
        """
        return self.stock.gone_for_good(self.rules, self._now)
