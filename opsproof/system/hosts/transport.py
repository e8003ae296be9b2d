"""How commands come to a host: the local command line that carries one there.

`local` runs it on this machine; `ssh` (see `ssh.py`) through one authenticated connection; docker, podman and kubectl
through their own `exec`.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from opsproof.errors import HostError
from opsproof.system.hosts.carrying import CARRIERS, RUN, Carrier, inherited
from opsproof.system.hosts.ssh import SshConnections
from opsproof.target import Connection


class Transport(Protocol):
    """What carries commands to one host."""

    @property
    def is_local(self) -> bool:
        """Tell whether this process and the commands see the same files and accounts."""
        ...

    def take(self) -> Carrier:
        """Return a way there for one command.

        Raises:
            HostError: The host cannot be reached.
        """
        ...

    def explain(self, status: int, stderr: str) -> HostError | None:
        """Return why a command did not reach its host, or lost it; None if it came there and ended by itself."""
        ...


class Local:
    """This machine."""

    is_local = True

    def take(self) -> Carrier:
        """Return what leaves a command as it is."""
        return Carrier(tuple)

    def explain(self, status: int, stderr: str) -> None:
        """Nothing can get lost on the way."""
        del status, stderr


_ENGINE = re.compile(
    r"^(?:Error response from daemon|Cannot connect to the .* daemon|Error: No such container|Error from server"
    r"|Error: no container with name or ID|Error: can only create exec sessions)",
    re.MULTILINE,
)


class Container:
    """A container, or a pod, by its engine's `exec`.

    Args:
        kind: `docker`, `podman` or `kubectl`.
        connection: `host` is the container's name; a pod's is `namespace/pod` or `pod`.
    """

    is_local = False

    def __init__(self, kind: str, connection: Connection) -> None:
        self._kind = kind
        self._connection = connection

    def take(self) -> Carrier:
        """Return what puts the engine's own words before a command."""
        return Carrier(self._line)

    def _line(self, command: Sequence[str]) -> tuple[str, ...]:
        kind, host, user = self._kind, self._connection.host, self._connection.user
        if kind != "kubectl":
            return (kind, "exec", "-i", *(["-u", user] if user else []), host, *command)
        namespace, _, pod = host.rpartition("/")
        place = ["-n", namespace] if namespace else []
        return ("kubectl", "exec", "-i", *place, pod, "--", *command)

    def explain(self, status: int, stderr: str) -> HostError | None:
        """Return the engine's own complaint: an exec that failed has an exit status like any command's."""
        kind, host = self._kind, self._connection.host
        if status == 0 or not _ENGINE.search(stderr):
            return None
        return HostError(
            f"{host} cannot be reached by {kind}",
            expected=f"a running container of this name, as ansible_connection says {kind}",
            found=stderr.strip(),
            kept="nothing was started",
            hint=f"{kind} {'get pods' if kind == 'kubectl' else 'ps'}",
        )


# Ansible's names of the connections, with and without the collections that they come from.
_KINDS = {
    "local": "local",
    "ssh": "ssh",
    "docker": "docker",
    "community.docker.docker": "docker",
    "podman": "podman",
    "containers.podman.podman": "podman",
    "kubectl": "kubectl",
    "kubernetes.core.kubectl": "kubectl",
}
_OPENED: dict[Connection, SshConnections] = {}
_OPENING = threading.Lock()


def transport_of(connection: Connection) -> Transport:
    """Return what carries commands to a host; the same ssh connections for everybody who asks for them.

    Raises:
        HostError: The inventory reaches the host by a connection that is none of these.
    """
    kind = _KINDS.get(connection.kind)
    if kind is None:
        raise HostError(
            f"Host {connection.host} is reached by {connection.kind}, which opsproof does not know",
            expected=f"ansible_connection: {', '.join(sorted(set(_KINDS.values())))}",
            found=f"ansible_connection: {connection.kind}",
            kept="nothing was started",
            hint="add ansible_connection to the host; for pytest on the host itself it is `local`",
        )
    if kind == "local":
        return Local()
    if kind != "ssh":
        return Container(kind, connection)
    with _OPENING:
        return _OPENED.setdefault(connection, SshConnections(connection, RUN, inherited(*CARRIERS)))


def close_connections() -> None:
    """End every connection, and with it whatever still runs through it."""
    with _OPENING:
        for one in _OPENED.values():
            with suppress(OSError):
                one.close()
        _OPENED.clear()
