"""What killed runs have left in a store, and what of it is anybody's to clear away."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from opsproof.procedures.leftovers import clear_leftovers
from opsproof.system.store import PROBE, open_store
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, Target

BACKUP = "shop_2026-01-31_02-00-00.zip"


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target("erp", "prod", DatabaseAddress("shop"), DirectoryStoreSettings(tmp_path), "")


def leave(folder: Path, name: str, pid: int) -> Path:
    path = folder / f".{name}.part-{pid}-0123abcd"
    path.write_bytes(b"half a fi")
    return path


def ended() -> int:
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


@pytest.mark.parametrize("name", [BACKUP, PROBE])
def test_what_a_run_that_is_gone_was_writing_is_removed(tmp_path: Path, target: Target, name: str) -> None:
    left = leave(tmp_path, name, ended())
    assert clear_leftovers(target, None, open_store(target.store, "")) == [f"the unfinished upload {left}"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [BACKUP, PROBE])
def test_what_may_be_at_work_is_left_alone(tmp_path: Path, target: Target, name: str) -> None:
    left = leave(tmp_path, name, os.getpid())
    assert clear_leftovers(target, None, open_store(target.store, "")) == []
    assert list(tmp_path.iterdir()) == [left]


def test_what_another_database_left_is_left_to_it(tmp_path: Path, target: Target) -> None:
    left = leave(tmp_path, BACKUP.replace("shop", "crm"), ended())
    assert clear_leftovers(target, None, open_store(target.store, "")) == []
    assert list(tmp_path.iterdir()) == [left]


def test_the_probe_of_a_directory_store_has_the_name_that_is_looked_for(
    tmp_path: Path, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        del path, missing_ok

    monkeypatch.setattr(Path, "unlink", refuse)
    store = open_store(target.store, "")
    store.check_writable()
    assert [one.name for one in store.leftovers()] == [PROBE]
