"""Roll data back to a backup, or data and schema together: a restore, with the downgrade on its side database.

The public methods that are not a restore's are steps of `TestDataRollback` and `TestFullRollback` in
`actions/test_rollback.py`.
"""

from __future__ import annotations

from dataclasses import replace

from opsproof.errors import MigrationError
from opsproof.inspection.restores.restored import Proof
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
from opsproof.inspection.schemas.losses import count_losses
from opsproof.inspection.validation import Validated, find_orphans, validate
from opsproof.journal import Journal
from opsproof.procedures.commands import restore_command, rollback_command, undo_command
from opsproof.procedures.restore.examination import Request
from opsproof.procedures.restore.procedure import Restore, RestoreOutcome
from opsproof.procedures.rollback.descending import Consent
from opsproof.procedures.rollback.precedent import find_precedent
from opsproof.procedures.rollback.rehearsal import Agreement, Rehearsed, Wanted, rehearse
from opsproof.procedures.rollback.rolledback import RollbackOutcome
from opsproof.procedures.rollback.scratch import schemas_of
from opsproof.system.alembic.downgrade import read_downgrade
from opsproof.system.alembic.migrations import (
    NOWHERE,
    Migrations,
    Place,
    Planned,
    Versioning,
    VersionTable,
    place_of,
    read_heads,
)
from opsproof.system.postgres.dumpfile import DumpFile
from opsproof.system.postgres.server import DatabaseFacts, Server, connect
from opsproof.system.store import Store
from opsproof.target import Target

LIVE = "the live database and its services are as they were"


class DataRollback(Restore):
    """One rollback of one target's data; arguments are those of `Restore`."""

    kind = "data"
    procedure = "rollback"
    validated: Validated

    def __init__(self, target: Target, store: Store, journal: Journal, request: Request) -> None:
        super().__init__(target, store, journal, request)
        self.rolled_back: RollbackOutcome | None = None
        self.rehearsed: Rehearsed | None = None
        self._before: tuple[str, ...] = ()
        self._orphans: frozenset[str] = frozenset()

    def find_server(self) -> tuple[Server, DatabaseFacts | None]:
        """Find out what server answers, what database is live, and at which revision it is; see `Examination`."""
        found = super().find_server()
        self._before = self._heads() if self.facts is not None else ()
        return found

    def prove_side(self) -> Proof:
        """Hold the side database against its backup, and note the orphans that the backup has; see `Restore`."""
        proof = super().prove_side()
        with connect(self.side.address) as connection:
            self._orphans = find_orphans(connection)
        return proof

    def validate(self) -> Validated:
        """Look at what is live now: its files, its tables, its relations, and the answers to the inventory's queries.

        Raises:
            ProofError: Something does not hold.
        """
        self.check_application()
        with connect(self.target.database) as connection:
            self.validated = validate(connection, self.target.validation, self._orphans)
        return self.validated

    def finish_rollback(self) -> RollbackOutcome:
        """Say the last word: from now on only `--undo` takes it back."""
        restored = self.finish()
        rehearsed = self.rehearsed
        self.rolled_back = RollbackOutcome(
            kind=self.kind,
            before=self._before,
            after=self._heads(),
            undone={one.revision: one.seconds for one in rehearsed.steps} if rehearsed else {},
            losses=tuple(one.shown for one in rehearsed.losses) if rehearsed else (),
            safety=restored.safety,
            safety_sha256=self.safety_sha256,
            parked=restored.parked,
            forward=self._ways_forward(restored),
            outage=self.outage,
            validated=self.validated,
            unverified=restored.unverified,
            phases=dict(self.journal.phases),
            backup=restored.location,
        )
        self.journal.record("rollback finished", backup=self.choice.id, outcome=vars(self.rolled_back))
        return self.rolled_back

    def _ways_forward(self, restored: RestoreOutcome) -> tuple[str, ...]:
        if restored.parked:
            return (f"{undo_command(self.target)}   brings back the database of before, with its data",)
        if restored.safety:
            # Nothing is parked: an undo would take back an earlier restore, if there was one.
            return (f"{restore_command(self.target, restored.safety)}   brings back what was live, as it was saved",)
        return ()

    def _heads(self) -> tuple[str, ...]:
        with connect(self.target.database) as connection:
            return read_heads(connection, self._version_table)

    @property
    def _version_table(self) -> VersionTable:
        return VersionTable()


