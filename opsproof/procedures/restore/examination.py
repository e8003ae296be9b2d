"""What a restore looks at before it changes anything: the backup, the server, what would be in the way.

Each method is a step that changes nothing, and keeps what it found for later ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.catalogue.fetching import fetch
from opsproof.archive.catalogue.ownership import owner_of, require_owned
from opsproof.archive.opening import open_backup
from opsproof.archive.reading.backup import OpenedBackup
from opsproof.archive.sealing.signature import describe_authenticity
from opsproof.errors import ConfigurationError, OpsproofError
from opsproof.inspection.finding import Finding, require
from opsproof.inspection.restores.neutralized import Identity, read_identity
from opsproof.inspection.restores.preflight import examine
from opsproof.inspection.restores.situation import Situation
from opsproof.journal import Journal
from opsproof.procedures.confirmation import require_confirmation
from opsproof.procedures.procedure import Procedure
from opsproof.procedures.restore.files import FilesRestore
from opsproof.procedures.restore.neutralizing import Neutralizing, Purpose, decide
from opsproof.procedures.restore.workspace import Workspace, remove_abandoned
from opsproof.system.hosts.farfolder import placed
from opsproof.system.postgres import databases
from opsproof.system.postgres.databases import database_exists
from opsproof.system.postgres.dump import Clients, find_client_programs
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import DatabaseFacts, Server, connect, describe_database, read_server
from opsproof.system.store import Store
from opsproof.target import Target


@dataclass(frozen=True)
class Request:
    """What the operator asked for.

    `roles` maps roles of the backup to those that take their place; with `keep_identity` nothing is neutralized.
    """

    backup: str = "latest"
    at: datetime | None = None
    source: tuple[Target, Store] | None = None
    confirmed: bool = False
    safety_backup: bool = True
    in_place: bool = False
    roles: Mapping[str, str] = field(default_factory=dict)
    keep_identity: bool = False


class Examination(Procedure):
    """A first look at one target and the backup that it is to get; the other arguments are those of `Procedure`.

    Args:
        request: What was asked for.
    """

    server: Server
    facts: DatabaseFacts | None
    clients: Clients
    choice: Choice
    backup: OpenedBackup
    unpacked: Path
    dump: Path
    neutralizing: Neutralizing

    def __init__(self, target: Target, store: Store, journal: Journal, request: Request) -> None:
        super().__init__(target, store, journal)
        self.request = request
        self.findings: tuple[Finding, ...] = ()
        self._files = FilesRestore(target, self.host, journal)

    def choose_backup(self) -> Choice:
        """Choose what to bring back, before anything else happens.

        Raises:
            StoreError: There is none, or it cannot be read.
        """
        source = self.request.source
        self.choice = choose_backup(
            self.target,
            self.store,
            self.request.backup,
            self.request.at,
            source[0] if source else None,
            source[1] if source else None,
        )
        self.journal.record("backup chosen", id=self.choice.id, location=self.choice.location, why=self.choice.why)
        return self.choice

    def find_server(self) -> tuple[Server, DatabaseFacts | None]:
        """Find out what server answers, and what database is live; None where there is none.

        Raises:
            DatabaseError: Nothing answers.
        """
        address = self.target.database
        with maintenance(address) as connection:
            self.server = read_server(connection)
            exists = database_exists(connection, address.name)
        self.facts = None
        if exists:
            with connect(address) as connection:
                self.facts = describe_database(connection)
        self.journal.record("server found", server=self.server.version, live=exists)
        return self.server, self.facts

    def find_clients(self) -> Clients:
        """Find the client programs of the server's own major version.

        Raises:
            ProgramMissing: There are none.
        """
        programs = find_client_programs(self.host, self.server.major, self.target.pg_bindir)
        self.clients = Clients(self.host, programs, self.target.database)
        return self.clients

    def fetch_backup(self) -> OpenedBackup:
        """Download the backup, read all of it, and unpack the dump, in a folder of its own.

        Raises:
            ArchiveError: It is not what it must be.
            StoreError: It cannot be read.
        """
        for folder in remove_abandoned():
            self.journal.warn(f"An earlier run was killed and left {folder}: removed")
        workspace = Workspace()
        self._undo.callback(workspace.close)
        source = self.request.source
        sealing = (source[0] if source else self.target).policies.sealing
        with self.journal.phase("download"):
            path = fetch(self.choice, workspace.path, self.journal, sealing)
        with self.journal.phase("verify"):
            self.dump = workspace.path / "database"
            name = (source[0] if source else self.target).database.name
            self.backup = open_backup(path, self.choice.sidecar, self.dump, name)
            self._undo.callback(self.backup.close)
            self.unpacked, self.dump = self.dump, self._undo.enter_context(placed(self.clients.host, self.dump))
        if self.choice.sidecar is None and self.backup.manifest is not None:
            require_owned(self.backup.manifest, owner_of(self.target, source[0] if source else None))
        for sentence in self.backup.unverified:
            self.journal.warn(f"not verified: {sentence}")
        self.journal.record("backup verified", description=self.backup.description)
        return self.backup

    def examine(self) -> tuple[Finding, ...]:
        """Look for everything that would be in the way, and tell it all at once. Return what is only worth knowing.

        Raises:
            ProofError: Something is in the way.
        """
        situation = Situation(
            target=self.target,
            server=self.server,
            live=self.facts,
            clients=self.clients,
            backup=self.backup,
            dump=self.dump,
            unpacked=self.unpacked,
            roles=self.request.roles,
            in_place=self.request.in_place,
        )
        self.findings = require([*examine(situation), *self._files.examine(self.backup)])
        for finding in self.findings:
            self.journal.warn(f"{finding.subject}: wanted {finding.expected}; found {finding.found}")
        self.neutralizing = self._decide()
        return self.findings

    def plan(self) -> list[str]:
        """Return what the restore would do, a line each, once the looking steps have been called."""
        live, name = self.facts, self.target.database.name
        safety = "take a safety backup and prove it" if self.request.safety_backup else "take NO safety backup"
        sealing = (self.request.source[0] if self.request.source else self.target).policies.sealing
        odoo = self.backup.manifest.odoo if self.backup.manifest else None
        lines = [f"bring back {self.choice.location} ({self.choice.why})" + (f": {odoo.shown}" if odoo else "")]
        lines.append(describe_authenticity(sealing))
        lines.append(safety if live else "there is no live database to save")
        if self.request.in_place:
            lines += [f"stop {self._shown_services}", f"DROP {name!r} and build it anew", self.neutralizing.plan]
        else:
            lines += [f"build {self.side_name!r} beside {name!r}, and compare it with the backup"]
            lines += [self.neutralizing.plan]
            lines += [f"add missing files to {self._files.shown}"]
            lines += [f"stop {self._shown_services}", f"swap; the old one stays as {self.parked_name!r}"]
        return [*lines, f"start {self._shown_services}, wait for {self.target.health_url or 'nothing'}, look at it all"]

    def _decide(self) -> Neutralizing:
        """Find out whether what is restored is a copy; who the live database is, is asked while it is there."""
        purpose = self._purpose()
        # What is live may be damaged, which is why it is restored: only a copy has to know anything of it.
        live = self._read_live_identity() if purpose.copies and self.facts is not None else None
        self.journal.record("purpose known", copies=purpose.copies, why=purpose.why)
        return Neutralizing(self.target, self.host, purpose, live)

    def _purpose(self) -> Purpose:
        return decide(
            self.target,
            self.server.system_identifier,
            self.backup.manifest,
            self.request.source[0] if self.request.source else None,
            keep_identity=self.request.keep_identity,
        )

    def _read_live_identity(self) -> Identity | None:
        try:
            with connect(self.target.database) as connection:
                return read_identity(connection)
        except OpsproofError as error:
            self.journal.warn(f"The live database does not say who it is: {error.summary}")
            return None

    def require_confirmation(self) -> None:
        """Let nobody change a protected environment by accident.

        Raises:
            ConfigurationError: The environment is protected, and the target was not named.
        """
        require_confirmation(self.target, self.request.confirmed, self.plan)
        if self.request.in_place and not self.request.safety_backup and self.facts is not None:
            raise ConfigurationError(
                "--in-place without a safety backup would destroy the only copy",
                expected="a safety backup",
                found="--no-safety-backup",
                kept="everything",
                hint="the same command without --no-safety-backup",
            )

    @property
    def least_tables(self) -> int:
        """Return how many tables the backup says that it has; at least one, where it says nothing of itself."""
        return self.backup.manifest.totals.tables if self.backup.manifest else 1

    @property
    def side_name(self) -> str:
        """Return what the side database will be called."""
        return databases.side_name(self.target.database.name, self.moment)

    @property
    def parked_name(self) -> str:
        """Return what the database that is live now will be called."""
        return databases.parked_name(self.target.database.name, self.moment)

    @property
    def _shown_services(self) -> str:
        return ", ".join(self.target.services) or "no service"
