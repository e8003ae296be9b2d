"""Whether somebody listens where an application should: the kernel's own list of sockets on the host."""

from __future__ import annotations

from collections.abc import Mapping
from configparser import Error, RawConfigParser
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from opsproof.errors import HostError, ProofError
from opsproof.inspection.services import UNTOUCHED
from opsproof.system.hosts.farmachine import machine_of
from opsproof.system.hosts.host import Host
from opsproof.target import Target

ODOO_PORT = 8069
PORTS_OF_SCHEMES = {"http": 80, "https": 443}
# Read instead of asking `ss`, which a container's image often lacks. One without IPv6 has no second file.
TABLES = ("/proc/net/tcp", "/proc/net/tcp6")
_LISTENS = "0A"
_UNSET = {"", "False", "false", "None"}


@dataclass(frozen=True)
class Port:
    """A port that an application should listen on, and what says so; `number` is None where nothing does."""

    number: int | None
    origin: str


def find_port(target: Target) -> Port:
    """Find out on which port of the target's host its application should listen.

    The port of `health_url` is one of the host only where that names the host itself: a load balancer's is not. Else it
    is `http_port` in odoo.conf, which for Odoo is 8069 where it is not set.

    Raises:
        ProofError: odoo.conf cannot be read.
        HostError: The host cannot be reached.
    """
    where = urlsplit(target.health_url or "")
    if target.health_url and _is_of_host(target, where.hostname or ""):
        return Port(where.port or PORTS_OF_SCHEMES[where.scheme], f"health_url, {target.health_url}")
    if target.odoo_conf is None:
        told = f"health_url, {target.health_url}, is not the host's own" if target.health_url else "no health_url"
        return Port(None, f"nothing tells a port of {target.name}: {told}, and no odoo_conf")
    options = _read_options(target, target.odoo_conf)
    if options.get("http_enable", "").lower() in ("false", "0", "no"):
        return Port(None, f"http_enable in {target.odoo_conf} is off: this Odoo listens nowhere")
    name = next((one for one in ("http_port", "xmlrpc_port") if options.get(one, "") not in _UNSET), None)
    if name is None:
        return Port(ODOO_PORT, f"Odoo's own default, as {target.odoo_conf} sets no http_port")
    if not options[name].isdigit():
        raise _unreadable(target.odoo_conf, f"{name} = {options[name]}", "a number as http_port")
    return Port(int(options[name]), f"{name} in {target.odoo_conf}")


def find_listened(host: Host) -> frozenset[int]:
    """Return the TCP ports that have a listening socket on the host.

    Raises:
        HostError: The host cannot be reached, or does not show its sockets.
    """
    done = host.run("cat", *TABLES, accept=(0, 1))
    rows = [line.split() for line in done.stdout.splitlines() if ":" in line]
    if not rows and "local_address" not in done.stdout:
        raise HostError(
            "The host does not show its sockets",
            expected=f"{TABLES[0]}, as Linux has it",
            found=done.stderr.strip() or "an empty file",
            kept=UNTOUCHED,
            hint=f"on the host: cat {TABLES[0]}",
        )
    return frozenset(int(row[1].rpartition(":")[2], 16) for row in rows if row[0].endswith(":") and row[3] == _LISTENS)


def check_listens(target: Target, host: Host, port: Port) -> int:
    """Make sure that somebody listens on the application's port. Return the port.

    Args:
        target: Whose application.
        host: Where it runs.
        port: As of `find_port`, with a number.

    Raises:
        ProofError: Nobody does; the ports that are listened on are in the error.
        HostError: The host cannot be reached, or does not show its sockets.
    """
    listened = find_listened(host)
    if port.number is None or port.number not in listened:
        shown = ", ".join(str(number) for number in sorted(listened)) or "none at all"
        raise ProofError(
            f"Nobody listens on port {port.number} of {target.connection.host or 'this machine'}",
            expected=f"a listening socket on the port of {port.origin}",
            found=f"listening sockets on the ports {shown}",
            kept=UNTOUCHED,
            hint="on the host: ss -ltnp, and the log of the service",
        )
    return port.number


def _is_of_host(target: Target, name: str) -> bool:
    kind = target.connection.kind
    # In front of a container's own ports stand those of the machine that it runs on.
    if kind not in ("local", "ssh"):
        return False
    if name == "localhost" or name.endswith(".localhost") or (kind == "ssh" and name == target.connection.host):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _read_options(target: Target, path: str) -> Mapping[str, str]:
    parser = RawConfigParser()
    try:
        parser.read_string(machine_of(target.connection).read(path).decode("utf-8-sig"))
        return {key: (value or "").strip() for key, value in parser.items("options")}
    except (OSError, ValueError) as error:
        raise _unreadable(path, getattr(error, "strerror", None) or str(error), "an odoo.conf to read") from error
    except Error:
        # Its message quotes the line, which may be the password's.
        raise _unreadable(path, "it is no INI file with a section [options]", "an odoo.conf to read") from None


def _unreadable(path: str, found: str, expected: str) -> ProofError:
    return ProofError(
        f"{path} does not tell on which port Odoo listens",
        expected=expected,
        found=found,
        kept=UNTOUCHED,
        hint=f"on the host: grep -n port {path}",
    )
