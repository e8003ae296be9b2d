"""A Debian disk as a running machine: systemd-nspawn, in namespaces that end with it.

    keeper (sh) -> systemd-nspawn -> the machine's PID 1

The keeper has a mount and a network namespace of its own: the overlay and the link are gone when the last of the three
is, however that came about. It boots the machine again when that reboots.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import HostError
from tests.lab.debian_base import DebianBase
from tests.lab.network import BRIDGE, Link

KEEPER = """\
set -eu
for cgroup in $CGROUPS; do echo $$ >"$cgroup/cgroup.procs"; done
# volatile: a host does not outlive this machine's kernel, so nobody needs its fsync to reach our disk.
layers="lowerdir=$BASE,upperdir=$HOST/disk,workdir=$HOST/work"
mount -t overlay overlay -o "$layers,volatile" "$HOST/root" 2>/dev/null ||
    mount -t overlay overlay -o "$layers" "$HOST/root"
ip link add host0 address "$MAC" type veth peer name "$DEVICE" netns "$OUTSIDE"
nsenter --target "$OUTSIDE" --net ip link set "$DEVICE" master "$BRIDGE" up
ip link set lo up
ip address add "$ADDRESS" dev host0
ip link set host0 up
while :; do
    status=0
    "$@" || status=$?
    [ "$status" = 133 ] || exit "$status"  # 133: it asked for a reboot
