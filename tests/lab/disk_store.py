"""A store in a folder of one test's own, and programs that use it in a process of theirs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from opsproof.system.store import Store, open_store
from opsproof.target import DirectoryStoreSettings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that is not there yet."""
    return tmp_path / "disk"


@pytest.fixture
def store(folder: Path) -> Store:
    """The store of the customer acme in it."""
    return open_store(DirectoryStoreSettings(folder), "acme")


def everything_in(folder: Path) -> list[str]:
    """Return the files below a folder."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program that may be killed, in a Python of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
