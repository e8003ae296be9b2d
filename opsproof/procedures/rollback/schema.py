"""Roll a schema back: rehearse it on a side database, then undo the revisions on the live one.

Each public method is one step of `TestSchemaRollback` in `actions/test_rollback.py`, after those of `Descending`, in
the order in which they stand here. `close` takes back whatever was not brought to its end.

A chain that is one transaction runs on the live database itself, of which a copy was made before: that is what is live
again if anything goes wrong later, and what is kept. Any other chain runs on the copy, which is then swapped in.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from opsproof.inspection.schemas.descent import require_consent_to_drift
from opsproof.inspection.schemas.drift import list_drift
from opsproof.inspection.validation import Validated, validate
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.commands import undo_command
from opsproof.procedures.outage.exchange import Exchange
from opsproof.procedures.restore.fromsafety import build_from_safety_backup
from opsproof.procedures.rollback.descending import Consent, Descending
from opsproof.procedures.rollback.migrating import Migrating
from opsproof.procedures.rollback.rehearsal import Agreement, Rehearsed, rehearse, require_heads
from opsproof.procedures.rollback.rolledback import RollbackOutcome
from opsproof.system.alembic.migrations import read_heads
from opsproof.system.postgres.catalog import read_schema
from opsproof.system.postgres.databases import parked_name, side_name
from opsproof.system.postgres.lock import Lock
from opsproof.system.postgres.server import connect
from opsproof.system.store import Store
from opsproof.target import Target


class SchemaRollback(Descending):
    """One rollback of one target's schema; arguments are those of `Descending`."""

    rehearsed: Rehearsed
    validated: Validated

    def __init__(self, target: Target, store: Store, journal: Journal, consent: Consent) -> None:
        super().__init__(target, store, journal, consent)
        self.rolled_back: RollbackOutcome | None = None
        self._migrating: Migrating

    def take_lock(self) -> Lock:
        """Keep other runs off this target.

        Raises:
            DatabaseError: Another run is at work on it.
            ProofError: One has left something unfinished since.
        """
        return self._hold_lock("rollback")

    def rehearse(self) -> Rehearsed:
        """Build a side database from the safety backup, undo the revisions there, and look at what that has done.

        Raises:
            DatabaseError: The server refused.
            MigrationError: A downgrade failed.
            ProofError: It ended elsewhere, or costs more than was agreed to.
        """
        self.lock.check()
        intent = self._intent()
        self.exchange = Exchange(self.target, self.host, intent, self.journal)
        self._migrating = Migrating(self.target, self.exchange, self.migrations, self.descent, self.facts, self.journal)
        self._undo.callback(self._take_back)
        agreed = Agreement(self.consent.data_loss, self.consent.drift)
        with build_from_safety_backup(self.target, self.store, self.journal, intent) as (side, backup):
            clients = replace(self.clients, address=side.address)
            self.rehearsed = rehearse(
                self.target,
                clients,
                self.migrations,
                self.descent,
                backup.tables(),
                wanted=self.wanted,
                agreed=agreed,
                journal=self.journal,
            )
        return self.rehearsed

    def undo_revisions(self) -> tuple[str, ...]:
        """Undo the revisions, in one transaction on the live database or in a copy that is swapped in.

        Raises:
            LockTimeout: Somebody held a table all the time.
            MigrationError: A downgrade failed.
            DatabaseError: The server refused.
        """
        self.lock.check()
        self._migrating.copy()
        self.lock.check()
        self._migrating.run()
        return self.descent.planned.left

    def compare_schema(self) -> tuple[str, ...]:
        """Hold the live database against the plan and the rehearsal. Return its heads.

        Raises:
            ProofError: It is somewhere else, or its schema is another.
        """
        planned = self.descent.planned
        with self.journal.phase("compare"):
            with connect(self.target.database) as connection:
                found = read_heads(connection, planned.table)
            require_heads(found, planned.left, self.target.database.name, kept="it is being undone")
            drift = list_drift(self.rehearsed.schema, read_schema(self.clients), self.descent.planned.table.name)
            require_consent_to_drift(
                drift, False, "The schema is not what the rehearsal has made", kept="it is being undone"
            )
        return found

    def validate(self) -> Validated:
        """Look at what is live now: its files, its tables, its relations, and the answers to the inventory's queries.

        Raises:
            ProofError: Something does not hold.
        """
        self.exchange.check_application()
        with connect(self.target.database) as connection:
            self.validated = validate(connection, self.target.validation, self.rehearsed.orphans)
        return self.validated

    def finish(self) -> RollbackOutcome:
        """Say the last word: from now on only `--undo` takes it back."""
        self._migrating.keep()
        planned = self.descent.planned
        self.rolled_back = RollbackOutcome(
            kind="schema",
            before=planned.heads,
            after=planned.left,
            undone={one.revision: one.seconds for one in self._migrating.steps},
            losses=tuple(one.shown for one in self.rehearsed.losses),
            safety=self.safety,
            safety_sha256=self.safety_sha256,
            parked=self.exchange.intent.parked,
            forward=self._forward(),
            outage=self.outage,
            validated=self.validated,
            unverified=tuple(self.unverified),
            phases=dict(self.journal.phases),
        )
        self.journal.record("rollback finished", **self.report(), outcome=vars(self.rolled_back))
        return self.rolled_back

    def _forward(self) -> tuple[str, ...]:
        heads, ini = " ".join(self.descent.planned.heads), self.migrations.ini
        alembic = f"{self.migrations.python} -m alembic -c {ini}"
        return (
            f"{undo_command(self.target)}   brings back the database of before, with its data",
            f"cd {ini.parent} && {alembic} upgrade {heads}   goes up again from here",
        )

    def _take_back(self) -> None:
        if self.rolled_back is None:
            self._tell_undo(self._migrating.take_back)

    def _intent(self) -> Intent:
        name, planned = self.target.database.name, self.descent.planned
        names = side_name(name, self.moment), parked_name(name, self.moment)
        said = {
            "from": " ".join(planned.heads),
            "to": " ".join(planned.left),
            "version_table": planned.table.name,
            "version_table_schema": planned.table.schema or "",
            # Another name than the side database of the rehearsal: both are there for a moment.
            "copy": side_name(name, self.moment + timedelta(seconds=1)),
        }
        return self._intent_of("rollback", names, backup=self.safety, safety=self.safety, options=said)
