"""What a drill looks at before it builds anything, and how it keeps apart what it found from what it could not do.

Each public method is a step that changes nothing, and keeps what it found for later ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.catalogue.ownership import owner_of
from opsproof.archive.catalogue.verified import choose_at_random, find_verified
from opsproof.archive.reading.backup import OpenedBackup
from opsproof.errors import ConfigurationError, FilestoreError, HostError, OpsproofError, ProofError
from opsproof.inspection.finding import Finding, require
from opsproof.inspection.restores.preflight import examine
from opsproof.inspection.restores.situation import Situation
from opsproof.journal import Journal
from opsproof.procedures.blame import is_fault_of_backup, is_for_want_of_room
from opsproof.procedures.drill.drilled import Status
from opsproof.procedures.drill.trialapplication import require_sensible
from opsproof.procedures.restore.examination import Examination, Request
from opsproof.procedures.restore.files import FilesRestore
from opsproof.procedures.restore.neutralizing import Purpose
from opsproof.procedures.rollback.descending import Consent
from opsproof.procedures.scratchcopy import scratch_target
from opsproof.system.files.filestore import Filestore
from opsproof.system.postgres.databases import scratch_name
from opsproof.system.services.service import services_of
from opsproof.system.store import Store
from opsproof.target import Target


@dataclass(frozen=True)
class DrillRequest:
    """What was asked of a drill, besides which backup.

    Attributes:
        random: How far back a backup is chosen by chance.
        consent: Has the revision that the schema is rolled back to.
        dry_run: It only looks: what it comes to is no drill.
    """

    random: timedelta | None = None
    consent: Consent = field(default_factory=Consent)
    dry_run: bool = False


class Drilling(Examination):
    """A first look at one target's environment and the backup that is to be rehearsed on it.

    Args:
        target: On whose environment.
        store: Where its backups are.
        journal: What happened.
        request: Which backup.
        wish: What was asked for besides.
    """

    def __init__(self, target: Target, store: Store, journal: Journal, request: Request, wish: DrillRequest) -> None:
        super().__init__(target, store, journal, request)
        self.wish = wish
        self.name = scratch_name(target.database.name, self.moment)
        self.copy = scratch_target(target, self.name)
        self._files = FilesRestore(self.copy, self.host, journal)
        self._statuses: dict[str, Status] = {"restore": "not reached", "validation": "not reached"}
        self._why = ""

    def choose_backup(self) -> Choice:
        """Choose what is brought back.

        Raises:
            ConfigurationError: What the drill was asked for, or what the inventory says of it, cannot be done.
            StoreError: There is none, or it cannot be read.
        """
        with self._judged("restore"):
            if self.request.keep_identity:
                raise ConfigurationError(
                    "A drill's copy is always neutralized",
                    expected="no --keep-identity: the live database goes on beside the copy",
                    found="--keep-identity",
                    kept="nothing was changed",
                    hint="the same command without --keep-identity",
                )
            require_sensible(self.target.policies.drill)
            if self.wish.random is not None:
                source, store = self.source
                known = find_verified(store, owner_of(source))
                chosen = choose_at_random(known, self.wish.random, datetime.now(UTC))
                self.request = replace(self.request, backup=chosen.id)
            return super().choose_backup()

    def fetch_backup(self) -> OpenedBackup:
        """Download the backup, read all of it, and unpack the dump, in a folder of its own.

        Raises:
            ArchiveError: It is not what it must be.
            StoreError: It cannot be read.
        """
        with self._judged("restore"):
            return super().fetch_backup()

    def examine(self) -> tuple[Finding, ...]:
        """Look for everything that would be in the way of the copy. Return what is only worth knowing.

        Raises:
            NoRoom: A disk is too small, and nothing else is in the way.
            ProofError: Something is in the way.
        """
        with self._judged("restore"):
            self.copy = self._owned(self.copy)
            self._files = FilesRestore(self.copy, self.host, self.journal)
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
            self.journal.warn(f"{finding.subject}: wanted {finding.expected}; found {finding.found}")
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

    @property
    def source(self) -> tuple[Target, Store]:
        """Return whose backup is rehearsed, and where that is."""
        return self.request.source or (self.target, self.store)

    @contextmanager
    def _judged(self, question: str) -> Iterator[None]:
        """Note what an error answers: the backup's fault is a failed drill, anything else a broken one."""
        self._statuses[question] = "broken"
        try:
            yield
        except OpsproofError as error:
            is_answer = is_fault_of_backup(error)
            if question == "validation" and isinstance(error, ProofError):
                is_answer = not is_for_want_of_room(error)
            self._statuses[question] = "failed" if is_answer else "broken"
            self._why = error.summary
            raise
        except Exception as error:
            self._why = f"{type(error).__name__}: {error}"
            raise

    def _purpose(self) -> Purpose:
        # The environment's own backup, too, is a copy as long as the live database is there to send the same mails.
        known = super()._purpose()
        why = known.why if known.copies else "the live database goes on beside it"
        return Purpose(copies=True, why=why, is_final=True)

    def _owned(self, copy: Target) -> Target:
        """Return the copy with the accounts of what is live: files and application are nobody else's."""
        owner, user = copy.filestore_owner, copy.service_user
        if self.target.filestore is not None:
            with suppress(FilestoreError):
                facts = Filestore(self.host, self.target.filestore).describe()
                owner = f"{facts.owner}:{facts.group}"
        if user is None:
            with suppress(HostError):
                user = next((known for one in services_of(self.target, self.host) if (known := one.owner())), None)
        return replace(copy, filestore_owner=owner, service_user=user)
