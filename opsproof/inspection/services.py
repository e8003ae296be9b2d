"""Whether an application's services are as they must be: looked at, never touched."""

from __future__ import annotations

import time
from collections.abc import Sequence

from opsproof.errors import ProofError
from opsproof.system.services.service import Service

LOOK_AGAIN_SECONDS = 2.0
RECENT_SECONDS = 600.0
UNTOUCHED = "everything: a check only looks"


def check_runs(services: Sequence[Service]) -> None:
    """Make sure that each service runs.

    Raises:
        ProofError: One does not; its last lines are in the error.
        HostError: The manager does not answer, or has no such service.
    """
    for one in services:
        status = one.status()
        if status.phase != "running":
            raise ProofError(
                f"{one.describe()} does not run",
                expected="running",
                found=f"{status.word}\n{one.last_lines()}",
                kept=UNTOUCHED,
                hint=one.remedy(),
            )


def check_at_boot(services: Sequence[Service]) -> None:
    """Make sure that each service is started when the host is.

    Raises:
        ProofError: One is not.
        HostError: The manager does not answer, or has no such service.
    """
    for one in services:
        boot = one.at_boot()
        if not boot.is_started:
            raise ProofError(
                f"{one.describe()} is not started when the host is",
                expected="enabled",
                found=boot.word,
                kept=UNTOUCHED,
                hint=boot.remedy,
            )


def check_steady(services: Sequence[Service]) -> None:
    """Make sure that no service is restarted again and again.

    Raises:
        ProofError: One was restarted by its manager in the last ten minutes, or between two looks.
        HostError: The manager does not answer, or has no such service.
    """
    first = {one.label: one.status() for one in services}
    time.sleep(LOOK_AGAIN_SECONDS)
    for one in services:
        before, now, history = first[one.label], one.status(), one.history()
        changed = before.pids != now.pids
        recent = history.restarts > 0 and history.seconds_up is not None and history.seconds_up < RECENT_SECONDS
        if changed or recent:
            up = "" if history.seconds_up is None else f", up for {history.seconds_up:.0f} s"
            raise ProofError(
                f"{one.describe()} has been restarting",
                expected=f"the same process for {RECENT_SECONDS / 60:.0f} minutes, where its manager has restarted it",
                found=f"{history.restarts} restarts{up}; {before.word}, then {now.word}\n{one.last_lines()}",
                kept=UNTOUCHED,
                hint=one.remedy(),
            )
