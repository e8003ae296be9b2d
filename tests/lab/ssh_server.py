"""A real sshd on loopback, with keys of its own: this machine, reached as a remote one is."""

from __future__ import annotations

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opsproof.target import Connection
from tests.lab.moto_server import free_ports

PROGRAM = "/usr/sbin/sshd"
START_SECONDS = 10.0


@dataclass(frozen=True)
class SshServer:
    """An sshd that lets the account of the tests in.

    Attributes:
        folder: Its keys and files.
        port: On 127.0.0.1.
        pid: Of the listening process.
    """

    folder: Path
    port: int
    pid: int

    @property
    def connection(self) -> Connection:
        """Return how an inventory reaches it."""
        return Connection(
            kind="ssh",
            host="127.0.0.1",
            user=getpass.getuser(),
            port=self.port,
            private_key_file=str(self.folder / "key"),
            ssh_common_args=self.common_args,
        )

    @property
    def variables(self) -> dict[str, Any]:
        """Return the same as the inventory of a host says it."""
        one = self.connection
        return {
            "ansible_connection": one.kind,
            "ansible_host": one.host,
            "ansible_port": one.port,
            "ansible_user": one.user,
            "ansible_ssh_private_key_file": one.private_key_file,
            "ansible_ssh_common_args": one.ssh_common_args,
        }

    @property
    def common_args(self) -> str:
        """Return what keeps ssh from the tester's own configuration and known hosts."""
        return f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={shlex.quote(str(self.folder / 'known_hosts'))}"

    def sessions(self) -> list[int]:
        """Return the processes of connections that stand, by pid."""
        found = subprocess.run(["pgrep", "-P", str(self.pid)], capture_output=True, text=True, check=False).stdout
        return [int(one) for one in found.split()]


@contextmanager
def running_sshd() -> Iterator[SshServer]:
    """Run sshd for as long as the block lasts."""
    if not Path(PROGRAM).exists() or os.geteuid() != 0:
        pytest.skip(f"needs root and {PROGRAM}: apt-get install openssh-server")
    # sshd insists on this folder, which its service would have made.
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="opsproof-sshd-"))
    (port,) = free_ports(1)
    for name in ("key", "host_key"):
        keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", str(folder / name)]
        subprocess.run(keygen, check=True)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    known = (folder / "host_key.pub").read_text().rsplit(" ", 1)[0]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {known}\n")
    options = {
        "ListenAddress": "127.0.0.1", "Port": port, "HostKey": folder / "host_key", "PidFile": "none", "UsePAM": "no",
        "AuthorizedKeysFile": folder / "authorized_keys", "StrictModes": "no", "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password", "LogLevel": "ERROR",
    }  # fmt: skip
    (folder / "sshd_config").write_text("".join(f"{name} {value}\n" for name, value in options.items()))
    command = [PROGRAM, "-D", "-e", "-f", str(folder / "sshd_config")]
    with (folder / "log").open("wb") as log, subprocess.Popen(command, stderr=log, start_new_session=True) as daemon:
        try:
            _await_listening(port, folder)
            yield SshServer(folder, port, daemon.pid)
        finally:
            daemon.terminate()
            daemon.wait(timeout=30)
            shutil.rmtree(folder)


@pytest.fixture(scope="session")
def ssh_server() -> Iterator[SshServer]:
    """An sshd for the session."""
    with running_sshd() as server:
        yield server


def _await_listening(port: int, folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert time.monotonic() < deadline, (folder / "log").read_text()
        time.sleep(0.05)
