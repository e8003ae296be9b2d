"""The services of an application: stop them, start them, and see that it came to pass."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

from opsproof.errors import CommandFailed, CommandTimeout, HostError
from opsproof.system.hosts.host import Host
from opsproof.system.services.status import Boot, History, Status
from opsproof.system.services.supervisor import Supervisor
from opsproof.system.services.systemd import Systemd
from opsproof.target import Target

# What dies of a missing database or a wrong module does so within this. Counted from the start's command, so that what
# the manager itself waits (supervisor's startsecs) is in it.
SETTLE_SECONDS = 2.0
_POLL_SECONDS = 0.1
ON = " on "
"""Between the name of a service and the other host that it runs on."""


class ServiceManager(Protocol):
    """What supervisor and systemd have in common: each verb takes the service's name."""

    name: str

    def status(self, service: str) -> Status:
        """Return how it does."""
        ...

    def stop(self, service: str, timeout: float) -> str:
        """Stop it and return what the manager said, which need not be the truth."""
        ...

    def start(self, service: str, timeout: float) -> str:
        """Start it and return what the manager said."""
        ...

    def read_log(self, service: str) -> str:
        """Return its last lines."""
        ...

    def owner(self, service: str) -> str | None:
        """Return the user that it runs as."""
        ...

    def remedy(self, service: str) -> str:
        """Return what to type to look into it."""
        ...

    def start_command(self, service: str) -> str:
        """Return what to type to start it."""
        ...

    def at_boot(self, service: str) -> Boot:
        """Return whether it is started with its host."""
        ...

    def history(self, service: str) -> History:
        """Return how often it was restarted."""
        ...


@dataclass(frozen=True)
class Launched:
    """A service that has just been started: how it did, and the `time.monotonic` at which it counts as steady."""

    status: Status
    steady_at: float


