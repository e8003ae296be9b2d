"""Logging in to a lab host: ssh's own files for it, and running a program with all that it says."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import CommandFailed

TAIL = 2000


@dataclass(frozen=True)
class SshLogin:
    """What ssh needs to log in to a host.

    Attributes:
        name: The host's, by which `config` knows it.
        folder: Where the files are.
    """

    name: str
    folder: Path

    @property
    def known_hosts(self) -> Path:
        """A file with the true host key, by the host's address."""
        return self.folder / "known_hosts"

    @property
    def config(self) -> Path:
        """A file for `ssh -F`."""
        return self.folder / "ssh_config"

    def write(self, address: str, key: Path, host_key: str) -> None:
        """Write the files, for a host at an address that accepts a private key and shows a host key."""
        self.known_hosts.write_text(f"{address} {host_key}\n")
        settings = {
            "HostName": address,
            "User": "root",
            "IdentityFile": f'"{key}"',
            "IdentitiesOnly": "yes",
            "UserKnownHostsFile": f'"{self.known_hosts}"',
            "StrictHostKeyChecking": "yes",
            "ConnectTimeout": "3",
            "LogLevel": "ERROR",
        }
        lines = [f"Host {self.name}", *(f"  {name} {value}" for name, value in settings.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def argv(self, *words: str, user: str = "root") -> list[str]:
        """Return the program that logs in, to run a shell command if there are words of one."""
        return ["ssh", "-F", str(self.config), "-l", user, self.name, *words]


def run_program(argv: list[str], seconds: float) -> subprocess.CompletedProcess[str]:
    """Run a program to its end, however that is.

    Raises:
        subprocess.TimeoutExpired: It took longer than that, in seconds.
    """
    return subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds, check=False
    )


def output_of(done: subprocess.CompletedProcess[str], what: str) -> str:
    """Return what a program said, without the last line's end.

    Raises:
        CommandFailed: It ended with another status than 0.
    """
    if done.returncode != 0:
        raise CommandFailed(f"{what}: ended with {done.returncode}", found=f"{done.stdout}{done.stderr}"[-TAIL:])
    return done.stdout.removesuffix("\n")
