"""The lab's network: one bridge of this machine, on which each host has a link with an address of its own.

Hosts of several processes share the bridge. Who has which number is in /run, which a reboot empties as it does the
network. A link itself lives in its host's network namespace and goes with it.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path

from opsproof.errors import CommandFailed, HostError
from tests.lab.debian_base import locked

RUN = Path("/run/opsproof-lab")
BRIDGE = "oplab"
BRIDGE_MAC = "02:0b:5e:00:00:01"
# Set aside for documentation and for benchmarks: nobody's on the internet, and rarely anybody's at home.
NETWORKS = ("198.51.100.0/24", "198.18.100.0/24", "198.19.100.0/24")
NUMBERS = range(10, 250)


@dataclass(frozen=True)
class Link:
    """What a host has of the network.

    Attributes:
        number: One of NUMBERS, this host's alone on this machine.
        network: The bridge's.
    """

    number: int
    network: IPv4Network

    @property
    def address(self) -> str:
        """The host's."""
        return str(self.network[self.number])

    @property
    def gateway(self) -> str:
        """This machine's address, as hosts see it."""
        return str(self.network[1])

    @property
    def device(self) -> str:
        """This machine's end of the link."""
        return f"{BRIDGE}{self.number}"

    @property
    def mac(self) -> str:
        """Of the host's end; the same after a crash."""
        return f"02:0b:5e:00:01:{self.number:02x}"

    def cut(self) -> None:
        """Lose all that is sent either way, without a word to either side."""
        ip("link", "set", self.device, "down")

    def join(self) -> None:
        """Carry again."""
        ip("link", "set", self.device, "up")

    def remove(self) -> None:
        """Take this machine's end away, and with it the other."""
        try:
            ip("link", "delete", self.device)
        except CommandFailed:
            # The kernel takes it away by itself, a moment after the last process of the host.
            if _has_device(self.device):
                raise


def reserve(host: Path) -> Link:
    """Return a host's link, with a number that stays its own until `release`; the bridge is up.

    Args:
        host: The folder of the host, which exists: the number of one that is gone is free again.

    Raises:
        HostError: No network or no number is free.
    """
    RUN.mkdir(mode=0o700, exist_ok=True)
    with locked(RUN / "lock"):
        _forget_gone()
        taken = _numbers()
        network = _bridged_network()
        number = next((number for number, folder in taken.items() if folder == host), None)
        if number is None:
            number = next((number for number in NUMBERS if number not in taken), None)
            if number is None:
                raise HostError("no address of the lab is free", found=f"{len(taken)} hosts in {RUN}")
            (RUN / str(number)).write_text(str(host))
        link = Link(number, network)
        # What is sent to a host that is cut off or down is to be lost, as beyond a router, not refused from here.
        ip("neighbour", "replace", link.address, "lladdr", link.mac, "dev", BRIDGE, "nud", "permanent")
        return link


def find_link(host: Path) -> Link | None:
    """Return the link that a host has; None if it has none."""
    for number, folder in _numbers().items():
        if folder == host and _has_device(BRIDGE):
            return Link(number, IPv4Network((RUN / "network").read_text()))
    return None


def release(link: Link) -> None:
    """Give a number back; the last one takes the bridge with it."""
    with locked(RUN / "lock"):
        link.remove()
        (RUN / str(link.number)).unlink(missing_ok=True)
        _forget_gone()
        if not _numbers() and _has_device(BRIDGE):
            ip("link", "delete", BRIDGE)
            (RUN / "network").unlink(missing_ok=True)
        elif _has_device(BRIDGE):
            ip("neighbour", "delete", link.address, "dev", BRIDGE)


def is_listening(address: str, port: int) -> bool:
    """Tell whether somebody takes connections there, within 3 seconds."""
    try:
        socket.create_connection((address, port), 3).close()
    except OSError:
        return False
    return True


def ip(*words: str) -> str:
    """Run iproute2's program, and return what it said.

    Raises:
        CommandFailed: It failed.
    """
    done = subprocess.run(["ip", *words], capture_output=True, timeout=30, check=False)
    if done.returncode != 0:
        raise CommandFailed(f"ip {' '.join(words)} failed", found=done.stderr.decode(errors="replace").strip())
    return done.stdout.decode()


def _numbers() -> dict[int, Path]:
    return {int(path.name): Path(path.read_text()) for path in RUN.glob("[0-9]*")}


def _forget_gone() -> None:
    for number, folder in _numbers().items():
        if not folder.is_dir():
            (RUN / str(number)).unlink()


def _has_device(name: str) -> bool:
    return Path("/sys/class/net", name).exists()


def _bridged_network() -> IPv4Network:
    if _has_device(BRIDGE):
        return IPv4Network((RUN / "network").read_text())
    network = _free_network()
    (RUN / "network").write_text(str(network))
    ip("link", "add", BRIDGE, "address", BRIDGE_MAC, "type", "bridge")
    ip("address", "add", f"{network[1]}/{network.prefixlen}", "dev", BRIDGE)
    ip("link", "set", BRIDGE, "up")
    return network


def _free_network() -> IPv4Network:
    routes = json.loads(ip("-4", "-json", "route", "show"))
    known = [ipaddress.ip_network(route["dst"], strict=False) for route in routes if route["dst"] != "default"]
    words = [line.split() for line in Path("/etc/resolv.conf").read_text().splitlines()]
    servers = [line[1] for line in words if line[:1] == ["nameserver"] and ":" not in line[1]]
    known += [ipaddress.ip_network(server) for server in servers]
    for text in NETWORKS:
        network = IPv4Network(text)
        if not any(network.overlaps(other) for other in known if isinstance(other, IPv4Network)):
            return network
    raise HostError("no network is free for the lab", expected=f"one of {', '.join(NETWORKS)}", hint="ip -4 route show")
