"""What a rollback of a schema looks at before it changes anything: the way down, and what it costs.

Each method is a step that changes nothing of the application's, and keeps what it found for later ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from opsproof.errors import DatabaseMissing, MigrationError
from opsproof.inspection.application import check_files_of
from opsproof.inspection.finding import Finding, require
from opsproof.inspection.restores.preflight import examine_rollback
from opsproof.inspection.schemas.descent import (
    UNTOUCHED,
    Descent,
    explain_target,
    require_consent_to_drift,
    require_consent_to_loss,
    require_known_stamp,
    require_reversible,
    require_same_plan,
    require_target,
)
from opsproof.inspection.schemas.drift import is_empty, list_drift, list_extension_drift
from opsproof.inspection.schemas.losses import count_losses
from opsproof.journal import Journal
from opsproof.procedures.commands import undo_command
from opsproof.procedures.confirmation import require_confirmation
from opsproof.procedures.outage.intervening import Intervening
from opsproof.procedures.rollback.precedent import find_precedent
from opsproof.procedures.rollback.rehearsal import Wanted
from opsproof.procedures.rollback.scratch import schemas_of
from opsproof.system.alembic.downgrade import read_downgrade
from opsproof.system.alembic.migrations import Migrations, Place, Planned, place_of
from opsproof.system.postgres.catalog import read_schema
from opsproof.system.postgres.databases import database_exists
from opsproof.system.postgres.dump import Clients, find_client_programs
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import DatabaseFacts, Server, connect, describe_database, read_server
from opsproof.system.store import Store
from opsproof.target import Target


@dataclass(frozen=True)
class Consent:
    """What the operator asked for, and agreed to.

    Attributes:
        revision: Where to go, as Alembic's command line takes it.
        data_loss: Whether data may go.
        drift: Whether the schema may be another than the migrations make.
        plan: The plan that was read, by its digest; None where nobody named one.
        confirmed: Whether a protected target was named.
    """

    revision: str | None = None
    data_loss: bool = False
    drift: bool = False
    plan: str | None = None
    confirmed: bool = False


class Descending(Intervening):
    """A first look at one target, its migrations, and the way down.

    Args:
        target: Whose schema to roll back.
        store: Where its backups are.
        journal: What happened.
        consent: What was asked for, and agreed to.
    """

    server: Server
    facts: DatabaseFacts
    clients: Clients
    place: Place
    migrations: Migrations
    descent: Descent

    def __init__(self, target: Target, store: Store, journal: Journal, consent: Consent) -> None:
        super().__init__(target, store, journal)
        self.consent = consent
        self.findings: tuple[Finding, ...] = ()
        # What the schema has to be afterwards; None where nobody can tell.
        self.wanted: Wanted | None = None
        self.unverified: list[str] = []

    def find_server(self) -> Server:
        """Find out what server answers, with the live database on it, and its client programs.

        Raises:
            DatabaseError: Nothing answers, or there is no such database.
            ProgramMissing: There are no client programs of the server's major version.
        """
        address = self.target.database
        with maintenance(address) as connection:
            self.server = read_server(connection)
            exists = database_exists(connection, address.name)
        if not exists:
            raise DatabaseMissing(
                f"There is no database {address.name!r} to roll back",
                expected=f"a live database on {address.server}",
                found="none",
                kept=UNTOUCHED,
                hint=f"pytest actions/test_restore.py --env={self.target.environment}",
            )
        with connect(address) as connection:
            self.facts = describe_database(connection)
        self.place = place_of(address, address.name)
        self.clients = Clients(
            self.host, find_client_programs(self.host, self.server.major, self.target.pg_bindir), address
        )
        return self.server

    def make_plan(self) -> Descent:
        """Find the way from where the database is to where it is to be.

        Raises:
            MigrationError: There is none, or it is not clear which; or Alembic cannot be asked.
        """
        self.migrations = Migrations(self.host, self.target)
        now = self.migrations.plan(self.place)
        require_known_stamp(now.history, now.heads)
        revision = require_target(now.history, now.heads, self.consent.revision)
        self.descent = self._describe(self._plan_down(now, revision))
        self.journal.record("rollback planned", **self.report())
        if self.descent.collateral:
            self.journal.warn(self.descent.collateral)
        return self.descent

    @property
    def nothing_to_do(self) -> str:
        """Return why there is nothing to do; empty where there is something, or where nobody has looked yet."""
        if hasattr(self, "descent") and self.descent.is_at_its_end:
            return f"the database is at {', '.join(self.descent.planned.heads)} already: nothing was done"
        return ""

    def require_agreement(self) -> None:
        """Make sure that the way can be gone, and that whoever asked agrees to what it costs.

        Raises:
            ProofError: A downgrade cannot be undone, data would go, or the plan is not the one that was read.
        """
        require_same_plan(self.descent, self.consent.plan)
        require_reversible(self.descent)
        require_consent_to_loss(self.descent.losses, self.consent.data_loss)

    def examine(self) -> tuple[Finding, ...]:
        """Look for what would be in the way on the server, and tell it all at once. Return what is only worth knowing.

        Raises:
            ProofError: Something is in the way, or files are missing already: the look afterwards would undo it all.
        """
        with connect(self.target.database) as live:
            check_files_of(live, self.host, self.target.filestore, kept="nothing was changed")
        with maintenance(self.target.database) as connection:
            self.findings = require(examine_rollback(connection, self.target, self.facts), "a rollback")
        for finding in self.findings:
            self.journal.warn(f"{finding.subject}: wanted {finding.expected}; found {finding.found}")
        return self.findings

    def compare_with_migrations(self) -> int:
        """Hold the live schema against what its migrations make of an empty database. Return how many lines differ.

        A scratch database is made for it, out of sight, and dropped again. Where the history does not build the schema
        from an empty one, the newest verified backup at the target tells what the schema must become.

        Raises:
            ProofError: They differ, or neither the migrations nor a backup tell, and nobody agreed to that.
            StoreError: The store, or that backup, cannot be read.
        """
        planned = self.descent.planned
        table = self.descent.planned.table.name
        live = read_schema(self.clients)
        try:
            wanted, expected = schemas_of(
                self.clients,
                self.facts,
                self.migrations,
                (planned.left, planned.heads),
                self.moment,
                self.journal,
                planned.table.schema,
            )
            if is_empty(expected, table) and not is_empty(live, table):
                raise MigrationError("the history makes no table: it was begun on a database that had them already")
        except MigrationError as error:
            return self._without_history(error)
        drift = list_drift(expected, live, table)
        require_consent_to_drift(
            drift, self.consent.drift, f"The live schema is not what its migrations make at {', '.join(planned.heads)}"
        )
        for line in list_extension_drift(expected, live):
            self.journal.warn(f"{line}: not looked at any further")
        # Where the live schema is another by consent, so will be what is left of it.
        self.wanted = None if drift else Wanted(wanted, f"the migrations make at {', '.join(planned.left) or 'base'}")
        if drift:
            self.unverified.append("the schema afterwards: the live one is not what its migrations make")
        return len(drift)

    def require_confirmation(self) -> None:
        """Let nobody change a protected environment by accident.

        Raises:
            ConfigurationError: The environment is protected, and the target was not named.
        """
        require_confirmation(self.target, self.consent.confirmed, self.plan, f"--plan={self.descent.digest}")

    def plan(self) -> list[str]:
        """Return what the rollback would do, a line each, once the looking steps have been called."""
        if self.nothing_to_do:
            return [self.nothing_to_do]
        services = ", ".join(self.target.services) or "no service"
        how = "in a copy, which is swapped in" if self.descent.not_atomic else "in one transaction"
        return [
            *self.descent.lines(),
            "take a safety backup and prove it",
            "build a side database from it, undo the revisions there, and compare its schema and its rows",
            f"stop {services}; copy {self.target.database.name!r}",
            f"undo the revisions {how}, and compare the schema",
            f"start {services}, wait for {self.target.health_url or 'nothing'}, look at it all",
            f"the database of before stays, out of sight: {undo_command(self.target)} brings it back",
        ]

    def report(self) -> dict[str, object]:
        """Return the plan for the journal."""
        planned = self.descent.planned
        return {
            "target": self.target.name,
            "current": list(planned.heads),
            "wanted": planned.target,
            "left": list(planned.left),
            "planned": [one.id for one in planned.undone],
            "plan": self.descent.digest,
            "atomic": not self.descent.not_atomic,
            "losses": [one.shown for one in self.descent.losses],
        }

    def _plan_down(self, now: Planned, revision: str, heads: Sequence[str] | None = None) -> Planned:
        at = now.heads if heads is None else tuple(heads)
        try:
            planned = self.migrations.plan(self.place, revision, heads)
        except MigrationError as error:
            raise explain_target(error, now.history, at, revision) from error
        return replace(planned, versioning=now.versioning)

    def _describe(self, planned: Planned) -> Descent:
        readings = {one.id: read_downgrade(planned.sources.get(one.id)) for one in planned.undone}
        with connect(self.target.database) as connection:
            losses = count_losses(connection, (loss for one in readings.values() for loss in one.losses))
        preview = no_preview = ""
        try:
            preview = self.migrations.preview(self.place, planned) if planned.undone else ""
            self.journal.info(f"the SQL of the downgrade, which nobody runs:\n{preview}")
        except MigrationError as error:
            no_preview = (error.found or error.summary).splitlines()[0]
        return Descent(planned, readings, losses, preview, no_preview)

    def _without_history(self, error: MigrationError) -> int:
        """Go on with a backup in the place of the migrations; or without either, if somebody agreed to that."""
        why = (error.found or error.summary).splitlines()[0]
        left = self.descent.planned.left
        found = find_precedent(self.target, self.store, self.clients, left, self.server.major, self.journal)
        if found is not None:
            self.wanted = Wanted(found.schema, f"the backup {found.backup} has, at {', '.join(left) or 'base'}")
            self.unverified.append(
                f"the schema before: the history does not build it from an empty database ({why}); the one afterwards"
                f" was compared with the backup {found.backup}"
            )
            self.journal.warn(self.unverified[-1])
            return 0
        require_consent_to_drift(
            [why],
            self.consent.drift,
            "The history does not build the schema from an empty database, and there is no verified backup at"
            f" {', '.join(left) or 'base'}",
        )
        self.unverified.append(f"the schema afterwards: the history does not build it from an empty database: {why}")
        self.journal.warn(self.unverified[-1])
        return 1
