"""The tutorials: every command that they tell a newcomer to type does what they say, on a demo of its own."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.action_run import REPOSITORY

COMMAND = re.compile(r"^    \./bootstrap demo (?P<words>.*?)(?:\s+# (?P<note>.*))?$", re.M)
STATUS = {None: 0, "refused": 1}


@pytest.fixture
def environ() -> Iterator[dict[str, str]]:
    """The variables of somebody whose demo is in a folder of its own."""
    # Not pytest's tmp_path, which PostgreSQL's own account cannot enter.
    folder = Path(tempfile.mkdtemp(prefix="opsproof-tutorial-"))
    folder.chmod(0o755)
    variables = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PG"))},
        "OPSPROOF_DEMO_DIR": str(folder / "demo"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    try:
        yield variables
        subprocess.run([sys.executable, "-m", "opsproof.demo", "stop"], env=variables, cwd=REPOSITORY, check=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


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
