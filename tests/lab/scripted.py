"""A machine whose systemctl, journalctl, sudo and id are scripts on PATH: there is no systemd where tests run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from opsproof.errors import HostError
from opsproof.system.hosts.host import Host
from opsproof.system.services import service
from opsproof.target import Connection

HOST = Host(Connection())
UP = "LoadState=loaded\nActiveState=active\nSubState=running\nType=simple\nMainPID=41\nUser=odoo\nResult=success\n"
DOWN = UP.replace("=active", "=inactive").replace("=running", "=dead").replace("=41", "=0")
FAILED = DOWN.replace("=inactive", "=failed").replace("=dead", "=failed").replace("=success", "=exit-code")
# `stop` and `start` do what their files say; `show` tells what is in a file, and from the second time on what is in
# another one, where that is there.
SYSTEMCTL = """echo "systemctl $*" >>calls
case $1 in
    show) cat show; if [ -e later ]; then mv later show; fi ;;
    *) . ./"$1" ;;
esac"""
SCRIPTS = {
    "systemctl": SYSTEMCTL,
    "journalctl": 'echo "journalctl $*" >>calls\necho "odoo[41]: database acme does not exist"',
    "sudo": 'echo "sudo $1" >>calls\nshift\nexec "$@"',
    "id": '[ "$1" = -u ] && cat uid || echo ops',
    "stop": f"cat >show <<END\n{DOWN}END",
    "start": f"cat >show <<END\n{UP}END",
    "show": UP,
    "uid": "0",
}


class Machine:
    """The folder of the scripts, and what was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, **scripts: str) -> None:
        """Write scripts, or what they read."""
        for name, text in scripts.items():
            path = self.folder / name
            if name in {"show", "later", "uid", "stop", "start"}:
                path.write_text(text)
            else:
                path.write_text(f"#!/bin/sh\ncd {self.folder} || exit 99\n{text}\n")
                path.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        """Return what was called, in its order; of systemctl all but `show`."""
        path = self.folder / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if not line.startswith("systemctl show")]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine whose one unit is up, and does what it is told."""
    folder = tmp_path / "bin"
    folder.mkdir()
    made = Machine(folder)
    made.write(**SCRIPTS)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setattr(service, "SETTLE_SECONDS", 0.0)
    return made


def refusal(action: Callable[[], object], kind: type[HostError] = HostError) -> HostError:
    """Check that something is refused, with a hint; return the error."""
    with pytest.raises(kind) as caught:
        action()
    assert caught.value.hint
    return caught.value
