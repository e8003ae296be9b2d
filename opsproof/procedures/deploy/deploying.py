"""What a deploy looks at before it changes anything: the release, the host's folders, the server, the room.

Each method is a step that changes nothing, and keeps what it found for later ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from opsproof.errors import ConfigurationError, DatabaseMissing, OpsproofError
from opsproof.inspection.finding import Finding, require
from opsproof.inspection.restores.preflight import examine_rollback
from opsproof.journal import Journal
from opsproof.procedures.commands import restore_command
from opsproof.procedures.confirmation import require_confirmation
from opsproof.procedures.deploy.changing import Changing
from opsproof.procedures.deploy.hooks import Hooks
from opsproof.procedures.restore.workspace import Workspace
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Server
from opsproof.system.releases.package import Package
from opsproof.system.releases.source import pack
from opsproof.system.releases.upload import room_for
from opsproof.system.services.service import services_of
from opsproof.system.store import Store
from opsproof.target import Target

# Of what the files need: their folders and the ends of their last blocks come on top.
ROOM_SHARE = 1.1


@dataclass(frozen=True)
class DeployRequest:
    """What the operator asked for.

    Attributes:
        release: What to deploy: a folder, an archive, `URL#ref`; None where nobody said so.
        reuse_backup: How old a verified backup may be to stand for the one that is taken before; None takes one.
        confirmed: Whether a protected target was named.
        data_loss: Whether an empty database may take the place of one that earlier deploys had.
    """

    release: str | None = None
    reuse_backup: timedelta | None = None
    confirmed: bool = False
    data_loss: bool = False


class Deploying(Changing):
    """A first look at one target, and at what is to be deployed there.

    Args:
        target: Where to.
        store: Where its backups are.
        journal: What happened.
        request: What was asked for.
    """

    package: Package

    def __init__(self, target: Target, store: Store, journal: Journal, request: DeployRequest) -> None:
        super().__init__(target, store, journal)
        self.request = request
        self.hooks = Hooks(target, self.releases.host, journal)

    def choose_release(self) -> Package:
        """Get the release, and pack it on this machine.

        Raises:
            ConfigurationError: Nobody said which, or there is no such release.
            HostError: It cannot be read.
        """
        if self.request.release is None:
            raise ConfigurationError(
                "Nobody said what to deploy",
                expected="--release=SOURCE: a folder, an archive, or a git repository with a ref",
                found="none",
                kept="nothing was changed",
                hint=f"pytest actions/test_deploy.py --env={self.target.environment} --release=. --dry-run",
            )
        workspace = Workspace()
        self._undo.callback(workspace.close)
        with self.journal.phase("pack"):
            self.package = pack(self.request.release, workspace.path)
        self.journal.record(
            "release packed",
            source=self.package.source,
            revision=self.package.revision,
            files=len(self.package.files),
            bytes=self.package.bytes,
        )
        return self.package

    def find_server(self) -> Server:
        """Find out what server answers, and whether the database is there.

        Raises:
            DatabaseError: Nothing answers.
        """
        try:
            return super().find_server()
        except DatabaseMissing:
            self.facts = None
        return self.server

    def examine(self) -> tuple[Finding, ...]:
        """Look at the folders, the room and the services. Return what is only worth knowing.

        Raises:
            ProofError: Something is in the way.
            HostError: The host cannot be reached.
        """
        self.layout = self.releases.look()
        for service in services_of(self.target, self.host):
            service.status()  # one that its manager does not know is told now, and not in the outage
        findings = [*self._examine_room(), *self._examine_link(), *self._examine_database()]
        found = require(findings, "a deploy")
        for one in found:
            self.journal.warn(f"{one.subject}: wanted {one.expected}; found {one.found}")
        return found

    def require_confirmation(self) -> None:
        """Let nobody change a protected environment by accident.

        Raises:
            ConfigurationError: The environment is protected, and the target was not named.
        """
        require_confirmation(self.target, self.request.confirmed, self.plan)

    @property
    def previous(self) -> str:
        """Return the release that is live; empty where there is none, or `current` leads to one that is gone."""
        return "" if self.layout.dangles else self.layout.current

    def plan(self) -> list[str]:
        """Return what the deploy would do, a line each, once the looking steps have been called."""
        target, deploy = self.target, self.target.deploy
        services = ", ".join(target.services) or "no service"
        reuse = self.request.reuse_backup
        backup = f"take a backup and prove it, unless a verified one is younger than {reuse}" if reuse else ""
        return [
            f"release {self.package.revision} of {self.package.source}: {len(self.package.files):,} files,"
            f" {self.package.bytes:,} bytes; live is {self.layout.current or 'none'}",
            backup or ("take a backup and prove it" if self.facts else f"make {target.database.name!r}"),
            f"upload it to {self.releases.root}, and read it back there",
            *self._hook_lines("after_update_code"),
            *([f"link {', '.join(deploy.shared)} to {self.releases.shared}"] if deploy.shared else []),
            *self._hook_lines("before_symlink"),
            *self._database_lines(),
            f"stop {services}, let {self.releases.folder}/current lead to it, start them",
            f"wait for {target.health_url or 'nothing'}, look at the data; else all of it is taken back",
            f"keep {deploy.keep_releases} releases, and those that are needed",
            *self._hook_lines("after_cleanup"),
        ]

    def _hook_lines(self, moment: str) -> list[str]:
        return [f"hook {moment}: {command}" for command in self.hooks.of(moment)]

    def _database_lines(self) -> list[str]:
        kind = self.target.deploy.database
        if kind == "none":
            return []
        what = {"alembic": "revisions of Alembic", "odoo": "modules of Odoo"}.get(kind or "", "revisions or modules")
        rehearsal = ["try that on a side database first"] if self.target.deploy.rehearse else []
        return [f"update the database where {what} are pending: in a copy, which is swapped in", *rehearsal]

    def _examine_room(self) -> list[Finding]:
        needed, free = int(self.package.bytes * ROOM_SHARE), room_for(self.releases)
        if free >= needed:
            return []
        return [
            Finding(
                "room for the release", f"{needed:,} bytes free in {self.releases.folder}", f"{free:,} bytes",
                f"df -h {self.releases.folder}; remove old releases, or lower deploy.keep_releases", blocks=True,
            )
        ]  # fmt: skip

    def _examine_link(self) -> list[Finding]:
        if not self.layout.dangles:
            return []
        return [
            Finding(
                "current", "a link to a release that is there", f"it leads to {self.layout.current}, which is gone",
                f"ls -l {self.releases.root}", blocks=False,
            )
        ]  # fmt: skip

    def _examine_database(self) -> list[Finding]:
        """Tell what an update of the database would need; whether there is one is known only with the release there."""
        if self.facts is None:
            return self._examine_lost_database()
        if self.target.deploy.database == "none":
            return []
        try:
            with maintenance(self.target.database) as connection:
                found = examine_rollback(connection, self.target, self.facts)
        except OpsproofError as error:
            return [Finding("the database", "what an update of it needs", error.summary, error.hint, blocks=False)]
        return [Finding(one.subject, one.expected, one.found, one.hint, blocks=False) for one in found]

    def _examine_lost_database(self) -> list[Finding]:
        """Tell where a deploy would make an empty database in the place of one that is gone, or was misspelt."""
        backed_up = [entry for entry in self.releases.ledger().entries if entry.backup]
        if not backed_up or self.request.data_loss:
            return []
        last, name = backed_up[-1], self.target.database.name
        return [
            Finding(
                f"the database {name!r}",
                "the one that earlier deploys had: the ledger names their backups",
                f"none of that name; {last.backup} was taken before the release of {last.release}",
                f"see that dbname is right; {restore_command(self.target, last.backup)}"
                "; --allow-data-loss begins with an empty one",
                blocks=True,
            )
        ]
