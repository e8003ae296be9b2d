"""The outage of a deploy: database and release change hands while the services are stopped; and all of it taken back.

The database is never changed where it is live: a copy is, and takes its name. So there are two commits, the swap of the
names and the rename of `current`, in this order, and the intent on the server tells how far a run had come.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.exchange import Exchange
from opsproof.procedures.odooupdating import remove_link
from opsproof.system.copying import copy_database
from opsproof.system.databases import clear_intent, database_exists, drop_database, write_intent
from opsproof.system.host import Host
from opsproof.system.maintenance import maintenance
from opsproof.system.postgres import DatabaseFacts
from opsproof.system.properties import copy_properties
from opsproof.system.releases import Entry, Releases
from opsproof.target import Target

HOLD_SECONDS = 10.0
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
        if entry not in self.releases.ledger():
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

    def take_back(self) -> list[str]:
        """Bring database, link and services of before back; what was made is gone. Return what was done.

        Raises:
            OpsproofError: Something could not be brought back.
        """
        intent = self.intent
        done = self.take_names_back()
        done += self._flip_back()
        done += self.start_again()
        with maintenance(self.target.database) as connection:
            drop_database(connection, intent.side)
            if database_exists(connection, intent.live):
                clear_intent(connection, intent.live)
        remove_link(self.target, self._host, intent.side)
        release = intent.options["release"]
        if intent.options["event"] == DEPLOYED:
            self.releases.remove(release)
            done.append(f"release {release} is removed")
        return done

    def _flip_back(self) -> list[str]:
        release, previous = self.intent.options["release"], self.intent.options["previous"]
        if self.releases.look().current != release:
            return []
        # Else what runs would find other code than that which it was started with.
        self.serving.stop()
        self._stopped = True
        if previous:
            self.releases.flip(previous)
            return [f"current leads to {previous} again"]
        self.releases.unlink()
        return ["there is no current, as before"]


def options_of(
    release: str, previous: str, event: str, *, revision: str, source: str, exchanges: bool
) -> Mapping[str, str]:
    """Return what the intent of a turnover says besides: any machine can finish it, or take it back.

    Args:
        release: What `current` is to lead to.
        previous: What it leads to; empty for nothing.
        event: `deployed` or `rolled back`.
        revision: Of the release.
        source: What it was made from.
        exchanges: Whether another database becomes the live one.
    """
    return {
        "release": release,
        "previous": previous,
        "event": event,
        "revision": revision,
        "source": source,
        "exchanges": "yes" if exchanges else "",
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
