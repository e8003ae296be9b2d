"""The way of a database's sessions to a server behind its host: a private socket here, a relay there.

A socket that ssh forwards would be the login account's to peer authentication. So each session gets a relay of its own
on the host, which runs as the account that the server is to see, and joins its own stdin and stdout to the server.
"""

from __future__ import annotations

import atexit
import shutil
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from subprocess import Popen

from opsproof.errors import OpsproofError
from opsproof.system.hosts.carrying import short_folder
from opsproof.system.hosts.host import Host
from opsproof.target import DatabaseAddress

DEFAULT_FOLDER = "/var/run/postgresql"
SOCKET = ".s.PGSQL.{port}"
# One thread for each direction: whichever end closes first ends both.
RELAY = """
import os, socket, sys, threading
place, port = sys.argv[1], int(sys.argv[2])
try:
    if place.startswith("/"):
        far = socket.socket(socket.AF_UNIX)
        far.connect("%s/.s.PGSQL.%d" % (place, port))
    else:
        far = socket.create_connection((place, port), 10)
        far.settimeout(None)
except OSError as error:
    sys.exit("%s port %d: %s" % (place, port, error.strerror or error))
def copy(read, write):
    try:
        while True:
            data = read(262144)
            if not data:
                break
            write(data)
    except OSError:
        pass
    os._exit(0)
def put(data):
    while data:
        data = data[os.write(1, data):]
threading.Thread(target=copy, args=(far.recv, put)).start()
copy(lambda size: os.read(0, size), far.sendall)
"""
LOOPBACK = "127.0.0.1"
COMPLAINTS = 5
COMPLAINT_SECONDS = 3.0


class Tunnel:
    """A private socket that leads to one server through one host.

    Args:
        host: Where the relays run, as the account that the server is to see.
        address: Where the server is, as the host sees it.
    """

    def __init__(self, host: Host, address: DatabaseAddress) -> None:
        self._host = host
        self._place = address.host or DEFAULT_FOLDER
        self._port = address.port
        self._complaints: deque[str] = deque(maxlen=COMPLAINTS)
        self._folder: Path | None = None
        if self._place.startswith("/"):
            self._folder = short_folder()
            self._listener = socket.socket(socket.AF_UNIX)
            self._listener.bind(str(self._folder / SOCKET.format(port=self._port)))
        else:
            self._listener = socket.socket(socket.AF_INET)
            self._listener.bind((LOOPBACK, 0))
        self._listener.listen(16)
        threading.Thread(target=self._accept, daemon=True).start()

    def lead(self, address: DatabaseAddress) -> DatabaseAddress:
        """Return the address with this tunnel for its way."""
        if self._folder is not None:
            return replace(address, host=str(self._folder), via=None)
        # The name stays: it is what the server's certificate is held against.
        parameters = {**address.parameters, "hostaddr": LOOPBACK}
        return replace(address, port=self._listener.getsockname()[1], parameters=parameters, via=None)

    def complaint(self) -> str:
        """Return what a relay that ended right away has said, which may take a moment to get here."""
        deadline = time.monotonic() + COMPLAINT_SECONDS
        while not self._complaints and time.monotonic() < deadline:
            time.sleep(0.02)
        said = "\n".join(self._complaints)
        self._complaints.clear()
        return said

    def close(self) -> None:
        """Take no more sessions; those that stand go on."""
        # Not closed alone, which would leave the thread waiting.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._join, args=(here,), daemon=True).start()

    def _join(self, here: socket.socket) -> None:
        with here:
            try:
                relay = self._host.splice(here, "python3", "-ISc", RELAY, self._place, str(self._port))
            except OpsproofError as error:
                self._complaints.append(str(error))
                return
        # Its copy of the socket is the only one now: the session ends when the relay does.
        with relay:
            self._complaints.extend(_lines_of(relay))


def _lines_of(relay: Popen[bytes]) -> Iterable[str]:
    text = relay.stderr.read() if relay.stderr is not None else b""
    return [line for line in text.decode(errors="replace").splitlines() if line.strip()]


_TUNNELS: dict[tuple[DatabaseAddress, str], Tunnel] = {}
_OPENING = threading.Lock()


def database_host(address: DatabaseAddress) -> Host:
    """Return the host of a server that is reached through one, as the account that it is to see.

    Over a socket without a password the operating system tells the server who asks: there it has to be the account of
    the role's own name, or the one that the inventory says, where the host has none of that name.

    Raises:
        HostError: The host cannot be reached.
    """
    if address.via is None:
        raise ValueError("this address is reached directly")
    host = Host(address.via)
    is_socket = not address.host or address.host.startswith("/")
    if not is_socket or address.password is not None or not address.user:
        return host
    if host.run("id", "-u", "--", address.user, accept=(0, 1)).status == 0:
        return host.as_user(address.user)
    return host.as_user(address.os_user)


def through_tunnel(address: DatabaseAddress) -> tuple[DatabaseAddress, Tunnel | None]:
    """Return the address that leads to the same server from here; the same tunnel for everybody.

    Raises:
        HostError: The host cannot be reached.
    """
    if address.via is None:
        return address, None
    with _OPENING:
        host = database_host(address)
        server = replace(address, name="", parameters={})
        key = (server, host.user)
        if key not in _TUNNELS:
            _TUNNELS[key] = Tunnel(host, address)
        tunnel = _TUNNELS[key]
    return tunnel.lead(replace(address, user=address.user or host.account)), tunnel


@atexit.register
def close_tunnels() -> None:
    """Close every tunnel."""
    with _OPENING:
        for tunnel in _TUNNELS.values():
            tunnel.close()
        _TUNNELS.clear()
