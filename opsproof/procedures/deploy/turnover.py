"""The outage of a deploy: database and release change hands while the services are stopped; and all of it taken back.

The database is never changed where it is live: a copy is, and takes its name. So there are two commits, the swap of the
names and the rename of `current`, in this order, and the intent on the server tells how far a run had come.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta

from opsproof.errors import ProofError
from opsproof.inspection.schemas.schemastate import state_of
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.commands import restore_command
from opsproof.procedures.deploy.odooupdating import remove_link
from opsproof.procedures.outage.exchange import Exchange, Outage
from opsproof.procedures.restore.files import FilesRestore
from opsproof.procedures.restore.fromsafety import build_from_safety_backup
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.copying import copy_database
from opsproof.system.postgres.databases import (
    clear_intent,
    database_exists,
    drop_database,
    parked_name,
    side_name,
    write_intent,
)
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.properties import copy_properties
from opsproof.system.postgres.server import DatabaseFacts, connect
from opsproof.system.releases.layout import Releases
from opsproof.system.releases.ledger import Entry
from opsproof.system.services.service import Service
from opsproof.system.store import Store
from opsproof.target import Target

HOLD_SECONDS = 10.0
# Of the intent: how far the database was migrated before; and that it is being built from its backup.
STATE, RESTORING = "state", "restoring"
DEPLOYED, ROLLED_BACK = "deployed", "rolled back"


class Turnover(Exchange):
    """One target's change from one release to another, with its database where that changes too.

    Args:
        target: Whose.
        host: Where its services are.
        releases: Its releases.
        intent: With the names of the databases; its options are `options_of`'s.
        journal: What happened.
    """

    def __init__(self, target: Target, host: Host, releases: Releases, intent: Intent, journal: Journal) -> None:
        super().__init__(target, host, intent, journal)
        self.releases = releases
        self.has_side = False
        # What `current` led to when this very run began; None where another run's is brought to its end.
        self.was_current: str | None = None

    def stop_services(self) -> tuple[Service, ...]:
        """Stop the application's services; the outage begins. Return them.

        Raises:
            HostError: One does not stop.
        """
        self.serving.hasten()
        self.releases.prepare_flip(self.intent.options["release"])
        return super().stop_services()

    def wait_for_health(self) -> Outage:
        """Wait until the application answers; the outage ends. Then make sure that the services keep running.

        Raises:
            ProofError: It does not, in its time.
            HostError: A service has ended.
        """
        try:
            return super().wait_for_health()
        finally:
            self.serving.relax()

    def begin(self) -> None:
        """Write down on the server what is going on: on the live database, or on the one that is to become it.

        Raises:
            DatabaseError: The server refused.
        """
        self._tell(self.intent.live, self.intent.stage)

    def _tell(self, database: str, stage: str) -> None:
        del database
        self.intent = replace(self.intent, stage=stage)  # type: ignore[arg-type] # checked by the intent itself
        with maintenance(self.target.database) as connection:
            for name in (self.intent.live, self.intent.side):
                if database_exists(connection, name):
                    write_intent(connection, name, self.intent)

    def copy(self, facts: DatabaseFacts) -> str:
        """Copy the live database, out of everybody's sight. Return the copy's name.

        Raises:
            DatabaseError: The server refused, or somebody held the database all the time.
        """
        intent, address = self.intent, self.target.database
        with self._journal.phase("copy"):
            self.has_side = True
            copy_database(address, intent.live, intent.side, facts.owner, HOLD_SECONDS)
            with maintenance(address) as connection:
                write_intent(connection, intent.side, intent)
                copy_properties(connection, facts, intent.side, roles={})
        return intent.side

    def flip(self) -> None:
        """Let `current` lead to the release.

        Raises:
            OpsproofError: It cannot be done; `current` is as it was.
        """
        started = time.monotonic()
        with self._journal.phase("flip"):
            self.releases.flip(self.intent.options["release"])
        self._seconds["swap"] = self._seconds.get("swap", 0.0) + time.monotonic() - started

    def resume(self, stage: str) -> None:
        """Take over where another run was killed."""
        self._began = time.monotonic()
        self._stopped = stage in ("stopping", "swapped")
        self._swapped = stage == "swapped"
        self.has_side = True

    def keep(self) -> None:
        """Say that it is finished, in the ledger and on the server.

        Raises:
            OpsproofError: It could not be written down.
        """
        entry = entry_of(self.intent, self.has_swapped)
        if entry not in self.releases.ledger().entries:
            self.releases.write_down(entry)
        if self.has_swapped:
            super().keep()
        else:
            with maintenance(self.target.database) as connection:
                clear_intent(connection, self.intent.live)
        self.releases.unmark(self.intent.options["release"])

    @property
    def has_swapped(self) -> bool:
        """Tell whether the names of the databases were swapped."""
        return self._swapped

    def take_back(self, store: Store, *, has_hooked: bool = False) -> list[str]:
        """Bring database, link and services of before back; what was made is gone. Return what was done.

        Where a hook has migrated the live database itself, its backup takes its place; what it was is parked.

        Args:
            store: Where the backup is.
            has_hooked: Whether a hook of this very run has done so, after its own backup. Who else has, and when,
                nobody can tell, and what was written since must not go for it.

        Raises:
            OpsproofError: Something could not be brought back.
        """
        self.serving.relax()
        is_restored = RESTORING in self.intent.options
        done = [] if is_restored and self._swapped else self.take_names_back()
        if not is_restored or not self._swapped:
            done += self._flip_back()
            if not has_hooked and not is_restored and self._was_migrated():
                again = restore_command(self.target, self.intent.safety)
                self._journal.warn(f"{self.intent.live!r} was migrated since {self.intent.since}; before that: {again}")
            if is_restored or (has_hooked and self._was_migrated()):
                self._restore(store)
                is_restored = True
        done += self._flip_back()
        done += self.start_again()
        intent = self.intent
        with maintenance(self.target.database) as connection:
            drop_database(connection, intent.side)
            if database_exists(connection, intent.live):
                clear_intent(connection, intent.live)
            if is_restored:
                kept = replace(intent, procedure="restore", backup=intent.safety, stage="kept", options={})
                write_intent(connection, intent.parked, kept)
                done.append(
                    f"{intent.live!r} is built from {intent.safety}; what a hook made of it is {intent.parked!r}"
                )
        remove_link(self.target, self._host, intent.side)
        self.releases.forget_flip()
        release = intent.options["release"]
        if intent.options["event"] == DEPLOYED:
            self.releases.remove(release)
            done.append(f"release {release} is removed")
        return done

    def _was_migrated(self) -> bool:
        """Tell whether somebody else has migrated the live database since the deploy began: a hook."""
        said = self.intent.options.get(STATE, "")
        if not said or not self.intent.safety or not self.intent.parked:
            return False
        with connect(self.target.database) as connection:
            return state_of(connection) != said

    def _restore(self, store: Store) -> None:
        self._journal.warn(f"a hook has migrated {self.intent.live!r}: it is built from {self.intent.safety}")
        self.intent = replace(self.intent, options={**self.intent.options, RESTORING: "yes"})
        self.stop_services()
        with maintenance(self.target.database) as connection:
            drop_database(connection, self.intent.side)
        settings = self.target.filestore
        with build_from_safety_backup(self.target, store, self._journal, self.intent) as (_, backup):
            if settings is not None and settings.content_addressed:
                FilesRestore(self.target, self._host, self._journal).add(backup, None)
        self.swap()

    def _flip_back(self) -> list[str]:
        release, previous = self.intent.options["release"], self.intent.options["previous"]
        if not self._is_elsewhere(release):
            return []
        # Else what runs would find other code than that which it was started with.
        self.serving.stop()
        self._stopped = True
        if previous:
            self.releases.flip(previous)
            return [f"current leads to {previous} again"]
        self.releases.unlink()
        return ["there is no current, as before"]

    def _is_elsewhere(self, release: str) -> bool:
        """Tell whether `current` leads to the release; or, in the very run, to anything else than before: by a hook."""
        try:
            current = self.releases.look().current
        except ProofError:
            if self.was_current is None:
                raise
            return True
        return current == release or self.was_current not in (None, current)


def free_names(target: Target, moment: datetime) -> tuple[str, str]:
    """Return the names of a side and a parked database that nobody has: two deploys may begin in the same second.

    Raises:
        DatabaseError: The server does not answer.
    """
    name = target.database.name
    with maintenance(target.database) as connection:
        while any(database_exists(connection, one(name, moment)) for one in (side_name, parked_name)):
            moment += timedelta(seconds=1)
    return side_name(name, moment), parked_name(name, moment)


def options_of(
    release: str, previous: str, event: str, *, revision: str, source: str, exchanges: bool, state: str = ""
) -> Mapping[str, str]:
    """Return what the intent of a turnover says besides: any machine can finish it, or take it back.

    Args:
        release: What `current` is to lead to.
        previous: What it leads to; empty for nothing.
        event: `deployed` or `rolled back`.
        revision: Of the release.
        source: What it was made from.
        exchanges: Whether another database becomes the live one.
        state: How far the live database was migrated when it began; empty where nobody else can change that.
    """
    return {
        "release": release,
        "previous": previous,
        "event": event,
        "revision": revision,
        "source": source,
        "exchanges": "yes" if exchanges else "",
        STATE: state,
    }


def entry_of(intent: Intent, has_swapped: bool) -> Entry:
    """Return the line of the ledger."""
    said = intent.options
    return Entry(
        release=said["release"],
        event=said["event"],
        revision=said["revision"],
        source=said["source"],
        previous=said["previous"],
        backup=intent.safety,
        parked=intent.parked if has_swapped else "",
        when=intent.since,
        by=intent.by,
    )
