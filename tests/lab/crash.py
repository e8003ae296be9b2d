"""Ending what a restore relies on: its server, as a crash does, and the programs that it started."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.lab.action_run import Project
from tests.lab.postgres_server import PostgresServer
from tests.lab.waiting import await_true


class CrashingServer:
    """A server that can be ended without its leave, and started again."""

    def __init__(self, server: PostgresServer) -> None:
        self._server = server
        self._successors: list[subprocess.Popen[bytes]] = []

    def crash(self) -> None:
        """End the server at once, and start it again."""
        data = self._server.folder / "data"
        pid = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        for process in self._successors:
            process.wait(30)
        await_true(lambda: not is_alive(pid), "the server does not end")
        with (self._server.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(self._server.bindir / "postgres"), "-D", str(data)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                **self._server.account,
            )
        self._successors.append(process)

    def end(self) -> None:
        """End the servers that took the first one's place."""
        for process in self._successors:
            process.send_signal(signal.SIGINT)
            process.wait(30)


@contextmanager
def crashing(server: PostgresServer) -> Iterator[CrashingServer]:
    """Let a server be crashed; whatever took its place is ended after the block."""
    crashing_server = CrashingServer(server)
    try:
        yield crashing_server
    finally:
        crashing_server.end()


def find_child(project: Project, program: str) -> int | None:
    """Return the process of a program that a project's runs started; None where there is none."""
    for pid in _processes(project):
        with suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == program:
                return pid
    return None


def end_children(project: Project) -> None:
    """Kill what a killed run left running: its machine is gone."""
    while pid := next(iter(_processes(project)), None):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        await_true(lambda pid=pid: not is_alive(pid), "it does not end")  # type: ignore[misc]


def is_alive(pid: int) -> bool:
    """Tell whether a process runs; one that has ended and was not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _processes(project: Project) -> Iterator[int]:
    mark = f"TMPDIR={project.environ['TMPDIR']}\0".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes() and is_alive(int(process.name)):
                yield int(process.name)
