"""The tutorials: every command that they tell a newcomer to type does what they say, on a demo of its own."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.action_run import REPOSITORY

COMMAND = re.compile(r"^    \./bootstrap demo (?P<words>.*?)(?:\s+# (?P<note>.*))?$", re.M)
STATUS = {None: 0, "refused": 1}


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The variables of somebody whose demo is in a folder of its own."""
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PG"))},
        "OPSPROOF_DEMO_DIR": str(tmp_path / "demo"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    yield variables
    subprocess.run([sys.executable, "-m", "opsproof.demo", "stop"], env=variables, cwd=REPOSITORY, check=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["undo-a-bad-migration"])
def test_every_command_of_a_tutorial_does_what_it_says(name: str, environ: dict[str, str], tmp_path: Path) -> None:
    text = (REPOSITORY / "docs" / "tutorial" / f"{name}.md").read_text()
    commands = list(COMMAND.finditer(text))
    assert commands
    for command in commands:
        words = [*shlex.split(command["words"]), f"--logs={tmp_path / 'logs'}", "-p", "no:cacheprovider"]
        done = subprocess.run(words, env=environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
        assert done.returncode == STATUS[command["note"]], f"{command['words']}\n{done.stdout}{done.stderr}"
