"""The demo's processes, found in /proc and ended by their own number, also when nobody supervises them any more.

A process is the demo's when its working directory is the demo's folder (every program is started there, PostgreSQL in
its data directory and the application in its release) and its command line is one that the demo starts: a shell that
somebody left in the folder is neither counted nor ended.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from opsproof.demo.folder import DemoFolder
from opsproof.errors import HostError

_MODULES = frozenset(
    {
        "supervisor.supervisord",
        "moto.server",
        "opsproof.demo.writer",
        "shop.server",
        "shop.seed",
        "alembic",
    }
)
_SUPERVISOR = "supervisor.supervisord"
_BACKEND = "postgres backend"
_GONE = " (deleted)"


@dataclass(frozen=True)
class DemoProcess:
    """One process of the demo: its number, and the module or program that it runs."""

    pid: int
    program: str

    @property
    def is_postmaster(self) -> bool:
        """Tell PostgreSQL's first process from the ones that it started."""
        return self.program == "postgres"


def find_processes(folder: DemoFolder) -> list[DemoProcess]:
    """Return the demo's processes that live, zombies not counted."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [process for number in numbers if (process := _identify(folder, number)) is not None]


def end_processes(folder: DemoFolder, *, patience: float = 15.0) -> list[DemoProcess]:
    """End whatever of the demo lives, the supervisor first, and wait until it is gone.

    Args:
        folder: The demo.
        patience: Seconds that they get to end in order before they are killed.

    Returns:
        What was ended.

    Raises:
        HostError: Something would not even be killed.
    """
    ended = find_processes(folder)
    # First, and for good: a supervisor that lives would start anew what ends.
    for process in ended:
        if process.program == _SUPERVISOR:
            _signal(folder, process, signal.SIGKILL)
    for process in ended:
        if process.is_postmaster:
            _signal(folder, process, signal.SIGINT)  # a fast shutdown: sessions are ended, data is left whole
        elif process.program != _BACKEND:
            _signal(folder, process, signal.SIGTERM)
    if not wait_until_gone(folder, patience):
        for process in find_processes(folder):
            _signal(folder, process, signal.SIGKILL)
        if not wait_until_gone(folder, 5.0):
            left = ", ".join(f"{one.program} ({one.pid})" for one in find_processes(folder))
            raise HostError(
                "the demo's processes cannot be ended",
                found=left,
                kept=f"{folder.path} is as it was",
                hint="kill -9 them as the user that started the demo",
            )
    return ended


def wait_until_gone(folder: DemoFolder, patience: float) -> bool:
    """Wait, at most so many seconds, until no process of the demo lives; return whether that came about."""
    deadline = time.monotonic() + patience
    while find_processes(folder):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _identify(folder: DemoFolder, pid: int) -> DemoProcess | None:
    """Return the process if it is the demo's; None also for one that just ended or that is another user's."""
    proc = Path("/proc") / str(pid)
    try:
        # A folder removed by hand leaves its processes behind, with this after the name.
        cwd = Path(str((proc / "cwd").readlink()).removesuffix(_GONE))
        if cwd != folder.path and folder.path not in cwd.parents:
            return None
        words = (proc / "cmdline").read_bytes().decode(errors="replace").split("\0")
        # The name in parentheses may hold anything, also spaces and parentheses.
        if (proc / "stat").read_text(errors="replace").rpartition(")")[2].split()[0] in "ZX":
            return None
        if len(words) > 2 and words[1] == "-m" and words[2] in _MODULES:
            return DemoProcess(pid, words[2])
        executable = Path(str((proc / "exe").readlink()).removesuffix(_GONE))
        if executable.name in {"postgres", "initdb"} and folder.path in executable.parents:
            # What the postmaster starts calls itself "postgres: ...", and changes that as it works.
            return DemoProcess(pid, executable.name if words[0].startswith("/") else _BACKEND)
    except OSError:
        return None
    return None


def _signal(folder: DemoFolder, process: DemoProcess, number: signal.Signals) -> None:
    """Send a signal to exactly this process: a number that went to another one meanwhile is left alone."""
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The descriptor is bound to whoever has the number now; looked at again, it is the one that was meant.
        if _identify(folder, process.pid) == process:
            signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
