"""What is asked of a machine's files before anything is known of the application on it."""

from __future__ import annotations

import pwd
from pathlib import Path
from typing import Protocol


class Machine(Protocol):
    """The few questions; `opsproof.system.hosts.farmachine` asks them of another machine."""

    def read(self, path: str) -> bytes:
        """Return a file's content.

        Raises:
            OSError: It is not there, or cannot be read.
        """
        ...

    def home(self, user: str) -> str | None:
        """Return an account's home; None where there is no such account."""
        ...

    def is_folder(self, path: str) -> bool:
        """Tell whether a folder is there."""
        ...


class ThisMachine:
    """The machine that this process runs on."""

    def read(self, path: str) -> bytes:
        """Return a file's content; see `Machine`."""
        return Path(path).read_bytes()

    def home(self, user: str) -> str | None:
        """Return an account's home; None where there is no such account."""
        try:
            return pwd.getpwnam(user).pw_dir
        except KeyError:
            return None

    def is_folder(self, path: str) -> bool:
        """Tell whether a folder is there."""
        return Path(path).is_dir()


THIS_MACHINE = ThisMachine()
