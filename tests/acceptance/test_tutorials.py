"""The tutorials: every command that they tell a newcomer to type does what they say, on a demo of its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opsproof.demo import cluster
from opsproof.demo.folder import DemoFolder
from opsproof.demo.releases import write_release
from opsproof.demo.state import State, load_state
from tests.lab.action_run import REPOSITORY
from tests.lab.waiting import await_true

COMMAND = re.compile(r"^    \./bootstrap demo (?P<words>.*?)(?:\s+# (?P<note>.*))?$", re.M)
STATUS = {None: 0, "refused": 1, "fails": 1}
SEEDED = (
    "SELECT (SELECT count(*) FROM res_partner), (SELECT sum(amount_total) FROM sale_order), (SELECT count(*) FROM "
    "mail_message WHERE message_type <> 'notification'), (SELECT count(*) FROM ir_config_parameter WHERE key NOT LIKE "
    "'test.%')"
)


@dataclass(frozen=True)
class Version:
    """What is live: the release that `current` leads to, the one that answers, and the database's revision."""

    current: str
    answers: str
    revision: str


@dataclass(frozen=True)
class Rows:
    """What the demo began with, in counts and a sum, and how many rows were written since by the test."""

    seeded: tuple[Any, ...]
    written: int


FIRST, REVIEWS = Version("1.0", "1.0", "e51a7f30c9b2"), Version("1.1", "1.1", "f2d81c6e04a7")


def commands_of(name: str) -> list[re.Match[str]]:
    """Return what a tutorial has people type, in order."""
    found = list(COMMAND.finditer((REPOSITORY / "docs" / "tutorial" / f"{name}.md").read_text()))
    assert found
    return found