done
"""
POWER_OFF_SECONDS = 40.0
END_SECONDS = 20.0
TAIL = 3000


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with its number.

    Attributes:
        pid: Its number.
        started: When, in clock ticks since this machine's boot.
    """

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process that has this number now; `started` is 0 if there is none."""
        fields = _stat(pid)
        return cls(pid, int(fields[19]) if fields else 0)

    @classmethod
    def read(cls, path: Path) -> Process | None:
        """Return the process that a file names; None if there is no such file."""
        try:
            pid, started = path.read_text().split()
        except FileNotFoundError:
            return None
        return cls(int(pid), int(started))

    def write(self, path: Path) -> None:
        """Name it in a file."""
        path.write_text(f"{self.pid} {self.started}")

    @property
    def is_running(self) -> bool:
        """Tell whether it is there, and not only a name that nobody has collected."""
        fields = _stat(self.pid)
        return bool(fields) and fields[0] not in "ZX" and int(fields[19]) == self.started

    def children(self) -> list[Process]:
        """Return what it started and what still runs."""
        pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
        found = [Process.of(pid) for pid in pids if (fields := _stat(pid)) and int(fields[1]) == self.pid]
        return [child for child in found if child.is_running]

    def signal(self, number: int) -> None:
        """Send a signal, if it runs."""
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)


@dataclass(frozen=True)
class Machine:
    """A host's disk and processes.

    Attributes:
        name: Its hostname.
        folder: Its own, named as it is, in the folder `hosts` of the lab.
    """

    name: str
    folder: Path

    @property
    def disk(self) -> Path:
        """What it wrote: the files that differ from the base's, as they are now."""
        return self.folder / "disk"

    @property
    def keeper(self) -> Process | None:
        """What was started for it last."""
        return Process.read(self.folder / "keeper")

    @property
    def is_running(self) -> bool:
        """Tell whether it runs."""
        return self.keeper is not None and self.keeper.is_running

    @property
    def init(self) -> Process:
        """Its PID 1, as this machine numbers it.

        Raises:
            HostError: It does not run.
        """
        processes = self._processes()
        if len(processes) < 3:
            raise HostError(f"the lab host {self.name} does not run", found=self.console())
        return processes[2]

    def start(self, base: DebianBase, link: Link) -> None:
        """Start its processes, which says nothing yet of whether it boots."""
        self._write_names()
        shutil.rmtree(self.folder / "work", ignore_errors=True)
        for name in ("work", "root"):
            (self.folder / name).mkdir(exist_ok=True)
        cgroups = _cgroups(link)
        for cgroup in cgroups:
            cgroup.mkdir(exist_ok=True)
        lab = self.folder.parents[1]
        variables = {
            "PATH": os.environ["PATH"],
            "BASE": str(base.root.relative_to(lab)),
            "HOST": str(self.folder.relative_to(lab)),
            "CGROUPS": " ".join(map(str, cgroups)),
            "OUTSIDE": str(os.getpid()),
            "BRIDGE": BRIDGE,
            "DEVICE": link.device,
            "MAC": link.mac,
            "ADDRESS": f"{link.address}/{link.network.prefixlen}",
            # Where both versions of cgroups are mounted side by side, newer systemds still boot on the second alone.
            "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
        }
        nspawn = ["systemd-nspawn", "--boot", "--directory", str(self.folder / "root"), f"--machine={self.name}"]
        nspawn += ["--register=no", "--keep-unit", "--console=read-only", "--link-journal=no"]
        nspawn += ["--network-namespace-path=/proc/self/ns/net"]
        with (self.folder / "console.log").open("ab") as console:
            keeper = subprocess.Popen(
                # Paths below are relative to the lab: an overlay's options have no way to say a colon or a comma.
                ["unshare", "--mount", "--net", "sh", "-c", KEEPER, "lab-keeper", *nspawn],
                cwd=lab,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        _KEEPERS[keeper.pid] = keeper
        Process.of(keeper.pid).write(self.folder / "keeper")

    def power_off(self, link: Link) -> bool:
        """Stop it as its power button would; False if it had to be killed after all."""
        processes = self._processes()
        if len(processes) == 3:
            processes[2].signal(signal.SIGRTMIN + 4)
            deadline = time.monotonic() + POWER_OFF_SECONDS
            while self.is_running and time.monotonic() < deadline:
                time.sleep(0.02)
        stopped = not self.is_running
        self.kill(link)
        return stopped

    def kill(self, link: Link) -> None:
        """End all of it at once, its PID 1 first, and wait until nothing of it is left but its disk.

        Raises:
            HostError: Something of it does not end.
        """
        deadline = time.monotonic() + END_SECONDS
        while self.is_running or not _are_removed(_cgroups(link)):
            # Again each time: what was killed while it booted may have just started what comes next.
            for process in reversed(self._processes()):
                process.signal(signal.SIGKILL)
            if time.monotonic() > deadline:
                raise HostError(f"the lab host {self.name} does not end", found=str(self._processes()))
            time.sleep(0.01)
        keeper = self.keeper
        if keeper and (child := _KEEPERS.pop(keeper.pid, None)):
            child.wait(END_SECONDS)
        (self.folder / "keeper").unlink(missing_ok=True)
        link.remove()

    def console(self) -> str:
        """Return the end of what it wrote to its console."""
        path = self.folder / "console.log"
        return path.read_text(errors="replace")[-TAIL:] if path.exists() else ""

    def _processes(self) -> list[Process]:
        """Return those of keeper, nspawn and PID 1 that run, in this order."""
        found: list[Process] = []
        following = [self.keeper] if self.keeper and self.keeper.is_running else []
        while following and len(found) < 3:
            found.append(following[0])
            following = found[-1].children()
        return found

    def _write_names(self) -> None:
        # Into its layer, not through its mount: a folder that a layer has must look as the base's does.
        for folder in (self.disk, self.disk / "etc"):
            if not folder.exists():
                folder.mkdir(mode=0o755)
                folder.chmod(0o755)
        for name, text in {"hostname": self.name, "hosts": f"127.0.0.1 localhost\n127.0.1.1 {self.name}"}.items():
            path = self.disk / "etc" / name
            path.write_text(f"{text}\n")
            path.chmod(0o644)


# Those that this process started, which it has to collect.
_KEEPERS: dict[int, subprocess.Popen[bytes]] = {}


def _stat(pid: int) -> list[str]:
    """Return what /proc/PID/stat says from the state (its third field) on; nothing if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def _cgroups(link: Link) -> list[Path]:
    """Return a host's own groups: in the second version's tree, and in systemd's of the first where it is mounted."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    trees = [words[1] for words in mounts if words[2] == "cgroup2" or "name=systemd" in words[3].split(",")]
    return [Path(tree, f"opsproof-lab-{link.number}") for tree in trees]


def _are_removed(cgroups: list[Path]) -> bool:
    """Remove groups with those below them; False as long as a process is in one."""
    for cgroup in cgroups:
        for folder, _, _ in os.walk(cgroup, topdown=False):
            with contextlib.suppress(OSError):
                Path(folder).rmdir()
    return not any(cgroup.exists() for cgroup in cgroups)
