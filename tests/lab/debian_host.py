"""A real Debian host beside us: systemd, sshd, PostgreSQL 13 behind its socket, and Odoo 14 as odoo.service.

By hand, as root:

    python -m tests.lab.debian_host up NAME               boot it (the first time of all: build its base)
    python -m tests.lab.debian_host ssh NAME [COMMAND]    log in as root
    python -m tests.lab.debian_host crash|down NAME       as a power cut | as a power button
    python -m tests.lab.debian_host cut|join NAME         its network
    python -m tests.lab.debian_host reset NAME            end it and throw its disk away
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opsproof.errors import ConfigurationError, HostError, OpsproofError
from tests.lab.debian_base import DATABASE, DebianBase, find_base, lab_folder, locked
from tests.lab.network import Link, find_link, release, reserve
from tests.lab.nspawn import Machine, Process
from tests.lab.ssh_login import SshLogin, output_of, run_program

BOOT_SECONDS = 60.0
ODOO_SECONDS = 120.0
COMMAND_SECONDS = 60.0
ODOO_PORT = 8069
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class DebianHost:
    """A host with a name: its disk is its own, from the base on, and stays until `remove`.

    Args:
        name: Its hostname.
        base: What its disk starts from.
        owner: The process that it must not outlive; None for one that stays until somebody ends it.
    """

    def __init__(self, name: str, base: DebianBase, owner: Process | None = None) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9-]{0,40}", name):
            raise ConfigurationError(f"{name!r} is no name for a host", expected="a-z, 0-9 and -, from a letter on")
        self.name = name
        self.folder = lab_folder() / "hosts" / name
        self.machine = Machine(name, self.folder)
        self.login = SshLogin(name, self.folder)
        self._owner = owner
        self._newest_base = base

    @property
    def address(self) -> str:
        """Its IPv4 address, the same from the first boot to `remove` or `release`."""
        return self._link.address

    @property
    def key(self) -> Path:
        """The private ssh key for root and for ops, who may sudo without a password."""
        return self._base.key

    @property
    def known_hosts(self) -> Path:
        """A file with its true host key."""
        return self.login.known_hosts

    @property
    def ssh_config(self) -> Path:
        """A file for `ssh -F`, in which it goes by its name; as root, if nobody else is named."""
        return self.login.config

    @property
    def is_running(self) -> bool:
        """Tell whether it runs, reachable or not."""
        return self.machine.is_running

    def boot(self, seconds: float = BOOT_SECONDS) -> None:
        """Boot it, unless it runs, and wait until it is up; Odoo needs some seconds more (`await_odoo`).

        Raises:
            HostError: It does not come up in that time, in seconds, or a unit of it failed.
        """
        self._make_folder()
        with locked(self.folder / "lock"):
            if not self.is_running:
                link = reserve(self.folder)
                self.machine.kill(link)
                self.login.write(link.address, self.key, self._base.host_key)
                self.machine.start(self._base, link)
        self.await_up(seconds)

    def await_up(self, seconds: float = BOOT_SECONDS) -> None:
        """Wait until sshd answers and systemd has started everything.

        Raises:
            HostError: They do not in that time, in seconds, or a unit failed.
        """
        deadline = time.monotonic() + seconds
        state = ""
        while self.is_running and (left := deadline - time.monotonic()) > 0:
            with suppress(subprocess.TimeoutExpired):
                state = self.attempt("systemctl is-system-running --wait", seconds=left).stdout.strip()
            if state == "running":
                return
            if state == "degraded":
                raise HostError(f"a unit of {self.name} failed", found=self.run("systemctl --failed --no-pager"))
            time.sleep(0.05)
        raise HostError(f"the lab host {self.name} does not come up", found=f"{state}\n{self.machine.console()}")

    def await_odoo(self, seconds: float = ODOO_SECONDS) -> None:
        """Wait until Odoo's login page answers with 200.

        Raises:
            HostError: It does not in that time, in seconds.
        """
        deadline = time.monotonic() + seconds
        while True:
            try:
                urllib.request.urlopen(f"{self.odoo_url}/web/login", timeout=30).close()
            except OSError as error:
                if time.monotonic() > deadline:
                    raise HostError(
                        f"Odoo on {self.name} does not answer", found=f"{error}\n{self.journal('odoo')}"
                    ) from error
                time.sleep(0.1)
            else:
                return

    @property
    def odoo_url(self) -> str:
        """Where its Odoo listens."""
        return f"http://{self.address}:{ODOO_PORT}"

    def down(self) -> None:
        """Power it off cleanly; disk and address stay its own.

        Raises:
            HostError: It had to be killed.
        """
        if (link := find_link(self.folder)) and not self.machine.power_off(link):
            raise HostError(f"{self.name} did not power off, and was killed", found=self.machine.console())

    def crash(self) -> None:
        """Kill its PID 1, and so all of it; whoever is connected hears nothing, as from a power cut."""
        self.cut()
        self.machine.kill(self._link)

    def reset(self) -> None:
        """End it and throw its disk away: the next boot is the first again, at the same address."""
        if self.folder.is_dir():
            self.machine.kill(reserve(self.folder))
        for name in ("disk", "work", "base"):
            path = self.folder / name
            path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)

    def cut(self) -> None:
        """Cut its network: what is sent is lost, and nobody is told."""
        self._running_link.cut()

    def join(self) -> None:
        """Mend its network."""
        self._running_link.join()

    def release(self) -> None:
        """Give the address of a host that is down back; its disk stays."""
        if link := find_link(self.folder):
            release(link)

    def remove(self) -> None:
        """End it and leave nothing of it."""
        self.reset()
        self.release()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: str, user: str = "root", seconds: float = COMMAND_SECONDS) -> str:
        """Run a shell command on it by ssh, and return what it said, without the last line's end.

        Raises:
            CommandFailed: It ended with another status than 0.
            subprocess.TimeoutExpired: It took longer than that, in seconds.
        """
        return output_of(self.attempt(command, user, seconds), f"{user}@{self.name}: {command}")

    def attempt(
        self, command: str, user: str = "root", seconds: float = COMMAND_SECONDS
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell command on it by ssh, however it ends: 255 is ssh's own failure."""
        return run_program(self.login.argv(command, user=user), seconds)

    def inside(self, command: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run a shell command as root in its namespaces, without network or ssh: also while it is cut off.

        Raises:
            CommandFailed: It ended with another status than 0.
            subprocess.TimeoutExpired: It took longer than that, in seconds.
        """
        enter = ["nsenter", "--target", str(self.machine.init.pid), "--all"]
        argv = [*enter, "env", "-i", f"PATH={PATH}", "HOME=/root", "LC_ALL=C.UTF-8", "sh", "-c", command]
        return output_of(run_program(argv, seconds), f"{self.name}: {command}")

    def sql(self, query: str, dbname: str = DATABASE) -> str:
        """Run SQL as postgres behind the socket, and return psql's unaligned rows."""
        words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", dbname, "-c", query]
        return self.inside(f"runuser -u postgres -- {shlex.join(words)}")

    def journal(self, unit: str = "", lines: int = 50) -> str:
        """Return the last lines of its journal, of one unit or of all."""
        named = f"--unit={shlex.quote(unit)}" if unit else ""
        return self.inside(f"journalctl --no-pager --quiet --lines={lines} {named}")

    @contextmanager
    def small_disk(self, folder: str, room: int) -> Iterator[None]:
        """Lay a disk that is nearly full over a folder: the same files, and room for so many bytes more.

        What is written there is gone with the block, and with a crash.

        Args:
            folder: On the host.
            room: Bytes that are free.
        """
        path = shlex.quote(folder)
        self.inside(
            f"set -e; copy=$(mktemp -d); mount -t tmpfs tmpfs $copy; cp -a {path}/. $copy;"
            f"chown --reference={path} $copy; chmod --reference={path} $copy; touch --reference={path} $copy;"
            f"size=$(($(df --block-size=1 --output=used $copy | tail -n 1) + {room}));"
            f"mount -o remount,size=$size $copy; mount --bind $copy {path}; umount $copy; rmdir $copy"
        )
        try:
            yield
        finally:
            if self.is_running:
                self.inside(f"! mountpoint -q {path} || umount --lazy {path}")

    @property
    def _link(self) -> Link:
        link = find_link(self.folder)
        if link is None:
            raise HostError(f"the lab host {self.name} was not booted", hint=f"{_PROGRAM} up {self.name}")
        return link

    @property
    def _running_link(self) -> Link:
        if not self.is_running:
            raise HostError(f"the lab host {self.name} does not run", hint=f"{_PROGRAM} up {self.name}")
        return self._link

    @property
    def _base(self) -> DebianBase:
        """What its disk lies on, which need not be the newest."""
        return DebianBase(lab_folder() / (self.folder / "base").read_text())

    def _make_folder(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._owner:
            self._owner.write(self.folder / "owner")
        with locked(lab_folder() / "base.lock"):
            if not (self.folder / "base").exists():
                (self.folder / "base").write_text(self._newest_base.folder.name)


_PROGRAM = "python -m tests.lab.debian_host"


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog=_PROGRAM, description="a real Debian host, by hand")
    parser.add_argument("verb", choices=("up", "ssh", "crash", "cut", "join", "reset", "down"))
    parser.add_argument("name")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    host = DebianHost(given.name, find_base())
    if given.verb == "up":
        host.boot()
        print(f"{host.name} is up at {host.address}: ssh -F {host.ssh_config} {host.name}; Odoo: {host.odoo_url}")
    elif given.verb == "ssh":
        os.execvp("ssh", host.login.argv(*given.command))
    elif given.verb == "reset":
        host.remove()
    elif given.verb == "down":
        host.down()
        host.release()
    else:
        {"crash": host.crash, "cut": host.cut, "join": host.join}[given.verb]()


if __name__ == "__main__":
    try:
        main()
    except OpsproofError as error:
        sys.exit(f"{_PROGRAM}: {error}")
