"""Where an application's alembic.ini is, and with which interpreter it runs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path, PurePosixPath

import pytest

from opsproof.errors import MigrationError
from opsproof.system.alembic.finding import find_ini, find_python
from opsproof.system.hosts.host import Host
from opsproof.target import Connection, MigrationSettings
from tests.lab.targets import target_of

LOCAL = Host(Connection())


def test_alembic_ini_is_looked_for_where_the_application_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = target_of(tmp_path / "backups", migrations=MigrationSettings(), deploy_folder=str(tmp_path / "app"))
    ini = tmp_path / "alembic.ini"
    ini.write_text("[alembic]\nscript_location = migrations\n")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(MigrationError, match=r"has no alembic\.ini") as caught:
        find_ini(LOCAL, target)
    assert str(tmp_path / "app" / "current") in caught.value.expected
    assert str(tmp_path / "here") in caught.value.expected
    release = tmp_path / "app" / "releases" / "1"
    (release / "backend").mkdir(parents=True)
    (tmp_path / "app" / "current").symlink_to(release)
    shutil.copy(ini, release / "backend")
    assert find_ini(LOCAL, target) == PurePosixPath(release / "backend" / "alembic.ini")
    (release / "worker").mkdir()
    shutil.copy(ini, release / "worker")
    with pytest.raises(MigrationError, match=r"more than one alembic\.ini") as caught:
        find_ini(LOCAL, target)
    assert "backend" in caught.value.found
    assert "worker" in caught.value.found
    assert caught.value.hint == f"alembic_ini: {release}/backend/alembic.ini"
    # One at the top is the application's, whatever lies below it.
    shutil.copy(ini, release)
    assert find_ini(LOCAL, target) == PurePosixPath(release / "alembic.ini")


def test_the_interpreter_is_that_of_the_environment_beside(tmp_path: Path) -> None:
    ini = PurePosixPath(tmp_path / "backend" / "alembic.ini")
    assert find_python(LOCAL, ini) == sys.executable
    for place in (tmp_path / "venv", tmp_path / "backend" / ".venv"):
        (place / "bin").mkdir(parents=True)
        (place / "bin" / "python").symlink_to(sys.executable)
        assert find_python(LOCAL, ini) == str(place / "bin" / "python")
