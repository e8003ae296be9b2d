"""Rehearse a restore on an environment that goes on working: into scratch names, proven, timed, and removed again.

Each public method is one step of `actions/test_drill.py`, in the order in which they stand here. Nothing of what the
environment serves is touched. `close` removes the scratch copy whatever has happened, and puts down what the drill came
to: whether the backup restores is one question, whether what was restored is right is another, and a drill that could
not be carried out answers neither.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.catalogue.drills import read_drills
from opsproof.archive.catalogue.ownership import owner_of
from opsproof.archive.catalogue.verified import find_verified, taken_of
from opsproof.archive.manifest import TableRecord
from opsproof.errors import OpsproofError, ProofError
from opsproof.inspection.attachments import Attachments, check_attachments
from opsproof.inspection.databases.looking import Unanswered
from opsproof.inspection.databases.structure import Sound
from opsproof.inspection.objectives import RecoveryPoint, RecoveryTime, measure_point, require_objectives
from opsproof.inspection.restores.restored import read_contents
from opsproof.inspection.validation import Validated, find_orphans, validate
from opsproof.journal import Journal
from opsproof.policies import Objectives
from opsproof.procedures.drill.drilled import DrillOutcome
from opsproof.procedures.drill.drilling import DrillRequest
from opsproof.procedures.drill.rebuilding import Rebuilding
from opsproof.procedures.drill.trialapplication import trial_application
from opsproof.procedures.outage.serving import Serving
from opsproof.procedures.restore.examination import Request
from opsproof.procedures.rollback.descending import Descending
from opsproof.procedures.rollback.rehearsal import Agreement, Rehearsed, rehearse
from opsproof.system.files.filestore import Filestore
from opsproof.system.postgres.databases import oid_of
from opsproof.system.postgres.dump import Clients
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection, connect
from opsproof.system.store import Store
from opsproof.target import Target, ValidationSettings


@dataclass(frozen=True)
class Served:
    """What an environment serves, as far as a drill could have touched it."""

    database: int | None
    files: str
    services: Mapping[str, str]


class Drill(Rebuilding):
    """One drill on one target's environment; the arguments are those of `Drilling`."""

    served: Served
    rto: RecoveryTime
    rpo: RecoveryPoint

    def __init__(self, target: Target, store: Store, journal: Journal, request: Request, wish: DrillRequest) -> None:
        super().__init__(target, store, journal, request, wish)
        self.outcome: DrillOutcome | None = None
        self._began: float | None = None

    def choose_backup(self) -> Choice:
        """Choose what is brought back; with it the clock of the recovery time begins.

        Raises:
            ConfigurationError: What the drill was asked for, or what the inventory says of it, cannot be done.
            StoreError: There is none, or it cannot be read.
        """
        self._began = time.monotonic()
        return super().choose_backup()

    def note_served(self) -> Served:
        """Note what the environment serves, to compare it afterwards."""
        self.served = self._look_at_served()
        return self.served

    def check_data(self) -> Validated:
        """Look at the copy's tables, relations and the inventory's queries, and at the files that its rows name.

        Raises:
            ProofError: Something does not hold.
        """
        with self._judged("validation"), self.journal.phase("checks"), connect(self.copy.database) as connection:
            # What did not hold when the backup was taken is no fault of the restore: it is told.
            orphans = find_orphans(connection, unproven=True)
            validated = validate(connection, self.target.validation, foreign_keys=False)
            if self.target.validation != ValidationSettings():
                tables, relations, queries = validated.tables, validated.relations, validated.queries
                self._checks.append(f"{tables:,} tables, {relations:,} relations, {queries:,} queries hold")
            self._unverified += [f"{one} (as in the backup)" for one in sorted(orphans)]
            found = self._check_files(connection)
            if found is not None:
                self._checks.append(f"{found.named:,} files that its rows name are there, {found.files:,} files in all")
        return validated

    def check_structure(self) -> Sound:
        """Look through every table and index of the copy, where the role may.

        Raises:
            DatabaseError: One is not sound.
        """
        with self._judged("validation"), self.journal.phase("amcheck"):
            sound = self.soundness()
        if sound.unverified:
            self._unverified.append(sound.unverified)
        else:
            self._checks.append(f"amcheck: {sound.indexes:,} indexes and {sound.tables:,} tables are sound")
        return sound

    def start_application(self) -> str:
        """Start the application on the copy, where the inventory says how, and end it again. Return what came of it.

        Raises:
            ProofError: It does not answer.
            HostError: It cannot be started.
        """
        drill = self.target.policies.drill
        if not drill.command:
            told = "the application: not started, as the inventory has no drill.command"
            self._unverified.append(told)
        else:
            with (
                self._judged("validation"),
                self.journal.phase("application"),
                trial_application(self.copy, self.host, drill) as answered,
            ):
                told = f"the application answers on the copy after {answered.seconds:.1f} s"
            if not answered.sessions:
                self._unverified.append("that the application uses the copy: it has no session in it when it answers")
            self._checks.append(told)
        self._measure_time()
        return told

    def rehearse_rollback(self) -> Rehearsed | None:
        """Roll the copy's schema back, if that was asked for.

        Raises:
            MigrationError: A downgrade failed, or there is no such way.
            ProofError: It costs more than was agreed to.
        """
        consent = self.wish.consent
        if consent.revision is None:
            return None
        with self._judged("validation"):
            descending = Descending(self.copy, self.store, self.journal, consent)
            descending.find_server()
            descent = descending.make_plan()
            descending.require_agreement()
            clients = replace(self.clients, address=self.copy.database)
            rehearsed = rehearse(
                self.copy,
                clients,
                descending.migrations,
                descent,
                self._read_tables(clients),
                wanted=None,
                agreed=Agreement(consent.data_loss, consent.drift),
                journal=self.journal,
            )
        undone = "1 revision" if len(rehearsed.steps) == 1 else f"{len(rehearsed.steps)} revisions"
        self._checks.append(f"rolled back by {undone} to {', '.join(descent.planned.left) or 'base'}")
        return rehearsed

    def meet_objectives(self) -> tuple[RecoveryTime, RecoveryPoint]:
        """Hold the recovery time, and what would be lost, against the inventory's objectives.

        Raises:
            ProofError: One is missed; names the phase that cost most.
            StoreError: The store cannot be listed.
        """
        with self._judged("validation"):
            source, store = self.source
            own, theirs = self.target.policies, source.policies.objectives
            objectives = Objectives(own.objectives.rto or theirs.rto, own.objectives.rpo or theirs.rpo)
            window = min(own.drill.window, source.policies.retention.dense_for or own.drill.window)
            times = [taken_of(one) for one in find_verified(store, owner_of(source))]
            manifest, now = self.backup.manifest, datetime.now(UTC)
            taken = manifest.taken if manifest else None
            self.rto = replace(self.rto, objective=objectives.rto.total_seconds() if objectives.rto else None)
            self.rpo = measure_point(taken, times, now, objectives, window)
            self.journal.record("objectives measured", rto=asdict(self.rto), rpo=asdict(self.rpo))
            require_objectives(self.rto, self.rpo)
        self._statuses["validation"] = "passed"
        return self.rto, self.rpo

    def leave_nothing(self) -> None:
        """Remove the copy now, and look that what the environment serves is what it was.

        Raises:
            ProofError: What is live has changed.
            DatabaseError: The scratch database cannot be dropped.
            FilestoreError: Its files cannot be removed.
        """
        self._remove_copy()
        found = self._look_at_served()
        if (found.database, found.files) != (self.served.database, self.served.files):
            self._statuses["validation"], self._why = "broken", "what is live has changed meanwhile"
            raise ProofError(
                "What is live is not what it was before the drill",
                expected=str(self.served),
                found=str(found),
                kept="the drill has touched nothing but its own names",
                hint="look who has restored or rolled back meanwhile: logs/",
            )
        for label, pids in found.services.items():
            if pids != self.served.services.get(label):
                self.journal.warn(f"{label} was restarted during the drill, by somebody else")

    def finish(self) -> DrillOutcome:
        """Say the last word."""
        return self._conclude()

    def close(self) -> None:
        """Remove what is left of the copy, and put down what the drill came to.

        Raises:
            OpsproofError: Something cannot be removed; its hint is what to type.
        """
        try:
            self._undo.close()
        finally:
            if self._began is not None and self.outcome is None and not self.wish.dry_run:
                self._conclude()

    def _conclude(self) -> DrillOutcome:
        manifest = self.backup.manifest if hasattr(self, "backup") else None
        choice = getattr(self, "choice", None)
        location = choice.location if choice else ""
        self.outcome = DrillOutcome(
            backup=choice.id if choice else "",
            location=location,
            source=f"{manifest.environment}/{manifest.target}" if manifest else location,
            restore=self._statuses["restore"],
            validation=self._statuses["validation"],
            why=self._why,
            rto=getattr(self, "rto", None),
            rpo=getattr(self, "rpo", None),
            tables=self.proof.tables if hasattr(self, "proof") else 0,
            rows_total=self.proof.rows if hasattr(self, "proof") else 0,
            files=self._files.added.added,
            rows=self._rows,
            checks=tuple(self._checks),
            unverified=tuple(self._unverified),
            identity=self._identity,
            phases=dict(self.journal.phases),
        )
        self.journal.record("drill finished", outcome=asdict(self.outcome))
        self._tell_history()
        return self.outcome

    def _tell_history(self) -> None:
        """Put the drills of before beside this one; that they cannot be read makes it no worse."""
        try:
            history = read_drills(self.store, self.target)
        except OpsproofError as error:
            self.journal.warn(f"Earlier drills cannot be told: {error.summary}")
            return
        for fault in history.faults:
            self.journal.warn(f"An earlier drill does not count: {fault}")
        self.journal.record("drill history", history=[asdict(one) for one in history.drills])

    def _measure_time(self) -> None:
        began = self._began if self._began is not None else time.monotonic()
        self.rto = RecoveryTime(None, time.monotonic() - began + self._saved, dict(self.journal.phases))

    def _check_files(self, connection: Connection) -> Attachments | None:
        settings = self.copy.filestore
        if settings is None or not self._has_files:
            if settings is not None:
                self._unverified.append("attachments: the backup has no filestore to compare its rows with")
            elif self.backup.files_count:
                self._unverified.append(f"{self.backup.files_count:,} files: the inventory has no filestore here")
            return None
        try:
            return check_attachments(connection, Filestore(self.host, settings))
        except Unanswered as error:
            self._unverified.append(f"attachments: {error.summary}")
            return None

    def _read_tables(self, clients: Clients) -> list[TableRecord]:
        """Return what is in the copy now: neutralizing has changed it, and the application may have."""
        manifest = self.backup.manifest
        full = manifest is not None and manifest.fingerprint == "full"
        found = read_contents(clients, full=full)
        return [
            TableRecord(table=label, rows=one.rows or 0, fingerprint=one.fingerprint if full else None)
            for label, one in found.items()
        ]

    def _look_at_served(self) -> Served:
        with maintenance(self.target.database) as connection:
            oid = oid_of(connection, self.target.database.name)
        files = ""
        if self.target.filestore is not None:
            done = self.host.run("stat", "--format=%d:%i", "--", str(self.target.filestore.path), accept=(0, 1))
            files = done.stdout.strip()
        services = Serving(self.target, self.host, self.journal).services
        return Served(oid, files, {one.label: str(one.status().pids) for one in services})