def type_command(command: re.Match[str], environ: dict[str, str], folder: Path) -> str:
    """Run a command of a tutorial, which must end as is said beside it; return what it printed."""
    words = shlex.split(command["words"].replace("/var/tmp/", f"{folder}/"))
    if words[0] == "pytest":
        words += [f"--logs={folder / 'logs'}", "-p", "no:cacheprovider"]
    done = subprocess.run(words, env=environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == STATUS[command["note"]], f"{command['words']}\n{done.stdout}{done.stderr}"
    return f"{command['words']}\n{done.stdout}{done.stderr}"


def look(folder: DemoFolder, state: State) -> tuple[Version, Rows]:
    """Return what is live of a demo."""
    version = json.loads(ask(state, "/health")[1]).get("version", "")
    with cluster.connect(state, cluster.DATABASE) as connection:
        (revision,) = connection.execute("SELECT version_num FROM alembic_version").fetchone() or ("",)
        (written,) = connection.execute(
            "SELECT count(*) FROM ir_config_parameter WHERE key LIKE 'test.%'"
        ).fetchone() or (0,)
        seeded = connection.execute(SEEDED).fetchone() or ()
    return Version((folder.current / "REVISION").read_text().strip(), version, revision), Rows(seeded, written)


def start_demo(environ: dict[str, str]) -> tuple[DemoFolder, State]:
    """Start the demo; return where it is, and its ports."""
    words = [sys.executable, "-m", "opsproof.demo", "start"]
    subprocess.run(words, env=environ, cwd=REPOSITORY, check=True, capture_output=True)
    folder = DemoFolder(Path(environ["OPSPROOF_DEMO_DIR"]).resolve())
    state = load_state(folder)
    assert state is not None
    return folder, state


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
    for command in commands_of(name):
        type_command(command, environ, tmp_path)


@pytest.mark.slow
def test_a_backup_refuses_without_the_filestore_and_passes_with_it(environ: dict[str, str], tmp_path: Path) -> None:
    """The application goes on writing meanwhile, and makes no filestore of its own in that place."""
    folder, refused = DemoFolder(Path(environ["OPSPROOF_DEMO_DIR"])), []
    filestore = folder.path / "shop" / "data" / "filestore" / "demo"
    for command in commands_of("first-backup"):
        if command["note"]:
            filestore.rename(f"{filestore}.away")
            refused.append(type_command(command, environ, tmp_path))
            Path(f"{filestore}.away").rename(filestore)
        else:
            type_command(command, environ, tmp_path)
    assert len(refused) == 1
    assert "FilestoreError: Filestore not found: check data_dir in" in refused[0]


@pytest.mark.slow
def test_the_demo_is_deployed_to_and_goes_back_as_its_tutorial_says(environ: dict[str, str], tmp_path: Path) -> None:
    """Two releases with a migration between them, a broken one, and the way back: every row is kept."""
    folder, state = start_demo(environ)
    seeded, seen = look(folder, state)[1].seeded, []
    for number, command in enumerate(commands_of("deploy-and-go-back")):
        with cluster.connect(state, cluster.DATABASE) as connection:
            connection.execute("INSERT INTO ir_config_parameter (key, value) VALUES (%s, 'kept')", [f"test.{number}"])
        output = type_command(command, environ, tmp_path)
        version, rows = look(folder, state)
        assert rows == Rows(seeded, number + 1), output
        seen.append(version)
        if version == REVIEWS:
            require_reviews(state)
    assert seen == [FIRST, FIRST, REVIEWS, REVIEWS, REVIEWS, REVIEWS, REVIEWS, FIRST]
    releases = sorted(one.name for one in folder.releases.iterdir() if one.name.isdecimal())
    assert folder.current.readlink().name == releases[0]
    assert [(folder.releases / one / "REVISION").read_text() for one in releases] == ["1.0\n", "1.1\n"]


@pytest.mark.slow
def test_a_deploy_killed_while_a_broken_release_is_live_is_taken_back(environ: dict[str, str], tmp_path: Path) -> None:
    """The demo is found again with an application that is not well, by the very run that goes back from it."""
    folder, state = start_demo(environ)
    before = look(folder, state)
    write_release("1.2", tmp_path / "shop-1.2")
    options = [f"--logs={tmp_path / 'logs'}", "-p", "no:cacheprovider"]
    words = ["pytest", "actions/test_deploy.py", f"--release={tmp_path / 'shop-1.2'}", *options]
    with subprocess.Popen(words, env=environ, cwd=REPOSITORY, stdout=subprocess.DEVNULL) as deploy:
        try:
            await_true(lambda: is_unwell(state), "the broken release is never live", 90)
        finally:
            deploy.kill()
    assert (folder.current / "REVISION").read_text() == "1.2\n"
    words = ["pytest", "actions/test_recover.py", *options]
    done = subprocess.run(words, env=environ, cwd=REPOSITORY, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert look(folder, state) == before


def require_reviews(state: State) -> None:
    """Review an order, find that on its page, and take it away again: it would be lost in a way back."""
    assert ask(state, "/reviews", {"order": "S99999", "stars": 1, "text": "no such order"})[0] == 400
    assert ask(state, "/reviews", {"order": "S00042", "stars": 4, "text": "<b>fine</b>"})[0] == 201
    page = ask(state, "/reviews")[1]
    assert "<td>S00042</td><td>★★★★</td><td>&lt;b&gt;fine&lt;/b&gt;</td>" in page
    assert '<a href="/reviews">' in ask(state, "/")[1]
    with cluster.connect(state, cluster.DATABASE) as connection:
        assert connection.execute("DELETE FROM sale_review").rowcount == 1


def ask(state: State, path: str, posted: object = None) -> tuple[int, str]:
    """Return the application's status and answer."""
    connection = http.client.HTTPConnection("127.0.0.1", state.application_port, timeout=20)
    try:
        connection.request("POST" if posted else "GET", path, body=json.dumps(posted) if posted else None)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def is_unwell(state: State) -> bool:
    """Tell whether the application answers that it is not well."""
    try:
        return ask(state, "/health")[0] == 503
    except (OSError, http.client.HTTPException):
        return False
