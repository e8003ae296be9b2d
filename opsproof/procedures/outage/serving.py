"""The services of a target around a change: stopped in reverse, started in their order, and seen to answer."""

from __future__ import annotations

import time

from opsproof.errors import HostError, OpsproofError
from opsproof.inspection.health import wait_until_healthy
from opsproof.journal import Journal
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.web import asker_of
from opsproof.system.services.service import Launched, Service, services_of
from opsproof.target import Target


class Serving:
    """What serves a target's users.

    Attributes:
        services: In the order in which they are started.

    Args:
        target: Whose.
        host: Where they are.
        journal: What happened.
    """

    def __init__(self, target: Target, host: Host, journal: Journal) -> None:
        self.services: tuple[Service, ...] = services_of(target, host)
        self._target = target
        self._host = host
        self._journal = journal
        self._launched: list[tuple[Service, Launched]] = []

    def hasten(self) -> None:
        """Let their managers be ready before the outage begins; `relax` is to follow."""
        for service in self.services:
            service.hasten()

    def relax(self) -> None:
        """Take that back."""
        for service in self.services:
            service.relax()

    def stop(self) -> None:
        """Stop them all.

        Raises:
            HostError: One does not stop.
        """
        with self._journal.phase("stop"):
            for service in reversed(self.services):
                service.stop()

    def launch(self) -> None:
        """Start them all; whether they keep running, `require_steady` tells.

        Raises:
            HostError: One does not come up.
        """
        with self._journal.phase("start"):
            self._launched = [(service, service.launch()) for service in self.services]

    def await_answer(self) -> None:
        """Wait until the application answers, where the inventory says how to ask it.

        Raises:
            ProofError: It does not, in its time.
            HostError: A service that was launched has ended.
        """
        url = self._target.health_url
        if url:
            with self._journal.phase("health"):
                wait_until_healthy(
                    url, self._target.health_timeout, self._look_at_launched, ask=asker_of(self._host, url)
                )

    def require_steady(self) -> None:
        """Make sure that what was launched keeps running.

        Raises:
            HostError: A service has ended.
        """
        with self._journal.phase("steady"):
            self._require_steady()

    def start(self) -> list[str]:
        """Start them all, those that run too: one that dies again and again seems to run at times.

        Return which were down, a line each.

        Raises:
            HostError: One does not come up.
        """
        done: list[str] = []
        for service in self.services:
            was_running = service.is_running()
            service.start()
            done += [] if was_running else [f"{service.describe()} runs again"]
        return done

    def start_those_down(self) -> None:
        """Start those that do not run.

        Raises:
            HostError: One does not come up.
        """
        for service in self.services:
            if not service.is_running():
                service.start()

    def start_again(self) -> list[str]:
        """Start them all, and wait until they answer. Return what was done.

        Raises:
            OpsproofError: One does not come up, though all were tried; or the application does not answer.
        """
        done: list[str] = []
        failed: list[OpsproofError] = []
        for service in self.services:
            try:
                service.start()
                done.append(f"{service.describe()} runs again")
            except OpsproofError as error:
                failed.append(error)
        if failed:
            raise failed[0]
        if self._target.health_url:
            self.await_answer()
            done.append(f"{self._target.health_url} answers")
        return done

    def start_whatever_starts(self) -> None:
        """Start them after an undo that failed, or without a database: that one is down is only told."""
        for service in self.services:
            try:
                service.start()
            except HostError as error:
                self._journal.warn(f"{service.describe()} is down: {error}")

    def _look_at_launched(self) -> None:
        """A service that has ended tells more than that nobody answers."""
        if all(launched.steady_at <= time.monotonic() for _, launched in self._launched):
            self._require_steady()

    def _require_steady(self) -> None:
        while self._launched:
            service, launched = self._launched.pop()
            service.require_steady(launched)
