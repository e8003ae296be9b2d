"""Rehearse a restore on an environment that goes on working: into scratch names, proven, timed, and removed again.

Each public method is one step of `actions/test_drill.py`, in the order in which they stand here. Nothing of what the
environment serves is touched. `close` removes the scratch copy whatever has happened, and puts down what the drill came
to: whether the backup restores is one question, whether what was restored is right is another, and a drill that could
not be carried out answers neither.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta

from opsproof.archive.choosing import Choice
from opsproof.archive.ownership import owner_of
from opsproof.archive.verified import choose_at_random, find_verified, taken_of
from opsproof.errors import OpsproofError, ProofError
from opsproof.inspection.attachments import Attachments, check_attachments
from opsproof.inspection.finding import Finding, require
from opsproof.inspection.objectives import RecoveryPoint, RecoveryTime, measure_point, require_objectives
from opsproof.inspection.preflight import examine
from opsproof.inspection.restored import Proof
from opsproof.inspection.situation import Situation
from opsproof.inspection.structure import Sound, check_structure
from opsproof.inspection.validation import Validated, find_orphans, validate
from opsproof.journal import Journal
from opsproof.procedures.blame import is_fault_of_backup
from opsproof.procedures.building import SideDatabase
from opsproof.procedures.descending import Consent, Descending
from opsproof.procedures.drilled import DrillOutcome, Status
from opsproof.procedures.examination import Examination, Request
from opsproof.procedures.files import FilesRestore
from opsproof.procedures.neutralizing import Neutralized
from opsproof.procedures.rehearsal import Agreement, Rehearsed, rehearse
from opsproof.procedures.scratchcopy import (
    find_abandoned_folders,
    remove_scratch_folder,
    scratch_database,
    scratch_folder,
    scratch_target,
)
from opsproof.procedures.serving import Serving
from opsproof.procedures.trialapplication import require_sensible, trial_application
from opsproof.procedures.unfinished import drop_abandoned_scratch
from opsproof.system.databases import oid_of, scratch_name
from opsproof.system.fileadding import FilesAdded
from opsproof.system.filestore import Filestore
from opsproof.system.lock import Lock, hold_lock
from opsproof.system.maintenance import maintenance
from opsproof.system.postgres import Connection, connect
from opsproof.system.store import Store
from opsproof.target import Target

MOST_TABLES = 40


@dataclass(frozen=True)
class DrillRequest:
    """What was asked of a drill, besides which backup.

    `random` is how far back a backup is chosen by chance; `consent` has the revision that the schema is rolled back to.
    """

    random: timedelta | None = None
    consent: Consent = field(default_factory=Consent)


@dataclass(frozen=True)
class Served:
    """What an environment serves, as far as a drill could have touched it."""

    database: int | None
    files: str
    services: Mapping[str, str]


class Drill(Examination):
    """One drill on one target's environment; the first arguments are those of `Examination`.

    Args:
        wish: What was asked for besides.
    """

    proof: Proof
    lock: Lock
    side: SideDatabase
    served: Served
    rto: RecoveryTime
    rpo: RecoveryPoint
    procedure = "drill"

    def __init__(self, target: Target, store: Store, journal: Journal, request: Request, wish: DrillRequest) -> None:
        super().__init__(target, store, journal, request)
        self.wish = wish
        self.outcome: DrillOutcome | None = None
        self.name = scratch_name(target.database.name, self.moment)
        self.copy = scratch_target(target, self.name)
        self._files = FilesRestore(self.copy, self.host, journal)
        self._statuses: dict[str, Status] = {"restore": "not reached", "validation": "not reached"}
        self._why = ""
        self._checks: list[str] = []
        self._unverified: list[str] = []
        self._identity = ""
        self._rows: dict[str, tuple[int, int]] = {}
        self._began = time.monotonic()
        self._has_begun = False

    def choose_backup(self) -> Choice:
        """Choose what is brought back; with it the clock of the recovery time begins.

        Raises:
            StoreError: There is none, or it cannot be read.
        """
        self._began = time.monotonic()
        require_sensible(self.target.policies.drill)
        with self._judged("restore"):
            if self.wish.random is not None:
                source, store = self.request.source or (self.target, self.store)
                known = find_verified(store, owner_of(source))
                chosen = choose_at_random(known, self.wish.random, datetime.now(UTC))
                self.request = replace(self.request, backup=chosen.id)
            return super().choose_backup()

    def examine(self) -> tuple[Finding, ...]:
        """Look for everything that would be in the way of the copy. Return what is only worth knowing.

        Raises:
            ProofError: Something is in the way.
        """
        with self._judged("restore"):
            # Nothing is swapped: what is live is not in the way, and keeps what it has.
            situation = Situation(
                target=replace(self.copy, database=self.target.database),
                server=self.server,
                live=None,
                clients=self.clients,
                backup=self.backup,
                dump=self.dump,
                unpacked=self.unpacked,
                roles=self.request.roles,
            )
            self.findings = require([*examine(situation), *self._files.examine(self.backup)], "a drill")
        for finding in self.findings:
            self.journal.warn(f"{finding.subject}: {finding.expected}: {finding.found}")
        self.neutralizing = self._decide()
        return self.findings

    def plan(self) -> list[str]:
        """Return what the drill would do, a line each, once the looking steps have been called."""
        drill, revision = self.target.policies.drill, self.wish.consent.revision
        folder = f", its files into {self.copy.filestore.path}" if self.copy.filestore else ""
        return [
            f"rehearse a restore of {self.choice.location} ({self.choice.why})",
            f"build {self.name!r} beside {self.target.database.name!r}{folder}, and compare both with the backup",
            self.neutralizing.plan,
            "look at its data, its relations, its files, its tables and indexes",
            f"start {drill.command}, ask {drill.health_url}"
            if drill.command
            else "start no application: no drill.command",
            *([f"roll its schema back to {revision}"] if revision else []),
            "remove all of it; what is live is not touched",
        ]

    def take_lock(self) -> Lock:
        """Keep other runs off this target, and remove what a killed drill has left.

        Raises:
            DatabaseError: Another run is at work on it.
            FilestoreError: A folder cannot be removed.
        """
        self.lock = self._undo.enter_context(hold_lock(self.target.database, self.procedure))
        self._has_begun = True
        for name in drop_abandoned_scratch(self.target):
            self.journal.warn(f"An earlier drill was killed and left {name!r}: dropped")
        filestore = self.target.filestore
        for name in find_abandoned_folders(self.host, self.target):
            if filestore is not None:
                remove_scratch_folder(self.host, filestore, name)
                self.journal.warn(f"An earlier drill was killed and left {scratch_folder(filestore, name)}: removed")
        return self.lock

    def note_served(self) -> Served:
        """Note what the environment serves, to compare it afterwards."""
        self.served = self._look_at_served()
        return self.served

    def build_copy(self) -> SideDatabase:
        """Build the scratch database from the backup.

        Raises:
            DatabaseError: The server refused.
            DumpError: A statement of the dump failed.
        """
        self.lock.check()
        with self._judged("restore"):
            self.side = self._undo.enter_context(
                scratch_database(self.clients, self.name, self.backup, self.facts, self.journal)
            )
            record = self.backup.manifest.database if self.backup.manifest else None
            owner = self.facts.owner if self.facts else (record.owner if record else self.server.user)
            roles = {} if self.facts else self.request.roles
            self.side.load(self.backup, self.dump, roles.get(owner, owner), self.request.roles)
        return self.side

    def prove_copy(self) -> Proof:
        """Hold the copy against what was counted when the backup was taken.

        Raises:
            ProofError: It differs.
        """
        with self._judged("restore"):
            self.proof = self.side.prove(self.backup, self.dump, self.request.roles)
        self._unverified += [*self.backup.unverified, *self.proof.unverified]
        biggest = sorted(self.backup.tables(), key=lambda one: (-one.rows, one.table))[:MOST_TABLES]
        # As many as the backup says: that is what was just proven.
        self._rows = {one.table: (one.rows, one.rows) for one in biggest}
        return self.proof

    def neutralize(self) -> Neutralized:
        """Make the copy harmless while no application sees it.

        Raises:
            OpsproofError: A statement failed, or something of the copy would still act.
        """
        with self._judged("restore"), self.journal.phase("neutralize"):
            done = self.neutralizing.perform(self.side.address)
        self._identity = done.shown
        return done

    def bring_files(self) -> FilesAdded:
        """Bring the files back, beside the live ones.

        Raises:
            FilestoreError: They cannot be written.
            ArchiveError: One is not what was backed up.
        """
        self.lock.check()
        filestore = self.target.filestore
        with self._judged("restore"), self.journal.phase("files"):
            if filestore is not None and self.backup.files_count:
                self._undo.callback(remove_scratch_folder, self.host, filestore, self.name)
            added = self._files.add(self.backup, None)
        self._statuses["restore"] = "passed"
        return added

    def check_data(self) -> Validated:
        """Look at the copy's tables, relations and the inventory's queries, and at the files that its rows name.

        Raises:
            ProofError: Something does not hold.
        """
        with self._judged("validation"), self.journal.phase("checks"), connect(self.copy.database) as connection:
            # What did not hold when the backup was taken is no fault of the restore: it is told.
            orphans = find_orphans(connection)
            validated = validate(connection, self.target.validation, orphans)
            self._checks.append(
                f"{validated.tables:,} tables, {validated.relations:,} relations, {validated.queries:,} queries hold"
            )
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
        with self._judged("validation"), self.journal.phase("amcheck"), connect(self.copy.database) as connection:
            sound = check_structure(connection)
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
                trial_application(self.copy, self.host, drill) as seconds,
            ):
                told = f"the application answers on the copy after {seconds:.1f} s"
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
            rehearsed = rehearse(
                self.copy,
                replace(self.clients, address=self.copy.database),
                descending.migrations,
                descent,
                self.backup.tables(),
                wanted=None,
                agreed=Agreement(consent.data_loss, consent.drift),
                journal=self.journal,
            )
        self._checks.append(f"rolled back by {len(rehearsed.steps)} revisions to {consent.revision}")
        return rehearsed

    def meet_objectives(self) -> tuple[RecoveryTime, RecoveryPoint]:
        """Hold the recovery time, and what would be lost, against the inventory's objectives.

        Raises:
            ProofError: One is missed; names the phase that cost most.
            StoreError: The store cannot be listed.
        """
        with self._judged("validation"):
            source, store = self.request.source or (self.target, self.store)
            known = find_verified(store, owner_of(source))
            manifest, window = self.backup.manifest, self.target.policies.drill.window
            taken = manifest.taken if manifest else datetime.now(UTC)
            times = [taken_of(one) for one in known]
            self.rpo = measure_point(taken, times, datetime.now(UTC), self.target.policies.objectives, window)
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
        lock, self._undo = self._undo.pop_all(), self._undo
        lock.close()
        found = self._look_at_served()
        if (found.database, found.files) != (self.served.database, self.served.files):
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
            if self._has_begun and self.outcome is None:
                self._conclude()

    def _conclude(self) -> DrillOutcome:
        manifest = self.backup.manifest if hasattr(self, "backup") else None
        self.outcome = DrillOutcome(
            backup=self.choice.id,
            location=self.choice.location,
            source=f"{manifest.environment}/{manifest.target}" if manifest else self.choice.location,
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
        return self.outcome

    @contextmanager
    def _judged(self, question: str) -> Iterator[None]:
        """Note what an error answers: the backup's fault is a failed drill, anything else a broken one."""
        self._statuses[question] = "broken"
        try:
            yield
        except OpsproofError as error:
            is_answer = is_fault_of_backup(error) or (question == "validation" and isinstance(error, ProofError))
            self._statuses[question] = "failed" if is_answer else "broken"
            self._why = error.summary
            raise

    def _measure_time(self) -> None:
        objective = self.target.policies.objectives.rto
        self.rto = RecoveryTime(
            objective=objective.total_seconds() if objective else None,
            measured=time.monotonic() - self._began,
            phases=dict(self.journal.phases),
        )

    def _check_files(self, connection: Connection) -> Attachments | None:
        settings = self.copy.filestore
        if settings is None or not self.backup.files_count:
            return None
        return check_attachments(connection, Filestore(self.host, settings))

    def _look_at_served(self) -> Served:
        with maintenance(self.target.database) as connection:
            oid = oid_of(connection, self.target.database.name)
        files = ""
        if self.target.filestore is not None:
            done = self.host.run("stat", "--format=%d:%i", "--", str(self.target.filestore.path), accept=(0, 1))
            files = done.stdout.strip()
        services = Serving(self.target, self.host, self.journal).services
        return Served(oid, files, {one.label: str(one.status().pids) for one in services})
