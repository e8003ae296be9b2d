"""The releases of the demo's application, as they are written, and as the first one is laid out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from opsproof.demo.__main__ import main
from opsproof.demo.folder import DemoFolder
from opsproof.demo.releases import RELEASES, begin_with_first, write_release
from opsproof.errors import ConfigurationError
from opsproof.system.releases.source import pack

HEADS = {"1.0": ("e51a7f30c9b2", 5), "1.1": ("f2d81c6e04a7", 6), "1.2": ("09b7e3a5d1c4", 7)}


@pytest.fixture
def folder(tmp_path: Path) -> DemoFolder:
    return DemoFolder(tmp_path.resolve() / "demo")


@pytest.mark.parametrize("name", [one.name for one in RELEASES])
def test_a_release_is_whole_by_itself_and_has_its_own_revisions(name: str, tmp_path: Path) -> None:
    source = tmp_path / "new" / "release"
    write_release(name, source)
    history = ScriptDirectory.from_config(Config(source / "alembic.ini"))
    revisions = list(history.walk_revisions())
    assert (history.get_current_head(), len(revisions)) == HEADS[name]
    script = "import sys, shop.server, shop.seed; print(any(one.startswith('opsproof') for one in sys.modules))"
    environ = {"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=source, env=environ, capture_output=True, text=True, timeout=30
    )
    assert done.stdout == "False\n", done.stderr
    package = pack(str(source), tmp_path)
    assert package.revision == name
    assert not [one for one in package.files if "__pycache__" in one]


def test_the_command_writes_a_release_and_says_how_it_is_deployed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "two words"
    assert main(["release", "1.1", str(folder)]) == 0
    assert f"./bootstrap demo pytest actions/test_deploy.py --release='{folder}'" in capsys.readouterr().out
    assert (folder / "shop" / "addon_reviews.py").is_file()
    assert not (folder / "shop" / "addon_answers.py").exists()
    (folder / "REVISION").write_text("my own\n")
    assert main(["release", "1.1", str(folder)]) == 1
    assert "is not empty" in capsys.readouterr().err
    assert (folder / "REVISION").read_text() == "my own\n"


def test_a_file_is_no_folder_for_a_release(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    with pytest.raises(ConfigurationError, match="no folder for a release"):
        write_release("1.0", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "kept"


def test_the_first_release_is_laid_out_once_and_what_is_deployed_stays(folder: DemoFolder) -> None:
    begin_with_first(folder)
    (first,) = folder.releases.iterdir()
    assert folder.current.readlink() == Path("releases") / first.name
    assert (first / "REVISION").read_text() == "1.0\n"
    assert (first / "odoo.conf").readlink() == folder.odoo_conf
    (folder.releases / "20990101000000").mkdir()
    folder.current.unlink()
    folder.current.symlink_to("releases/20990101000000")
    begin_with_first(folder)
    assert folder.current.readlink().name == "20990101000000"


def test_a_current_that_leads_nowhere_leads_to_the_first_release_again(folder: DemoFolder) -> None:
    begin_with_first(folder)
    lost = folder.current.readlink().name
    (folder.releases / lost).rename(folder.releases / "20000101000000")
    (folder.deploy / ".current.opsproof").symlink_to("left over")
    begin_with_first(folder)
    assert (folder.current / "REVISION").read_text() == "1.0\n"
    assert (folder.releases / "20000101000000").is_dir()
    assert not (folder.deploy / ".current.opsproof").is_symlink()
