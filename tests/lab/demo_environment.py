"""A demo of one's own for tests: started in a new folder by its command, stopped and wiped at the end.

A test module takes the fixture by `pytest_plugins = ["tests.lab.demo_environment"]`, which makes it one for the whole
session; imported by name it would be one per module. PYTEST_DONT_REWRITE: for the module is imported for its types
before pytest registers it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from opsproof.demo.folder import DemoFolder
from opsproof.demo.processes import find_processes
from opsproof.demo.state import State, load_state

_ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Demo:
    """A demo in its own folder."""

    folder: DemoFolder

    @property
    def inventory(self) -> Path:
        """Its hosts.yml."""
        return self.folder.inventory

    @property
    def environ(self) -> dict[str, str]:
        """This process's variables and the one that names the folder, for a subprocess."""
        return {**os.environ, "OPSPROOF_DEMO_DIR": str(self.folder.path)}

    @property
    def state(self) -> State:
        """Its ports and passwords."""
        state = load_state(self.folder)
        assert state is not None, "the demo was never started"
        return state

    def begin(self, command: str) -> subprocess.Popen[str]:
        """Begin `python -m opsproof.demo COMMAND` and do not wait for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "opsproof.demo", command],
            cwd=_ROOT,
            env=self.environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Run `python -m opsproof.demo COMMAND` and return its exit status and everything it printed."""
        with self.begin(command) as process:
            output, _ = process.communicate(timeout=180)
        return process.returncode, output

    def must(self, command: str) -> str:
        """Run a command that has to succeed, and return what it printed."""
        status, output = self.run(command)
        assert status == 0, output
        return output


@contextmanager
def demo_folder(prefix: str = "opsproof-test-") -> Iterator[Demo]:
    """Make a folder for a demo, which the caller starts; at the end nothing of it runs and the folder is gone."""
    # Not pytest's tmp_path: root's is closed to the user that PostgreSQL runs as.
    demo = Demo(DemoFolder(Path(tempfile.mkdtemp(prefix=prefix)).resolve()))
    try:
        yield demo
    finally:
        stopped, output = demo.run("stop")
        wiped, more = demo.run("reset") if demo.folder.is_ours() else (0, "")
        left = find_processes(demo.folder)
        shutil.rmtree(demo.folder.path, ignore_errors=True)
        assert (stopped, wiped, left) == (0, 0, []), output + more


@contextmanager
def running_demo() -> Iterator[Demo]:
    """Start a demo in a folder of its own, and wipe it at the end."""
    with demo_folder() as demo:
        demo.must("start")
        yield demo


@pytest.fixture(scope="session")
def demo() -> Iterator[Demo]:
    """One running demo for the whole session: read it and write to it, but do not stop it."""
    with running_demo() as running:
        yield running
