"""The questions of `opsproof.machine`, asked of a host."""

from __future__ import annotations

from opsproof.machine import THIS_MACHINE, Machine
from opsproof.system.hosts.host import Host
from opsproof.target import Connection


class FarMachine:
    """A machine that is reached as a host is."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def read(self, path: str) -> bytes:
        """Return a file's content; see `Machine`."""
        done = self._host.run("cat", "--", path, accept=(0, 1))
        if done.status == 0:
            return done.stdout.encode(errors="surrogateescape")
        why = done.stderr.strip().rsplit(": ", 1)[-1]
        kinds = {"No such file or directory": FileNotFoundError, "Permission denied": PermissionError}
        raise kinds.get(why, OSError)(1, why, path)

    def home(self, user: str) -> str | None:
        """Return an account's home; None where there is no such account."""
        done = self._host.run("getent", "passwd", user, accept=(0, 2))
        return done.stdout.split(":")[5] if done.status == 0 else None

    def is_folder(self, path: str) -> bool:
        """Tell whether a folder is there."""
        return self._host.run("test", "-d", path, accept=(0, 1)).status == 0


def machine_of(connection: Connection) -> Machine:
    """Return the machine that an inventory reaches by a connection.

    Raises:
        HostError: It cannot be reached by that.
    """
    return THIS_MACHINE if connection.kind == "local" else FarMachine(Host(connection))