class Service:
    """One service of an application.

    Args:
        name: As its manager knows it.
        manager: What stops and starts it.
        user: Whom it runs as, where the inventory says so.
        label: What tells it from one of the same name on another host.
    """

    def __init__(self, name: str, manager: ServiceManager, user: str | None = None, label: str = "") -> None:
        self.name = name
        self.label = label or name
        self._manager = manager
        self._user = user
        # By our own doing: nothing is on its way then that a start would have to wait for.
        self._is_down = False

    def status(self) -> Status:
        """Return how it does.

        Raises:
            HostError: The manager does not answer, or has no such service.
        """
        return self._manager.status(self.name)

    def is_running(self) -> bool:
        """Tell whether it runs. One that does not may still be starting or stopping: see `is_stopped`.

        Raises:
            HostError: The manager does not answer, or has no such service.
        """
        return self.status().phase == "running"

    def is_stopped(self) -> bool:
        """Tell whether it is down and its manager is not about to start it again.

        Raises:
            HostError: The manager does not answer, or has no such service.
        """
        return self.status().phase == "stopped"

    def stop(self, timeout: float = 60.0) -> float:
        """Stop it, also when it is down or starting; return the seconds that it took, once it is down.

        Args:
            timeout: Seconds that it may take.

        Raises:
            CommandTimeout: It was not down in time; its manager may still be at it.
            CommandFailed: It is not down, and its manager has given up.
            HostError: The manager does not answer, has no such service, or does not let this account.
        """
        began = time.monotonic()
        told = self._ask("stop", timeout)
        status = self._wait_while("stopping", began + timeout)
        if status.phase != "stopped":
            raise self._failure("stop", "down", status, told, late=time.monotonic() >= began + timeout)
        self._is_down = True
        return time.monotonic() - began

    def start(self, timeout: float = 60.0) -> float:
        """Start it, and return the seconds that it took, once it has kept running.

        Args:
            timeout: Seconds that it may take.

        Raises:
            CommandTimeout: It did not run in time; its manager may still be at it.
            CommandFailed: It does not run, or ended right after its start; its last lines are in the error.
            HostError: The manager does not answer, has no such service, or does not let this account.
        """
        began = time.monotonic()
        self.require_steady(self.launch(timeout))
        return time.monotonic() - began

    def launch(self, timeout: float = 60.0) -> Launched:
        """Start it, and return what runs as soon as its manager calls it running; `require_steady` is to follow.

        Args:
            timeout: Seconds that it may take.

        Raises:
            CommandTimeout: It did not run in time; its manager may still be at it.
            CommandFailed: It does not run; its last lines are in the error.
            HostError: The manager does not answer, has no such service, or does not let this account.
        """
        began = time.monotonic()
        # A stop that was interrupted goes on in the manager, which refuses a start meanwhile.
        if not self._is_down and self._wait_while("stopping", began + timeout).phase == "starting":
            # So does a start, after which there is nothing left to ask for.
            self._wait_while("starting", began + timeout)
        asked = time.monotonic()
        self._is_down = False
        told = self._ask("start", max(began + timeout - asked, 1.0))
        first = self.status()
        if first.phase != "running":
            raise self._failure("start", "running", first, told, late=time.monotonic() >= began + timeout)
        # Looked at twice with time in between also where the manager itself waited long.
        return Launched(first, max(asked + SETTLE_SECONDS, time.monotonic() + SETTLE_SECONDS / 2))

    def require_steady(self, launched: Launched) -> None:
        """Wait until it can be told whether it keeps running, and make sure that it does.

        It keeps running when the same process is there two seconds after the start was asked for, and at least one
        second after its manager called it running.

        Raises:
            CommandFailed: It ended right after its start; its last lines are in the error.
            HostError: The manager does not answer.
        """
        time.sleep(max(0.0, launched.steady_at - time.monotonic()))
        first, second = launched.status, self.status()
        if second.phase != "running":
            raise self._failure("start", "still running", second, "it ended right after its start", late=False)
        if second.pids != first.pids:
            restarted = f"it ended right after its start and was started again: process {_pids(first)}, {_pids(second)}"
            raise self._failure("start", "still running as the same process", second, restarted, late=False)

    def hasten(self) -> None:
        """Let its manager be ready for what it is asked next; `relax` is to follow."""
        if isinstance(self._manager, Supervisor):
            self._manager.hasten()

    def relax(self) -> None:
        """Take that back."""
        if isinstance(self._manager, Supervisor):
            self._manager.relax()

    def owner(self) -> str | None:
        """Return the user that it runs as: the inventory's `service_user`, else what the manager knows, else None.

        supervisor knows it only while the service runs.

        Raises:
            HostError: The manager does not answer, or has no such service.
        """
        return self._user or self._manager.owner(self.name)

    def describe(self) -> str:
        """Return manager and name, as a header or an error shows them: `supervisor: application`."""
        return f"{self._manager.name}: {self.label}"

    def start_command(self) -> str:
        """Return what to type to start it by hand."""
        return self._manager.start_command(self.name)

    def remedy(self) -> str:
        """Return what to type to look into it."""
        return self._manager.remedy(self.name)

    def at_boot(self) -> Boot:
        """Return whether it is started with its host.

        Raises:
            HostError: The manager does not answer, or has no such service.
        """
        return self._manager.at_boot(self.name)

    def history(self) -> History:
        """Return how often its manager has restarted it, and how long it has been up.

        Raises:
            HostError: The manager does not answer, or has no such service.
        """
        return self._manager.history(self.name)

    def last_lines(self) -> str:
        """Return the end of its log, or why it cannot be read."""
        try:
            return self._manager.read_log(self.name) or "none"
        except HostError as error:
            return f"cannot be read: {error.summary}"

    def _ask(self, verb: str, timeout: float) -> str:
        ask = self._manager.stop if verb == "stop" else self._manager.start
        try:
            return ask(self.name, timeout)
        except CommandTimeout:
            # Its state, which is asked for next, is what counts.
            return f"its manager gave no answer within {timeout:.0f} s"

    def _wait_while(self, phase: str, deadline: float) -> Status:
        while (status := self.status()).phase == phase and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        return status

    def _failure(self, verb: str, expected: str, status: Status, told: str, *, late: bool) -> HostError:
        kind = CommandTimeout if late else CommandFailed
        found = [status.word, told]
        if verb == "start":
            found += ["its last lines:", self.last_lines()]
        return kind(
            f"{self.describe()} did not {verb}",
            expected=expected,
            found="\n".join(filter(None, found)),
            hint=self._manager.remedy(self.name),
        )


def services_of(target: Target, host: Host) -> tuple[Service, ...]:
    """Return a target's services in the order in which they are started; they are stopped in the reverse."""

    def manager_on(there: Host) -> ServiceManager:
        if target.service_manager == "supervisor":
            return Supervisor(there, target.supervisor_conf)
        return Systemd(there)

    own = manager_on(host)
    found = []
    for label in target.services:
        node = target.nodes.get(label)
        manager = own if node is None else manager_on(Host(node))
        name = label if node is None else label.partition(ON)[0]
        found.append(Service(name, manager, target.service_user, label))
    return tuple(found)


def _pids(status: Status) -> str:
    return " ".join(map(str, status.pids)) or "none"
