"""Restore one target: build beside, prove, swap; what was live is kept until somebody cleans up.

Each public method is one step of `actions/test_restore.py`, after those of `Examination`, in the order in which they
stand here. `close` takes back whatever was not brought to its end.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from opsproof.archive.manifest import DatabaseRecord
from opsproof.archive.reading.backup import OpenedBackup
from opsproof.errors import OpsproofError, ProofError
from opsproof.inspection.restores.restored import Proof
from opsproof.intent import Intent, Stage
from opsproof.journal import Journal
from opsproof.procedures.outage.exchange import Exchange, Outage
from opsproof.procedures.outage.failedundo import explain_failed_undo
from opsproof.procedures.outage.intervening import Intervening
from opsproof.procedures.outage.staging import StagedFiles
from opsproof.procedures.restore.building import SideDatabase
from opsproof.procedures.restore.examination import Examination, Request
from opsproof.procedures.restore.fromsafety import restore_safety_backup
from opsproof.procedures.restore.neutralizing import Neutralized
from opsproof.system.files.adding import FilesAdded
from opsproof.system.postgres.databases import STAMP, drop_database
from opsproof.system.postgres.dropping import survives
from opsproof.system.postgres.lock import Lock
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.swap import SwapResult
from opsproof.system.store import Store
from opsproof.target import Target


@dataclass(frozen=True)
class RestoreOutcome:
    """What the restore came to, for the summary and the XML. Seconds.

    `odoo` is what the backup says of Odoo, or empty; `identity` whether it was neutralized, and why.
    """

    backup: str
    location: str
    safety: str
    parked: str
    tables: int
    rows: int
    files_present: int
    files_added: int
    files_repaired: int
    unverified: tuple[str, ...]
    outage: Outage
    phases: dict[str, float]
    odoo: str
    identity: str


class Restore(Examination, Intervening):
    """One restore of one target; arguments are those of `Examination`."""

    proof: Proof
    neutralized: Neutralized
    side: SideDatabase
    procedure = "restore"

    def __init__(self, target: Target, store: Store, journal: Journal, request: Request) -> None:
        super().__init__(target, store, journal, request)
        self.outcome: RestoreOutcome | None = None
        self._staged: StagedFiles | None = None
        self._dropped_live = False

    def take_lock(self) -> Lock:
        """Keep other runs off this target.

        Raises:
            DatabaseError: Another run is at work on it.
        """
        return self._hold_lock(self.procedure)

    def take_safety_backup(self) -> str:
        """Back up what is live, and prove that, before anything changes. Return its id; empty where nothing is live.

        Raises:
            OpsproofError: It failed.
        """
        if self.facts is not None and self.request.safety_backup:
            super().take_safety_backup()
        return self.safety

    def build_side(self) -> SideDatabase:
        """Build the side database from the backup.

        Raises:
            DatabaseError: The server refused.
            DumpError: A statement of the dump failed.
        """
        self.lock.check()
        intent = self._intent()
        self._staged = self._files.stage(self.backup, self.moment.strftime(STAMP))
        self.exchange = Exchange(self.target, self.host, intent, self.journal, self._staged)
        self.exchange.had_live = self.facts is not None
        self.side = SideDatabase(self.clients, intent.side, self.journal)
        self._undo.callback(self._take_back)
        self._build(self.backup, self.dump, intent)
        return self.side

    def prove_side(self) -> Proof:
        """Hold the side database against what was counted when the backup was taken.

        Raises:
            ProofError: It differs.
        """
        self.proof = self.side.prove(self.backup, self.dump, self.request.roles)
        return self.proof

    def neutralize(self) -> Neutralized:
        """Make a copy harmless while no application sees it; leave alone what is the environment's own, or moves.

        Raises:
            OpsproofError: A statement failed, or something of the copy would still act.
        """
        self.lock.check()
        with self.journal.phase("neutralize"):
            self.neutralized = self.neutralizing.perform(self.side.address)
        self.journal.record("neutralized", **vars(self.neutralized))
        return self.neutralized

    def add_files(self) -> FilesAdded:
        """Add the files that are missing, repair those that are wrong, look at every one.

        Raises:
            FilestoreError: They cannot be written.
        """
        self.lock.check()
        with self.journal.phase("files"):
            return self._files.add(self.backup, self._staged)

    def stop_services(self) -> int:
        """Stop the services; the outage begins. Return how many there are.

        Raises:
            HostError: One does not stop.
        """
        self.lock.check()
        if not self.exchange.is_stopped:
            self.exchange.stop_services()
        return len(self.exchange.services)

    def swap(self) -> SwapResult:
        """Swap the names.

        Raises:
            DatabaseError: The server refused; what was live is live.
        """
        self.lock.check()
        return self.exchange.swap()

    def check_application(self) -> int:
        """Look at what is live now, and whether its files are all there. Return their number.

        Raises:
            ProofError: Something is wrong.
        """
        return self.exchange.check_application()

    def finish(self) -> RestoreOutcome:
        """Say the last word: from now on only `--undo` takes it back."""
        files = self._files.added
        odoo = self.backup.manifest.odoo if self.backup.manifest else None
        outcome = RestoreOutcome(
            backup=self.choice.id,
            location=self.choice.location,
            safety=self.safety,
            parked=self.exchange.intent.parked,
            tables=self.proof.tables,
            rows=self.proof.rows,
            files_present=files.present,
            files_added=files.added,
            files_repaired=files.repaired,
            unverified=self.backup.unverified,
            outage=self.outage,
            phases=dict(self.journal.phases),
            odoo=odoo.shown if odoo else "",
            identity=self.neutralized.shown,
        )
        self.exchange.keep()
        self.outcome = outcome
        self.journal.record("restore finished", outcome=vars(outcome))
        return outcome

    def _build(self, backup: OpenedBackup, dump: Path, intent: Intent) -> None:
        record: DatabaseRecord | None = backup.manifest.database if backup.manifest else None
        shape, properties = record or self.facts, self.facts or record
        if shape is None or properties is None:
            name = self.target.database.name
            raise ProofError(
                "Neither the backup nor a live database says how the database is to be made",
                expected="a manifest, or a live database",
                found=backup.description,
                kept="nothing was changed",
                hint=f"createdb --template=template0 --encoding=UTF8 {shlex.quote(name)}   and then the same again",
            )
        # The live database's roles are those of this server already.
        roles = {} if self.facts is not None else self.request.roles
        self.exchange.connection_limit = properties.connection_limit
        self.side.create(shape, properties, intent, roles)
        if self.request.in_place and self.facts is not None:
            self.exchange.stop_services()
            with maintenance(self.target.database) as connection:
                self._dropped_live = True
                drop_database(connection, self.target.database.name, even_live=True)
        self.side.load(backup, dump, roles.get(properties.owner, properties.owner), self.request.roles)

    def _take_back(self) -> None:
        if self.outcome is not None:
            return
        try:
            done = self.exchange.take_names_back()
            if self._dropped_live and not self._is_live():
                if self._staged is not None:
                    self._staged.discard()
                restore_safety_backup(self.target, self.store, self.journal, self.exchange.intent)
                done.append(f"{self.exchange.intent.live!r} is built anew from {self.safety}")
            for line in [*done, *self.exchange.start_again()]:
                self.journal.warn(f"undone: {line}")
            with maintenance(self.target.database) as connection:
                drop_database(connection, self.exchange.intent.side)
            # Files that were added to a content-addressed filestore stay: they harm nobody.
            if self._staged is not None:
                self._staged.discard()
        except OpsproofError as error:
            raise explain_failed_undo(self.target, self.exchange.intent, error) from error

    def _is_live(self) -> bool:
        with maintenance(self.target.database) as connection:
            return survives(connection, self.target.database.name)

    def _intent(self) -> Intent:
        names = self.side_name, "" if self.request.in_place or self.facts is None else self.parked_name
        said = {"stamp": self.moment.strftime(STAMP)}
        # Where nothing is live there is nothing to build anew either.
        stage: Stage = "in place" if self.request.in_place and self.facts is not None else "building"
        return self._intent_of(
            self.procedure, names, backup=self.choice.id, safety=self.safety, options=said, stage=stage
        )
