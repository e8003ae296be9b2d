"""What a rollback to another release looks at first: which release, and whether the database must go back with it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.errors import ConfigurationError, DatabaseMissing, MigrationError, ProofError
from opsproof.inspection.application import check_files_of
from opsproof.inspection.finding import Finding, require
from opsproof.inspection.restores.preflight import examine_rollback
from opsproof.inspection.schemas.descent import Descent, require_consent_to_loss, require_reversible
from opsproof.inspection.schemas.losses import count_losses
from opsproof.inspection.schemas.schemastate import state_of
from opsproof.journal import Journal
from opsproof.procedures.commands import deploy_command, listing_command, release_command
from opsproof.procedures.confirmation import require_confirmation
from opsproof.procedures.deploy.changing import Changing
from opsproof.procedures.deploy.odoomodules import modules_of
from opsproof.procedures.deploy.odooupdating import OdooUpdate
from opsproof.procedures.deploy.updating import AlembicUpdate, Code, missing_of, require_same_kind, update_of
from opsproof.procedures.rollback.fitting import backup_of, require_fit
from opsproof.system.alembic.downgrade import read_downgrade
from opsproof.system.alembic.migrations import Migrations, Place, place_of
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import (
    DatabaseFacts,
    Server,
    connect,
    own_search_path,
)
from opsproof.system.releases.ledger import Entry
from opsproof.system.releases.upload import read_files
from opsproof.system.store import Store
from opsproof.target import Target

UNTOUCHED = "nothing was changed"


@dataclass(frozen=True)
class Going:
    """What the operator asked for, and agreed to.

    Attributes:
        release: Where to go; empty for the previous one.
        backup: Whose data the database is to have again; empty leaves its rows, and undoes revisions if need be.
        data_loss: Whether data may go.
        confirmed: Whether a protected target was named.
    """

    release: str = ""
    backup: str = ""
    data_loss: bool = False
    confirmed: bool = False


class GoingBack(Changing):
    """A first look at one target's releases, and at what its database has to do with them.

    Attributes:
        how: What becomes of the database: it `stays`, its revisions are undone (`downgrade`), or it is built from a
            `backup`.
    """

    facts: DatabaseFacts
    choice: Choice | None = None
    descent: Descent | None = None
    how: Literal["stays", "downgrade", "backup"] = "stays"

    def __init__(self, target: Target, store: Store, journal: Journal, going: Going) -> None:
        super().__init__(target, store, journal)
        self.going = going
        self.migrations: Migrations | None = None
        self.reasons: tuple[str, ...] = ()
        self.revision = ""
        self._ledger: tuple[Entry, ...] = ()
        self._updater = self._state = ""

    def find_server(self) -> Server:
        """Find out what server answers, with the live database on it.

        Raises:
            DatabaseError: Nothing answers, or there is no such database.
        """
        try:
            return super().find_server()
        except DatabaseMissing as error:
            error.kept = UNTOUCHED
            error.hint = f"pytest actions/test_restore.py --env={self.target.environment}"
            raise

    def choose_release(self) -> str:
        """Choose the release to go back to: the one that was named, or the one before the current one.

        Raises:
            ProofError: There is none.
            ConfigurationError: The one that was named is not there.
        """
        self.layout, self._ledger = self.releases.look(), self.releases.ledger().entries
        current, names = self.layout.current, self.layout.names
        if self.going.release and self.going.release not in names:
            raise ConfigurationError(
                f"There is no release {self.going.release}",
                expected=f"one of {', '.join(names) or 'none'}",
                found=self.going.release,
                kept=UNTOUCHED,
                hint=f"ls {self.releases.root}",
            )
        self.release = self.going.release or self._previous()
        if not current or not self.release:
            raise ProofError(
                f"{self.target.name} has no release to go back to",
                expected="a release that is live, and one before it",
                found=f"live: {current or 'none'}; there: {', '.join(names) or 'none'}",
                kept=UNTOUCHED,
                hint=f"pytest actions/test_deploy.py --env={self.target.environment} --release=SOURCE",
            )
        self.revision = self.releases.revision_of(self.release)
        return self.release

    @property
    def nothing_to_do(self) -> str:
        """Return why there is nothing to do; empty where there is something, or where nobody has looked yet."""
        if self.release and self.release == self.layout.current:
            return f"release {self.release} is live already: nothing was done"
        return ""

    def compare_database(self) -> str:
        """Find out whether the database must go back with the release, and how. Return it in words.

        Raises:
            ProofError: It must, and cannot without a backup, or not without losing data that nobody agreed to lose.
            MigrationError: A release's migrations cannot be asked.
        """
        if self.nothing_to_do:
            return self.nothing_to_do
        self._state = self._read_state()
        path = self.releases.path(self.release)
        code = self._code(path, self.layout.current)
        update = update_of(self.target, self.host, code)
        if self.going.backup:
            self._choose_backup()
        if self.choice is not None:
            require_fit(update, self.choice, self.release, self._with_backup())
        else:
            require_same_kind(self.target, self.host, update, self.releases.path(self.layout.current))
        self._updater = update.name
        if isinstance(update, AlembicUpdate):
            self._compare_revisions(update)
        elif isinstance(update, OdooUpdate):
            self._compare_modules(update, code)
        if self.choice is not None:
            self.how = "backup"
        self.journal.record("release compared", release=self.release, database=self.how, because=list(self.reasons))
        return self.in_words()

    def in_words(self) -> str:
        """Return what becomes of the database."""
        if self.how == "backup" and self.choice is not None:
            return f"the database goes back to {self.choice.id}: what was written since is only in what is parked"
        if self.how == "downgrade":
            return f"the database goes back with the release, and keeps its rows: undo {', '.join(self.reasons)}"
        if self._updater == "none":
            return "the database stays: neither the inventory nor the releases say what updates it"
        return "the database stays: the release knows its revisions and its modules"

    def require_same_database(self) -> None:
        """Make sure that nobody has migrated or replaced the database since it was compared; with the lock held.

        Raises:
            ProofError: Somebody has.
        """
        if self._state and self._read_state() != self._state:
            raise ProofError(
                "Another run has changed the database meanwhile: the plan is not true any more",
                expected="the revisions and modules that the plan was made for",
                found="others",
                kept=UNTOUCHED,
                hint="run the same command again, and read its plan",
            )

    def examine(self) -> tuple[Finding, ...]:
        """Look for what would be in the way on the server. Return what is only worth knowing.

        Raises:
            ProofError: Something is in the way, or files are missing already: the look afterwards would undo it all.
        """
        if self.how != "backup":  # a backup brings its files
            with connect(self.target.database) as live:
                check_files_of(live, self.host, self.target.filestore, kept="nothing was changed")
        if self.how == "stays":
            return ()
        with maintenance(self.target.database) as connection:
            return require(examine_rollback(connection, self.target, self.facts), "a rollback")

    def require_confirmation(self) -> None:
        """Let nobody change a protected environment by accident.

        Raises:
            ConfigurationError: The environment is protected, and the target was not named.
        """
        require_confirmation(self.target, self.going.confirmed, self.plan)

    def plan(self) -> list[str]:
        """Return what the rollback would do, a line each, once the looking steps have been called."""
        if self.nothing_to_do:
            return [self.nothing_to_do]
        services = ", ".join(self.target.services) or "no service"
        return [
            f"from release {self.layout.current} to {self.release}, revision {self.revision or 'not known'}",
            self.in_words(),
            *(f"LOSE {one.shown}" for one in (self.descent.losses if self.descent else ())),
            "take a safety backup and prove it",
            f"stop {services}, change database and link, start them",
            f"wait for {self.target.health_url or 'nothing'}; else all of it is taken back",
        ]

    def _read_state(self) -> str:
        with connect(self.target.database) as connection:
            return state_of(connection)

    def _previous(self) -> str:
        current, names = self.layout.current, self.layout.names
        said = next((one.previous for one in reversed(self._ledger) if one.release == current and one.previous), "")
        if said in names:
            return said
        return next((one for one in reversed(names) if one < current), "")

    def _code(self, path: PurePosixPath, other: str) -> Code:
        if self.target.deploy.database in ("alembic", "none"):
            return Code(path, {}, {})
        host = self.releases.host
        return Code(path, read_files(host, path), read_files(host, self.releases.path(other)))

    def _choose_backup(self) -> None:
        choice = choose_backup(self.target, self.store, self.going.backup, None)
        settings = self.target.filestore
        if choice.sidecar is None or choice.store is None or (settings and not settings.content_addressed):
            raise ProofError(
                f"{choice.id} cannot be brought back together with a release",
                expected="a verified backup of this target, in its store; and files that are named by their content",
                found=choice.why if choice.sidecar is None or choice.store is None else f"{settings}",
                kept=UNTOUCHED,
                hint=f"pytest actions/test_restore.py --env={self.target.environment} --backup=ID   and then:"
                f" {release_command(self.target, self.release)}",
            )
        self.choice = choice

    def _compare_revisions(self, update: AlembicUpdate) -> None:
        if self.choice is not None:
            return
        place = place_of(self.target.database, self.target.database.name)
        there = update.migrations.plan(place)
        unknown = [one for one in there.heads if one not in there.history.by_id]
        if not unknown:
            missing = missing_of(there)
            if missing:
                raise ProofError(
                    f"Release {self.release} has revisions that the database lacks",
                    expected="a release that the database has been through",
                    found=", ".join(missing),
                    kept=UNTOUCHED,
                    hint=f"deploy it: {deploy_command(self.target)} --release=SOURCE",
                )
            return
        self._plan_down(place, there.history.heads_of(there.history.by_id))

    def _plan_down(self, place: Place, goal: tuple[str, ...]) -> None:
        """Plan the way down with the scripts of the release that is live: the other one has them no more."""
        code = Code(self.releases.path(self.layout.current), {}, {})
        newer = update_of(self.target, self.host, code)
        if not isinstance(newer, AlembicUpdate) or len(goal) > 1:
            raise MigrationError(
                "The way down cannot be told",
                expected="one head of the older release, and scripts of the newer one",
                found=", ".join(goal) or "no scripts",
                kept=UNTOUCHED,
                hint=self._with_backup(),
            )
        self.migrations = newer.migrations
        planned = self.migrations.plan(place, goal[0] if goal else "base")
        readings = {one.id: read_downgrade(planned.sources.get(one.id)) for one in planned.undone}
        with connect(self.target.database) as connection:
            losses = count_losses(connection, (loss for one in readings.values() for loss in one.losses))
        self.descent = Descent(planned, readings, losses, "", "")
        self.reasons = tuple(one.shown for one in planned.undone)
        self.how = "downgrade"
        try:
            require_reversible(self.descent)
            require_consent_to_loss(losses, self.going.data_loss)
        except ProofError as error:
            error.hint = "\n".join([error.hint, self._with_backup()])
            raise

    def _compare_modules(self, update: OdooUpdate, code: Code) -> None:
        self.reasons = update.differing()
        new, old = modules_of(code.before), modules_of(code.files)
        gone = sorted(set(new) - set(old))
        with connect(self.target.database) as connection, own_search_path(connection):
            rows = connection.execute(
                "SELECT name FROM ir_module_module WHERE state = 'installed' AND name = ANY(%s) ORDER BY 1", (gone,)
            ).fetchall()
        self.reasons = (*self.reasons, *(name for (name,) in rows))
        if self.reasons and self.choice is None:
            raise ProofError(
                "The database must go back with the release, and Odoo has no way down",
                expected=f"installed modules that are the same in {self.layout.current} and {self.release}",
                found=f"others: {', '.join(self.reasons)}",
                kept=UNTOUCHED,
                hint=self._with_backup(),
            )

    def _with_backup(self) -> str:
        backup = shlex.quote(backup_of(self._ledger, self.release) or "ID")
        return (
            f"{release_command(self.target, self.release)} --backup={backup}   brings back the data of before, too:"
            f" what was written since is lost\n{listing_command(self.target)}   shows the backups"
        )
