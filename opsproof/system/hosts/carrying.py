"""What carries a command to its host: a command line of this machine, and the variables that it may have."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

# What a child inherits. LC_ALL=C on top: the messages that are looked at must be the untranslated ones.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH", "KRB5CCNAME", "SSL_CERT_FILE")
# Where an agent that holds keys listens, and what says which cluster or engine is meant.
CARRIERS = ("SSH_AUTH_SOCK", "DOCKER_HOST", "CONTAINER_HOST", "KUBECONFIG", "XDG_RUNTIME_DIR")
# A socket's path ends at 107 bytes, and ssh appends some while it makes it.
PATH_BYTES = 66
RUN = secrets.token_hex(6)
"""What tells the processes of this run from all others, on any host."""


@dataclass(frozen=True)
class Carrier:
    """A way to the host for one command.

    Attributes:
        line: Makes of a command the command line of this machine that carries it there.
        mark: What its processes on the host bear.
        release: Gives the way back, once the command has ended.
    """

    line: Callable[[Sequence[str]], tuple[str, ...]]
    mark: str = RUN
    release: Callable[[], None] = lambda: None


def inherited(*further: str) -> dict[str, str]:
    """Return the variables of this process that a child may have."""
    return {name: os.environ[name] for name in (*INHERITED, *further) if name in os.environ}


def short_folder() -> Path:
    """Make a folder of our own for sockets, where their paths are not too long."""
    temporary = tempfile.gettempdir()
    fits = len(os.fsencode(temporary)) < PATH_BYTES
    return Path(tempfile.mkdtemp(prefix="opsproof-", dir=temporary if fits else "/tmp"))  # noqa: S108
