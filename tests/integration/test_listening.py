"""Who listens on a port: each test breaks exactly what is looked for, and reads the message."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.errors import ProofError
from opsproof.inspection.listening import check_listens, find_listened, find_port
from opsproof.system.hosts.host import Host
from opsproof.target import Connection, DatabaseAddress, DirectoryStoreSettings, Target

HERE = Host(Connection())
NOWHERE = DatabaseAddress("none", "127.0.0.1", 1)


def target_of(folder: Path, **changes: object) -> Target:
    return replace(Target("erp", "prod", NOWHERE, DirectoryStoreSettings(folder / "store"), "acme"), **changes)  # type: ignore[arg-type]


@contextmanager
def listener(family: socket.AddressFamily = socket.AF_INET) -> Iterator[int]:
    with socket.socket(family) as one:
        one.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


def test_a_port_that_somebody_listens_on(tmp_path: Path) -> None:
    with listener() as port:
        target = target_of(tmp_path, health_url=f"http://localhost:{port}/")
        assert check_listens(target, HERE, find_port(target)) == port
    with pytest.raises(ProofError, match=f"Nobody listens on port {port} of this machine") as caught:
        check_listens(target, HERE, find_port(target))
    assert f"health_url, http://localhost:{port}/" in caught.value.expected
    assert "listening sockets on the ports" in caught.value.found
    assert "ss -ltnp" in caught.value.hint


def test_a_port_that_is_only_connected_from_does_not_listen() -> None:
    with listener() as port, socket.create_connection(("127.0.0.1", port)) as client:
        own = client.getsockname()[1]
        assert port in find_listened(HERE)
        assert own not in find_listened(HERE)


@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="no IPv6 here")
def test_a_socket_of_ipv6_listens_too() -> None:
    with listener(socket.AF_INET6) as port:
        assert port in find_listened(HERE)


@pytest.mark.parametrize(
    ("conf", "number", "origin"),
    [
        ("http_port = 8071\nxmlrpc_port = 1\n", 8071, "http_port in "),
        ("xmlrpc_port = 8072\n", 8072, "xmlrpc_port in "),
        ("http_port = False\n", 8069, "Odoo's own default"),
        ("http_enable = False\nhttp_port = 8071\n", None, "this Odoo listens nowhere"),
    ],
)
def test_the_port_of_an_odoo(tmp_path: Path, conf: str, number: int | None, origin: str) -> None:
    path = tmp_path / "odoo.conf"
    path.write_text(f"[options]\n{conf}")
    # A page of a load balancer's tells nothing of the host.
    port = find_port(target_of(tmp_path, odoo_conf=str(path), health_url="https://erp.example.com/health"))
    assert port.number == number
    assert origin in port.origin


@pytest.mark.parametrize("conf", [None, "no section\ndb_password = hush\n", "[options]\nhttp_port = eighty\n"])
def test_an_odoo_conf_that_tells_no_port(tmp_path: Path, conf: str | None) -> None:
    path = tmp_path / "odoo.conf"
    if conf is not None:
        path.write_text(conf)
    with pytest.raises(ProofError, match="does not tell on which port") as caught:
        find_port(target_of(tmp_path, odoo_conf=str(path)))
    assert "hush" not in str(caught.value)
    assert f"grep -n port {path}" in caught.value.hint


def test_nothing_tells_a_port(tmp_path: Path) -> None:
    assert find_port(target_of(tmp_path)).number is None
    balanced = find_port(target_of(tmp_path, health_url="https://erp.example.com/health"))
    assert balanced.number is None
    assert "is not the host's own" in balanced.origin
