"""The folder that a restore unpacks into, and what becomes of it when the run is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from opsproof.procedures.cleanup.abandoned import find_folders
from opsproof.procedures.restore.workspace import LOCK, PREFIX, Workspace, remove_abandoned

KILLED = """
import os, signal
from opsproof.procedures.cleanup.abandoned import find_folders
from opsproof.procedures.restore.workspace import Workspace
one = Workspace()
(one.path / "database").write_text("what nobody else may read")
(one.path / "parts").mkdir()
{then}
os.kill(os.getpid(), signal.SIGKILL)
"""
# Killed over its own end, after the first thing that was removed.
CLOSING = """
remove = os.unlink
def last(*words, **how):
    remove(*words, **how)
    os.kill(os.getpid(), signal.SIGKILL)
os.unlink = os.remove = last
import pathlib
pathlib.Path.unlink = lambda path, *words: last(path)
one.close()
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def test_it_is_removed_with_everything_in_it(temporary: Path) -> None:
    one = Workspace()
    (one.path / "database").write_text("a dump")
    (one.path / "parts").mkdir()
    (one.path / "parts" / "1").symlink_to("/")
    assert (one.path.stat().st_mode & 0o777, one.path.parent) == (0o700, temporary)
    one.close()
    assert list(temporary.iterdir()) == []


def test_one_that_is_at_work_is_left_alone(temporary: Path) -> None:
    one = Workspace()
    assert remove_abandoned() == []
    assert list(temporary.iterdir()) == [one.path]
    one.close()


@pytest.mark.parametrize("then", ["", CLOSING], ids=["at work", "closing"])
def test_one_whose_run_was_killed_is_removed(temporary: Path, then: str) -> None:
    command = [sys.executable, "-c", KILLED.format(then=then)]
    done = subprocess.run(command, env={**os.environ, "TMPDIR": str(temporary)}, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL
    (left,) = temporary.iterdir()
    assert remove_abandoned() == [left]
    assert list(temporary.iterdir()) == []


def test_one_whose_run_was_killed_before_it_was_locked_is_removed(temporary: Path) -> None:
    (temporary / f"{PREFIX}1").mkdir()
    assert remove_abandoned() == [temporary / f"{PREFIX}1"]


def test_one_that_is_neither_locked_nor_empty_is_nobodys_to_remove(temporary: Path) -> None:
    (temporary / f"{PREFIX}2").mkdir()
    (temporary / f"{PREFIX}2" / "somebody's").touch()
    assert remove_abandoned() == []


def test_a_run_whose_folder_was_taken_for_an_abandoned_one_makes_another(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkdtemp, []

    def made_and_removed(prefix: str) -> str:
        made.append(make(prefix=prefix))
        if len(made) == 1:
            assert remove_abandoned() == [Path(made[0])]
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", made_and_removed)
    one = Workspace()
    assert [str(one.path)] == made[1:]
    assert (one.path / LOCK).exists()
    one.close()
    assert list(temporary.iterdir()) == []


def test_a_name_that_leads_elsewhere_or_is_somebody_elses_is_left_alone(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever may write the temporary folder must not have root remove /var/lib/dpkg, which has a lock, too."""
    kept = temporary / "dpkg"
    for folder in (kept, temporary / f"{PREFIX}theirs"):
        folder.mkdir()
        (folder / LOCK).touch()
        (folder / "status").write_text("what is installed")
    (temporary / f"{PREFIX}trap").symlink_to(kept)
    monkeypatch.setattr(os, "geteuid", lambda: (temporary / f"{PREFIX}theirs").stat().st_uid + 1)
    assert (remove_abandoned(), find_folders()) == ([], ())
    monkeypatch.undo()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    assert find_folders() == (temporary / f"{PREFIX}theirs",)
    assert remove_abandoned() == [temporary / f"{PREFIX}theirs"]
    assert (kept / "status").exists()
