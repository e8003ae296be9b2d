"""An application's pages, asked for where their address means the application."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

from opsproof.system.hosts import web_agent
from opsproof.system.hosts.host import GRACE_SECONDS, Host


@dataclass(frozen=True)
class Answer:
    """What came back: the HTTP status, or none where nobody answered, and what an error shows of it."""

    status: int | None
    shown: str

    @property
    def is_healthy(self) -> bool:
        """Tell whether it is a 2xx."""
        return self.status is not None and 200 <= self.status < 300


Ask = Callable[[str, float], Answer]
"""Asks for a URL once, with the seconds that the answer may take."""


def ask_here(url: str, timeout: float) -> Answer:
    """Ask from this machine."""
    return Answer(*web_agent.ask(url, timeout))


def asker_of(host: Host, url: str) -> Ask:
    """Return what asks for a page of an application on a host: there, where the URL means the host itself.

    Only over ssh: a container's published port is one of the machine that it runs on.
    """
    is_there = host.connection.kind == "ssh" and _is_loopback(urlsplit(url).hostname or "")
    return partial(_ask_there, host) if is_there else ask_here


def _ask_there(host: Host, url: str, timeout: float) -> Answer:
    source = Path(web_agent.__file__).read_text(encoding="utf-8")
    done = host.run("python3", "-ISc", source, url, f"{timeout:.1f}", timeout=timeout + GRACE_SECONDS)
    return Answer(**json.loads(done.stdout))


def _is_loopback(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
