"""The outage: services stopped, names swapped, services started, healthy again; and all of it taken back.

The intent on the server is always a step ahead: whoever finds it knows what may have happened, and what has not.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from opsproof.errors import ConnectionFailed, DatabaseError, ProofError
from opsproof.inspection.application import check_files_of
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.commands import LIST_DATABASES, recover_command
from opsproof.procedures.outage.failedundo import where_the_data_is
from opsproof.procedures.outage.serving import Serving
from opsproof.procedures.outage.staging import StagedFiles
from opsproof.procedures.outage.undoing import UNDO
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.databases import clear_intent, oid_of, write_intent
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import connect
from opsproof.system.postgres.swap import Identity, SwapResult, identity, swap, swap_back
from opsproof.system.services.service import Service
from opsproof.target import DatabaseAddress, Target

# A server that crashed is back within this; what is undone waits for it.
SERVER_SECONDS = 30.0
RETRY_SECONDS = 0.25


@dataclass(frozen=True)
class Outage:
    """Seconds in which nobody could work, and what they were made of."""

    stop: float
    swap: float
    start: float
    healthy: float
    total: float


class Exchange:
    """One target's change from its live database to the side database.

    Args:
        target: Whose.
        host: Where its services are.
        intent: With the names of the databases.
        journal: What happened.
        staged: A filestore that takes the live one's place, where files are not content-addressed.
    """

    def __init__(
        self, target: Target, host: Host, intent: Intent, journal: Journal, staged: StagedFiles | None = None
    ) -> None:
        self.target = target
        self.intent = intent
        self.serving = Serving(target, host, journal)
        self.result: SwapResult | None = None
        self.connection_limit: int | None = None
        self.had_live = True
        self._host = host
        self._journal = journal
        self._staged = staged
        self._before: Identity | None = None
        self._began = 0.0
        self._stopped = self._swapped = False
        self._seconds: dict[str, float] = {}

    def stop_services(self) -> tuple[Service, ...]:
        """Stop the application's services; the outage begins. Return them.

        Raises:
            HostError: One does not stop.
        """
        # In place the stage stays: the live database may be gone, which counts for more than the services.
        self._tell(self.intent.side, "in place" if self.intent.stage == "in place" else "stopping")
        self._began = time.monotonic()
        self._stopped = True
        self.serving.stop()
        self._seconds["stop"] = time.monotonic() - self._began
        return self.services

    def swap(self) -> SwapResult:
        """Swap the names, in one transaction.

        Raises:
            DatabaseError: The server refused; the live database is as it was.
        """
        intent, address = self.intent, self.target.database
        if intent.parked:
            self._before = identity(address, intent.live)
        started = time.monotonic()
        with self._journal.phase("swap"):
            self._swapped = True
            self.result = swap(
                address, intent.live, intent.side, intent.parked, intent, connection_limit=self.connection_limit
            )
            self.intent = replace(intent, stage="swapped", swap_xid=self.result.xid)
            if self._staged:
                self._staged.exchange()
        self._seconds["swap"] = time.monotonic() - started
        return self.result

    def start_services(self) -> tuple[Service, ...]:
        """Start the services in their order. Return them; whether they keep running, `wait_for_health` tells.

        Raises:
            HostError: One does not come up.
        """
        started = time.monotonic()
        self.serving.launch()
        self._seconds["start"] = time.monotonic() - started
        return self.services

    @property
    def services(self) -> tuple[Service, ...]:
        """Return the services, in the order in which they are started."""
        return self.serving.services

    @property
    def is_stopped(self) -> bool:
        """Tell whether the outage has begun."""
        return self._stopped

    def resume_after_swap(self) -> None:
        """Take over where another run was killed after its swap: from here on it can be kept or taken back."""
        self._began = time.monotonic()
        self._stopped = self._swapped = True
        if self._staged:
            self._staged.exchange()

    def swap_parked(self, parked: str, files: PurePosixPath | None) -> SwapResult:
        """Give the live name back to a parked database; what is live is parked in its turn.

        Args:
            parked: The database that was live before the last restore.
            files: The folder of files that was live with it, where files are exchanged with their database.

        Raises:
            OpsproofError: It failed; what was live is live.
        """
        intent = self.intent
        self._tell(parked, "stopping")
        try:
            self.serving.stop()
            if self._staged and files:
                self._staged.adopt(files)
            result = swap(self.target.database, intent.live, parked, intent.parked, self.intent)
            self.intent = replace(self.intent, stage="swapped", swap_xid=result.xid)
            if self._staged:
                self._staged.exchange()
            self.keep()
        except BaseException:
            # The files of one database would not do for the other, and only the server knows which is live.
            with suppress(DatabaseError):
                if self._staged is None or not self._is_swapped():
                    self.serving.start_whatever_starts()
            raise
        self.serving.start()
        return result

    def wait_for_health(self) -> Outage:
        """Wait until the application answers; the outage ends. Then make sure that the services keep running.

        Raises:
            ProofError: It does not, in its time.
            HostError: A service has ended.
        """
        started = time.monotonic()
        self.serving.await_answer()
        now = time.monotonic()
        times = self._seconds
        stop, swapped, start = (times.get(part, 0.0) for part in ("stop", "swap", "start"))
        # An undo may find the services stopped.
        began = self._began or started - stop - swapped - start
        outage = Outage(stop, swapped, start, now - started, now - began)
        self._journal.record("outage", **vars(outage))
        self.serving.require_steady()
        return outage

    def check_application(self) -> int:
        """Look at what is live now: it is what was built, and its files are all there. Return their number.

        Raises:
            ProofError: It is not.
        """
        if self.result is not None:
            with maintenance(self.target.database) as connection:
                found = oid_of(connection, self.intent.live)
            if found != self.result.oid:
                raise ProofError(
                    f"{self.intent.live!r} is not the database that was built",
                    expected=f"the database with oid {self.result.oid}",
                    found="no database of this name" if found is None else f"the one with oid {found}",
                    kept=where_the_data_is(self.target, self.intent),
                    hint=f"{LIST_DATABASES}   shows what was renamed meanwhile\n{recover_command(self.target)}",
                )
        with connect(self.target.database) as connection:
            return check_files_of(connection, self._host, self.target.filestore)

    def keep(self) -> None:
        """Say that it is finished: the live database bears no intent any more, the parked one how to take it back."""
        without_undo = {name: value for name, value in self.intent.options.items() if name != UNDO}
        with maintenance(self.target.database) as connection, connection.transaction():
            clear_intent(connection, self.intent.live)
            if self.intent.parked:
                write_intent(connection, self.intent.parked, replace(self.intent, stage="kept", options=without_undo))
        if self._staged:
            self._staged.discard()

    def take_names_back(self) -> list[str]:
        """Give the live name back to the database that had it, if it was taken away. Return what was done.

        Raises:
            OpsproofError: It could not be given back.
        """
        try:
            await_server(self.target.database)
            return self._swap_back()
        except DatabaseError:
            # Whichever of the two is live is whole; but the files of one would not do for the other.
            if self._stopped and self._staged is None and self.intent.parked:
                self.serving.start_whatever_starts()
            raise

    def _swap_back(self) -> list[str]:
        done: list[str] = []
        if self._swapped and self._is_swapped():
            self.serving.stop()
            if self._staged:
                self._staged.take_back()
            swap_back(self.target.database, self.intent.live, self.intent.parked, self.intent.side)
            if self.intent.parked:
                done.append(f"{self.intent.live!r} is the database of before again")
                if self._before is not None:
                    self._require_same(self._before)
        self._swapped = False
        return done

    def start_again(self) -> list[str]:
        """Start the services, if they were stopped. Return what was done.

        Raises:
            OpsproofError: One does not come up, though all were tried; or the application does not answer.
        """
        done: list[str] = []
        if self._stopped and self.had_live:
            done = self.serving.start_again()
        elif self._stopped:
            # Without a database they need not start; but they may have others to serve.
            self.serving.start_whatever_starts()
        self._stopped = False
        return done

    def _is_swapped(self) -> bool:
        """Ask the server: a connection that broke during the commit leaves it open whether that took place."""
        with maintenance(self.target.database) as connection:
            return oid_of(connection, self.intent.side) is None

    def _require_same(self, before: Identity) -> None:
        now = identity(self.target.database, self.intent.live)
        if now.oid == before.oid and now != before:
            # Nobody could write into it while it was parked; but somebody other than the services could until then.
            self._journal.warn(f"{self.intent.live!r} was written into between the stop of the services and the swap")
        elif now != before:
            raise ProofError(
                f"{self.intent.live!r} is not what it was before the swap",
                expected=f"the database with oid {before.oid}",
                found=f"the one with oid {now.oid}",
                kept=f"what was live until now is {self.intent.side!r}",
                hint=f"{LIST_DATABASES}   shows what {before.oid} is called now: it must get its name again",
            )

    def _tell(self, database: str, stage: str) -> None:
        self.intent = replace(self.intent, stage=stage)  # type: ignore[arg-type] # checked by the intent itself
        with maintenance(self.target.database) as connection:
            write_intent(connection, database, self.intent)


def await_server(address: DatabaseAddress) -> None:
    """Wait for a server that is being started again.

    Raises:
        DatabaseError: It does not answer in its time, or refuses for good.
    """
    deadline = time.monotonic() + SERVER_SECONDS
    while True:
        try:
            with maintenance(address):
                return
        except ConnectionFailed:
            if time.monotonic() >= deadline:
                raise
            time.sleep(RETRY_SECONDS)
