"""What the demo remembers between one command and the next: ports, passwords, and how far the first run came."""

from __future__ import annotations

import dataclasses
import getpass
import json
import os
import pwd
import secrets
import socket
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from opsproof.demo.folder import DemoFolder, make_folder, write_private
from opsproof.errors import ConfigurationError, HostError

# Below the range that the kernel takes the ports of outgoing connections from, so that none of those is in the way.
_PORTS = range(20_000, 32_000)
# sockaddr_un holds 108 bytes with the closing zero; supervisor binds `name.pid` first and links it into place.
_SOCKET_BYTES = 107
_LONGEST_SOCKET = "postgres/.s.PGSQL.00000.lock"


@dataclass(frozen=True)
class State:
    """The demo's ports, users and passwords.

    `server_user` is the user that PostgreSQL runs as. `sockets` is the folder of the Unix sockets. `prepared` says
    that the database has its roles, its schema and its seed; from then on a start leaves the schema alone, for what
    is there may be what somebody rolled back to.
    """

    postgres_port: int
    s3_port: int
    application_port: int
    server_user: str
    sockets: str
    superuser_password: str = field(repr=False)
    application_password: str = field(repr=False)
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    prepared: bool = False

    @property
    def endpoint_url(self) -> str:
        """Where S3 answers."""
        return f"http://127.0.0.1:{self.s3_port}"

    @property
    def application_url(self) -> str:
        """Where the application answers, without a slash at the end."""
        return f"http://127.0.0.1:{self.application_port}"

    @property
    def supervisor_socket(self) -> Path:
        """Where supervisor listens, in a folder that only the demo's owner enters."""
        return Path(self.sockets) / "control" / "supervisor.sock"

    @property
    def server_sockets(self) -> Path:
        """The folder of PostgreSQL's socket."""
        return Path(self.sockets) / "postgres"

    def server_ids(self) -> tuple[int, int]:
        """Return the user and group id that PostgreSQL runs as."""
        entry = pwd.getpwnam(self.server_user)
        return entry.pw_uid, entry.pw_gid


def load_state(folder: DemoFolder) -> State | None:
    """Read the state, or return None where the demo was never started.

    Raises:
        ConfigurationError: The file is there but is not what this version writes.
    """
    try:
        return State(**json.loads(folder.state.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            "the demo's state cannot be read",
            expected=f"what `start` wrote to {folder.state}",
            found=str(error),
            kept="nothing was started or removed",
            hint="python -m opsproof.demo reset",
        ) from error


def save_state(folder: DemoFolder, state: State) -> None:
    """Write the state, 0600, whole or not at all."""
    write_private(folder.state, json.dumps(dataclasses.asdict(state), indent=2) + "\n")


def new_state(folder: DemoFolder) -> State:
    """Draw ports and passwords for a demo that starts for the first time."""
    ports = free_ports(3)
    return State(
        postgres_port=ports[0],
        s3_port=ports[1],
        application_port=ports[2],
        server_user=choose_server_user(),
        sockets=str(folder.path / "run"),
        superuser_password=secrets.token_urlsafe(18),
        application_password=secrets.token_urlsafe(18),
        access_key="DEMO" + secrets.token_hex(8).upper(),
        secret_key=secrets.token_urlsafe(30),
    )


def renew(folder: DemoFolder, state: State) -> State:
    """Return the state with other ports for those that a stranger took, and with its socket folder in place.

    Only for a demo of which nothing runs.
    """
    ports = (state.postgres_port, state.s3_port, state.application_port)
    spare = free_ports(len(ports))
    kept = [port if _is_free(port) else spare.pop() for port in ports]
    return dataclasses.replace(
        state,
        postgres_port=kept[0],
        s3_port=kept[1],
        application_port=kept[2],
        sockets=_make_sockets(folder, state),
    )


def choose_server_user() -> str:
    """Return whom PostgreSQL runs as: the caller, but for root `postgres`, else `nobody`.

    Raises:
        HostError: The machine has no user that root could run it as.
    """
    if os.geteuid() != 0:
        try:
            return pwd.getpwuid(os.geteuid()).pw_name
        except KeyError:
            raise HostError(
                f"user id {os.geteuid()} has no entry in /etc/passwd, and PostgreSQL wants one",
                found=f"LOGNAME or USER: {getpass.getuser()}" if os.environ.get("USER") else "no user name at all",
                hint="docker run --user … with a user that the image knows",
            ) from None
    for name in ("postgres", "nobody"):
        try:
            if pwd.getpwnam(name).pw_uid != 0:
                return name
        except KeyError:
            continue
    raise HostError(
        "PostgreSQL refuses to run as root, and there is no user to run it as",
        expected="a user `postgres` or `nobody` in /etc/passwd",
        hint="useradd --system postgres",
    )


def free_ports(count: int) -> list[int]:
    """Return so many different TCP ports of 127.0.0.1 that nobody listens on."""
    found: list[int] = []
    for _ in range(2_000):
        if len(found) == count:
            return found
        port = secrets.choice(_PORTS)
        if port not in found and _is_free(port):
            found.append(port)
    raise HostError("no free TCP port on 127.0.0.1", found=f"{_PORTS.start} to {_PORTS.stop - 1} are all taken")


def _is_free(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As the servers themselves do, or the last connections of a stopped demo would count as somebody's.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _make_sockets(folder: DemoFolder, state: State) -> str:
    """Make the folder of the sockets, in /tmp where the demo's own is too deep, and return its path."""
    path = Path(state.sockets)
    # One that was given in /tmp may be gone, and its name somebody else's.
    if path != folder.path / "run" and not (path.is_dir() and path.lstat().st_uid == os.geteuid()):
        path = folder.path / "run"
    if path == folder.path / "run" and len(os.fsencode(path / _LONGEST_SOCKET)) > _SOCKET_BYTES:
        path = Path(tempfile.mkdtemp(prefix="opsproof-demo-", dir="/tmp"))
    user, group = state.server_ids()
    make_folder(path, 0o700)
    path.chmod(0o711 if user != os.geteuid() else 0o700)
    make_folder(path / "control", 0o700)
    make_folder(path / "postgres", 0o700, user=user, group=group)
    return str(path)
