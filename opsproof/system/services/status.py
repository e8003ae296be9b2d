"""What a service manager says of a service, in words that every manager shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from opsproof.system.hosts.host import Host

Phase = Literal["running", "stopped", "starting", "stopping", "unclear"]


@dataclass(frozen=True)
class Status:
    """One service at one moment.

    `word` is the manager's own (`RUNNING`, `active (running)`). `phase` is what it means: `starting` is also one that
    the manager is about to try again; `unclear` one whose parts differ, or of which the manager itself does not know.
    `pids` are its main processes, none where the manager knows none.
    """

    word: str
    phase: Phase
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Boot:
    """Whether a service is started with its host: the manager's own word, and what to type where it is not."""

    word: str
    is_started: bool
    remedy: str = ""


@dataclass(frozen=True)
class History:
    """How often the manager has restarted a service since somebody started it.

    `seconds_up` is how long its process has been there; None where nobody knows.
    """

    restarts: int
    seconds_up: float | None


def combine(parts: Sequence[tuple[str, Status]]) -> Status:
    """Return the status of a service of one or several named parts."""
    if len(parts) == 1:
        return parts[0][1]
    phases = {status.phase for _, status in parts}
    if len(phases) == 1:
        phase = phases.pop()
    else:
        phase = next((one for one in ("stopping", "starting") if one in phases), "unclear")
    words = ", ".join(f"{name} {status.word}" for name, status in parts)
    return Status(words, phase, tuple(pid for _, status in parts for pid in status.pids))


def user_of_process(host: Host, pid: int) -> str | None:
    """Return the user that a process runs as; None where it is gone, or its user has no name."""
    done = host.run("stat", "--format=%U", f"/proc/{pid}", accept=(0, 1))
    name = done.stdout.strip()
    return name if name and name != "UNKNOWN" else None


def seconds_up(host: Host, pid: int) -> float | None:
    """Return how long a process has been there; None where it is gone."""
    done = host.run("ps", "-o", "etimes=", "-p", str(pid), accept=(0, 1))
    text = done.stdout.strip()
    return float(text) if text else None
