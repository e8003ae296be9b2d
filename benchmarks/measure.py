"""Measuring commands: seconds, and the peaks of memory and of temporary disk."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
# Not oftener: sampling takes processor time, and only one of the two ways leaves a core idle for it.
SAMPLE_SECONDS = 0.25
MEGABYTE = 1e6
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Measured:
    """One run: seconds, those of processors, the archive's bytes, peak bytes of memory and temporary disk, journal."""

    seconds: float = 0.0
    processor: float = 0.0
    archive: int = 0
    memory: int = 0
    disk: int = 0
    phases: dict[str, float] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)


class Watch:
    """Samples the memory of a process and all its children, and the disk that a folder and their nameless files take.

    The server's backends are not among them: both ways use the same. Memory is what each process has
    for itself alone, which costs next to nothing to ask for.
    """

    def __init__(self, pid: int, folders: list[Path]) -> None:
        self.memory = self.disk = 0
        self._pid = pid
        self._folders = folders
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            pids = family(self._pid)
            self.memory = max(self.memory, sum(memory_of(pid) for pid in pids))
            named = sum(size_of(folder) for folder in self._folders)
            self.disk = max(self.disk, named + sum(nameless_files(pid) for pid in pids))


def run_action(action: str, folder: Path, *options: str) -> Measured:
    """Run an action of the environment `bench` in a project's folder, and measure it; it must have passed.

    Args:
        action: `backup` or `restore`.
        folder: With hosts.yml; the temporary files go to `tmp` in it.
        options: More of its options.
    """
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    logs = folder / f"logs-{time.monotonic_ns()}"
    argv = [
        sys.executable, "-m", "pytest", str(ROOT / "actions" / f"test_{action}.py"), "--env=bench", "-q",
        f"--inventory={folder / 'hosts.yml'}", f"--logs={logs}", "-p", "no:cacheprovider",
        # What only developers have installed: half a second at the end of every run.
        "-p", "no:hypothesispytest", "-p", "no:xdist", *options,
    ]  # fmt: skip
    measured = measure(argv, ROOT, {**os.environ, "TMPDIR": str(temporary)}, [temporary])
    measured.events = [json.loads(line) for line in next(logs.glob("*.jsonl")).read_text().splitlines()]
    for event in measured.events:
        if event["event"] == "phase ends":
            measured.phases[event["phase"]] = measured.phases.get(event["phase"], 0.0) + event["seconds"]
    return measured


def measure(argv: list[str], folder: Path, environment: dict[str, str], disk: list[Path]) -> Measured:
    """Run a command to its successful end and measure it; `disk` are the folders of its temporary files."""
    measured = Measured()
    used = used_by_children()
    started = time.monotonic()
    with subprocess.Popen(
        argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        watch = Watch(process.pid, disk)
        output = process.stdout.read() if process.stdout else b""
        status = process.wait()
        measured.seconds = time.monotonic() - started
        watch.finish()
    if status != 0:
        raise SystemExit(f"{argv[0]} ended with {status}:\n{output.decode()}")
    measured.memory, measured.disk = watch.memory, watch.disk
    measured.processor = used_by_children() - used
    return measured


def used_by_children() -> float:
    """Return the seconds of processor time of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def used_by_server(pid: int) -> float:
    """Return the seconds of processor time of a process and of all its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def memory_of(pid: int) -> int:
    """Return what a process has in memory for itself alone, in bytes; 0 when it is gone."""
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * PAGE_BYTES


def nameless_files(pid: int) -> int:
    """Return the bytes on disk of files that a process has open but that no folder names."""
    total = 0
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if str(link.readlink()).endswith("(deleted)"):
                total += link.stat().st_blocks * 512
    except OSError:
        return total
    return total


def size_of(place: Path) -> int:
    """Return the bytes on disk of a file or a folder, as far as it holds still."""
    try:
        if place.is_dir():
            return sum(size_of(Path(entry)) for entry in os.scandir(place))
        return place.lstat().st_blocks * 512
    except OSError:
        return 0


def middle(runs: list[Measured]) -> Measured:
    """Return the run of median duration, with the peaks of all."""
    typical = next(
        run for run in sorted(runs, key=lambda run: run.seconds) if run.seconds >= median(r.seconds for r in runs)
    )
    memory, disk = max(run.memory for run in runs), max(run.disk for run in runs)
    return replace(typical, memory=memory, disk=disk)