class FullRollback(DataRollback):
    """One rollback of one target's data to a backup, and of its schema to a revision below the backup's.

    Args:
        target: Whose.
        store: Where its backups are.
        journal: What happened.
        request: Which backup it is to be.
        consent: Which revision, and what was agreed to.
    """

    kind = "full"
    descent: Descent
    migrations: Migrations

    def __init__(self, target: Target, store: Store, journal: Journal, request: Request, consent: Consent) -> None:
        super().__init__(target, store, journal, request)
        self.consent = consent
        self._versioning: Versioning | None = None
        self._wanted: Wanted | None = None

    def make_plan(self) -> Descent:
        """Find the way from where the backup is to where it is to be.

        Raises:
            MigrationError: The backup is below that already, or there is no way.
            ProofError: A downgrade cannot be undone, or the plan is not the one that was read.
        """
        self.migrations = Migrations(self.host, self.target)
        place = NOWHERE if self.facts is None else place_of(self.target.database, self.target.database.name)
        if self.facts is not None:
            # Where env.py keeps its revisions is known of the live database only.
            live = self.migrations.plan(place)
            self._versioning, self._before = live.versioning, live.heads
        heads = self.backup_heads
        now = self.migrations.plan(place, heads=heads)
        require_known_stamp(now.history, heads)
        revision = require_target(now.history, heads, self.consent.revision)
        planned = replace(self._plan_down(now, place, heads, revision), versioning=self._versioning)
        readings = {one.id: read_downgrade(planned.sources.get(one.id)) for one in planned.undone}
        self.descent = Descent(planned, readings, no_preview="it is done on the side database")
        require_same_plan(self.descent, self.consent.plan)
        require_reversible(self.descent)
        self._wanted = self._find_wanted(planned) if planned.undone else None
        self.journal.record("rollback planned", current=list(heads), wanted=revision, plan=self.descent.digest)
        return self.descent

    def plan(self) -> list[str]:
        """Return what the rollback would do, a line each."""
        return [*self.descent.lines(), *super().plan()]

    def undo_revisions(self) -> Rehearsed:
        """Undo the revisions on the side database, which is not live yet, and look at what that has done.

        Raises:
            MigrationError: A downgrade failed.
            ProofError: It ended elsewhere, or more is lost than was agreed to.
        """
        self.lock.check()
        clients = replace(self.clients, address=self.side.address)
        losses = (loss for reading in self.descent.readings.values() for loss in reading.losses)
        with connect(self.side.address) as connection:
            descent = replace(self.descent, losses=count_losses(connection, losses))
        require_consent_to_loss(descent.losses, self.consent.data_loss, kept=LIVE)
        self.rehearsed = rehearse(
            self.target,
            clients,
            self.migrations,
            descent,
            self.backup.tables(),
            wanted=self._wanted,
            agreed=Agreement(self.consent.data_loss, self.consent.drift),
            journal=self.journal,
        )
        return self.rehearsed

    @property
    def _version_table(self) -> VersionTable:
        return self._versioning.table if self._versioning else VersionTable()

    @property
    def backup_heads(self) -> tuple[str, ...]:
        """Return the revision that is in the archive itself: a restore brings that back, too."""
        # A manifest has the revisions of Alembic's usual table.
        if self.backup.manifest is not None and self._version_table.name == VersionTable().name:
            return self.backup.manifest.alembic_revisions
        if self.backup.database_format == "custom":
            return DumpFile(self.dump, self.clients.programs, self.clients.host).lines_of(self._version_table.name)
        raise MigrationError(
            "The backup does not say at which revision it is",
            expected="a manifest, or a custom dump",
            found=self.backup.description,
            kept=UNTOUCHED,
            hint="roll the data back first (--type=data), then the schema (--type=schema)",
        )

    def _find_wanted(self, planned: Planned) -> Wanted | None:
        """Return what the schema has to be at the target, as the migrations make it, or a backup has it."""
        shape = self.facts or (self.backup.manifest.database if self.backup.manifest else None)
        left = ", ".join(planned.left) or "base"
        why = "neither a live database nor the backup says how a database is to be made"
        if shape is not None:
            try:
                (schema,) = schemas_of(
                    self.clients, shape, self.migrations, (planned.left,), self.moment, self.journal,
                    planned.table.schema,
                )  # fmt: skip
                return Wanted(schema, f"the migrations make at {left}")
            except MigrationError as error:
                why = (error.found or error.summary).splitlines()[0]
        found = find_precedent(self.target, self.store, self.clients, planned.left, self.server.major, self.journal)
        if found is not None:
            return Wanted(found.schema, f"the backup {found.backup} has, at {left}")
        require_consent_to_drift(
            [why], self.consent.drift, "The history does not build the schema from an empty database"
        )
        return None

    def _plan_down(self, now: Planned, place: Place, heads: tuple[str, ...], revision: str) -> Planned:
        try:
            return self.migrations.plan(place, revision, heads)
        except MigrationError as error:
            told = explain_target(error, now.history, heads, revision)
            known = [one.id for one in now.history.revisions if one.id.startswith(revision)]
            if len(known) == 1 and known[0] not in now.history.applied(heads):
                told.summary = f"The backup {self.choice.id} is below {known[0]} already"
                told.expected = f"a backup at {known[0]} or above it"
                told.hint = (
                    f"roll the data back alone: {rollback_command(self.target, 'data')} --backup={self.choice.id}"
                )
            raise told from error
