"""What a deploy prepares while the application still works: backup, upload, hooks, shared links, and the update's plan.

Each public method is one step of `actions/test_deploy.py`, after those of `Deploying`. `close` takes back whatever was
not brought to its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import PurePosixPath

from opsproof.archive.catalogue.choosing import LATEST, choose_backup
from opsproof.errors import DatabaseError, StoreError
from opsproof.inspection.finding import require
from opsproof.inspection.restores.preflight import examine_rollback
from opsproof.inspection.schemas.schemastate import state_of
from opsproof.inspection.validation import find_orphans, validate
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.deploy.deploying import Deploying, DeployRequest
from opsproof.procedures.deploy.hooks import Ran
from opsproof.procedures.deploy.turnover import DEPLOYED, free_names, options_of
from opsproof.procedures.deploy.updating import Code, Update, require_same_kind, update_of
from opsproof.procedures.outage.safety import take_safety_backup
from opsproof.procedures.restore.fromsafety import build_from_safety_backup
from opsproof.procedures.restore.neutralizing import Neutralizing, Purpose
from opsproof.system.postgres.databases import create_side, drop_database
from opsproof.system.postgres.lock import Lock
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import connect, describe_database
from opsproof.system.releases.sharing import share
from opsproof.system.releases.upload import read_files, upload
from opsproof.system.store import Store
from opsproof.target import Target, ValidationSettings


class Preparing(Deploying):
    """The first half of a deploy; arguments are those of `Deploying`."""

    update: Update

    def __init__(self, target: Target, store: Store, journal: Journal, request: DeployRequest) -> None:
        super().__init__(target, store, journal, request)
        self.pending: tuple[str, ...] = ()
        self.ran: list[Ran] = []
        # A backup of long ago must not take along what was written since: only one of this very run is built from.
        self._has_own_backup = False
        # Those of the last step, for its report.
        self.told: list[Ran] = []

    def take_lock(self) -> Lock:
        """Keep other runs off this target, and clear away what killed ones have left.

        Raises:
            DatabaseError: Another run is at work on it.
            ProofError: One has left something unfinished since.
        """
        self._hold_releases("deploy")
        self.layout = self.releases.look()
        return self.lock

    def take_backup(self) -> str:
        """Back up what is live, and prove that; or find a fresh verified backup. Return its id; empty without database.

        Raises:
            OpsproofError: It failed.
        """
        self.lock.check()
        if self.facts is not None:
            self.safety = self._fresh_backup()
            if not self.safety:
                self._has_own_backup = True
                with self.journal.phase("backup"):
                    self.safety = take_safety_backup(self.target, self.store, self.journal, "before deploy").id
        return self.safety

    def upload(self) -> PurePosixPath:
        """Send the release to its host, beside the live one, and read it back there. Return its folder.

        Raises:
            HostError: It cannot be written; nothing of it is left.
            ProofError: It is not what was sent.
        """
        self.lock.check()
        self.release = self.releases.next_name((*self.layout.names, *(one[1:15] for one in self.layout.hidden)))
        self._begin(self._intent())
        self.exchange.was_current = self.layout.current
        if self.facts is None:
            # Nothing else is there that could bear the intent.
            self._make_side(self.exchange.intent)
        self.exchange.begin()
        with self.journal.phase("upload"):
            path = upload(self.releases, self.release, self.package)
        self.journal.record("release uploaded", release=self.release, folder=str(path))
        return path

    def run_hooks(self, moment: str) -> tuple[Ran, ...]:
        """Run the hooks of a moment. Return what passed.

        Raises:
            HostError: One failed, or did not end in time.
        """
        self.lock.check()
        with self.journal.phase("hooks"), self._noting_migrations(moment):
            ran = self.hooks.run(moment, self.releases.path(self.release), self.previous)
        self.ran += ran
        self.told += ran
        return ran

    def link_shared(self) -> tuple[str, ...]:
        """Let the shared paths of the release lead to what all releases share. Return them.

        Raises:
            ProofError: The way to one leads out of the release.
            HostError: One cannot be made.
        """
        self.lock.check()
        for one in self.target.deploy.shared:
            share(self.releases, self.release, one)
        return self.target.deploy.shared

    def plan_update(self) -> tuple[str, ...]:
        """Find out what the release changes in the database; try it on a side database, if the inventory says so.

        Raises:
            OpsproofError: It cannot be told, it failed there, or something is in the way of it.
        """
        self.lock.check()
        path = self.releases.path(self.release)
        before = read_files(self.releases.host, self.releases.path(self.previous)) if self.previous else {}
        code = Code(path, self.package.files, before)
        self.update = update_of(self.target, self.host, code, exists=self.facts is not None)
        if self.previous:
            require_same_kind(self.target, self.host, self.update, self.releases.path(self.previous))
        if self.facts is None:
            self.pending = self.update.initial()
        else:
            self.pending = self.update.pending()
            self.update.examine()
        self.journal.record("update planned", by=self.update.name, pending=list(self.pending))
        if self.facts is not None and self.has_to_validate:
            with connect(self.target.database) as connection:
                self.orphans = find_orphans(connection)
        if self.pending and self.facts is not None:
            with maintenance(self.target.database) as connection:
                require(examine_rollback(connection, self.target, self.facts), "an update of the database")
            if self.target.deploy.rehearse:
                self._rehearse()
        return self.pending

    @property
    def has_to_validate(self) -> bool:
        """Tell whether rows are looked at afterwards: the database changes, or the inventory says what must hold."""
        return bool(self.pending) or self.target.validation != ValidationSettings()

    def _fresh_backup(self) -> str:
        span = self.request.reuse_backup
        if span is None:
            return ""
        try:
            choice = choose_backup(self.target, self.store, LATEST, None)
        except StoreError as error:
            self.journal.warn(f"no backup stands for the one before: {error.summary}")
            return ""
        taken = choice.sidecar.manifest.taken if choice.sidecar else None
        # One whose time is yet to come may be of any age: a clock was wrong.
        if taken is None or abs(datetime.now(UTC) - taken) > span:
            self.journal.warn(f"{choice.id} is not of the last {span}: another one is taken")
            return ""
        return choice.id

    def _rehearse(self) -> None:
        self.journal.info("the update is tried on a side database")
        intent, name = self.exchange.intent, self.exchange.intent.side
        with (
            self.journal.phase("rehearse"),
            build_from_safety_backup(self.target, self.store, self.journal, intent) as (side, _),
        ):
            if self.update.name == "odoo":
                # The modules' own code works on people's data here, and their mail must not go out twice.
                copy = replace(self.target.database, name=name)
                Neutralizing(self.target, self.host, Purpose(copies=True, why="it is a rehearsal"), None).perform(copy)
            self.update.apply(side.name)
        with connect(self.target.database, database=name) as connection:
            validate(connection, self.target.validation, self.orphans)
        with maintenance(self.target.database) as connection:
            drop_database(connection, name)

    def _intent(self) -> Intent:
        side, parked = free_names(self.target, self.moment)
        said = options_of(
            self.release,
            self.previous,
            DEPLOYED,
            revision=self.package.revision,
            source=self.package.source,
            exchanges=False,
            state=self._state(),
        )
        names = side, parked if self.facts is not None else ""
        return self._intent_of("deploy", names, backup=self.release, safety=self.safety, options=said)

    def _state(self) -> str:
        if self.facts is None:
            return ""
        with connect(self.target.database) as connection:
            return state_of(connection)

    @contextmanager
    def _noting_migrations(self, moment: str) -> Iterator[None]:
        """Note whether hooks migrate the live database: what somebody else does to it meanwhile is none of theirs."""
        before = self._state() if self.hooks.of(moment) else ""
        try:
            yield
        finally:
            with suppress(DatabaseError):
                if self._has_own_backup and before and self._state() != before:
                    self._has_hooked = True

    def _make_side(self, intent: Intent) -> None:
        with maintenance(self.target.database) as connection:
            shape = describe_database(connection)
            row = connection.execute("SELECT current_user::text").fetchone()
            create_side(connection, intent.side, shape, owner=row[0] if row else "")
