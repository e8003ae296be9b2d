"""The application that a drill starts: that it answers on the copy, and that nothing of it outlives the drill."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from opsproof.errors import ConfigurationError, ProofError
from opsproof.policies import DrillSettings
from opsproof.procedures.drill.trialapplication import MARK, require_sensible, trial_application
from opsproof.system.hosts.host import Host
from opsproof.target import DatabaseAddress, FilestoreSettings, Secret, Target
from tests.lab import trialserver
from tests.lab.action_run import REPOSITORY
from tests.lab.application import Application, running_application
from tests.lab.moto_server import free_ports
from tests.lab.postgres_server import PostgresServer
from tests.lab.targets import target_of
from tests.lab.waiting import await_true

URL = "http://127.0.0.1:{port}/health"
# A drill while its application runs: it is killed before it can end anything.
HOLDER = """
import json, sys, time
from tests.integration.test_trial_application import copy_of, settings_of
from opsproof.procedures.drill.trialapplication import trial_application
from opsproof.system.hosts.host import Host
target = copy_of(json.loads(sys.argv[1]))
with trial_application(target, Host(target.connection), settings_of("stubborn")) as answered:
    print("answers", answered.sessions, flush=True)
    time.sleep(600)
"""


def copy_of(values: dict[str, Any]) -> Target:
    """Return a target, as a drill's copy is one."""
    password, folder = Secret(values["password"]), PurePosixPath(values["folder"])
    address = DatabaseAddress(values["name"], values["host"], values["port"], values["user"], password)
    return target_of(Path(values["folder"]), database=address, filestore=FilestoreSettings(folder, True, "a test"))


def settings_of(mood: str, seconds: float = 20.0, url: str = URL) -> DrillSettings:
    """Return settings that start the tests' application."""
    words = f"{sys.executable} {trialserver.__file__} '{mood}' {{database}} {{filestore}} {{port}}"
    return DrillSettings(words, url, timedelta(seconds=seconds))


@pytest.fixture(scope="module")
def values(wheel_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with running_application(wheel_postgres, tmp_path_factory.mktemp("copy"), attachments=1) as copy:
        yield values_of(copy)


def values_of(copy: Application) -> dict[str, Any]:
    address = copy.address
    whereabouts = {"name": address.name, "host": address.host, "port": address.port, "user": address.user}
    return {**whereabouts, "password": copy.password, "folder": str(copy.filestore)}


def marked() -> list[str]:
    """Return the command lines of what any drill's application has started, and of the servers of these tests."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if f"{MARK}=".encode() in (process / "environ").read_bytes() and "trialserver" in words:
                found.append(words)
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("mood", "sessions"), [("well", 1), ("forgetful", 0), ("stubborn", 1)])
def test_it_answers_on_the_copy_and_is_gone(values: dict[str, Any], mood: str, sessions: int) -> None:
    target = copy_of(values)
    with trial_application(target, Host(target.connection), settings_of(mood)) as answered:
        assert answered.sessions == sessions
        assert values["name"] in " ".join(marked())
    assert values["name"] not in " ".join(marked())


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("never starts", "this copy is not to my taste"),
        ("dies", "ended, with None"),
        ("hangs", "is not healthy after 1 s"),
    ],
)
def test_one_that_does_not_answer_is_gone_too(values: dict[str, Any], mood: str, words: str) -> None:
    target = copy_of(values)
    seconds = 1 if mood == "hangs" else 20
    with (
        pytest.raises(ProofError) as refused,
        trial_application(target, Host(target.connection), settings_of(mood, seconds)),
    ):
        raise AssertionError("it answers")
    assert words in str(refused.value)
    assert values["name"] not in " ".join(marked())


def test_it_does_not_outlive_a_drill_that_is_killed(values: dict[str, Any]) -> None:
    """It is in a session of its own, deaf to SIGTERM, and nobody is there to end it."""
    words = [sys.executable, "-c", HOLDER, json.dumps(values)]
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"answers 1\n"
            assert values["name"] in " ".join(marked())
        finally:
            holder.send_signal(signal.SIGKILL)
    await_true(lambda: values["name"] not in " ".join(marked()), "it outlives the drill")


def test_nobody_else_answers_in_its_place(values: dict[str, Any]) -> None:
    (port,) = free_ports(1)
    words = [sys.executable, trialserver.__file__, "forgetful", "", "", str(port)]
    target, url = copy_of(values), f"http://127.0.0.1:{port}/health"
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as somebody:
        try:
            host = Host(target.connection)
            await_true(lambda: host.run("curl", "-s", url, accept=range(256)).status == 0, "it does not answer")
            with (
                pytest.raises(ConfigurationError, match="answers before the drill has started anything"),
                trial_application(target, host, settings_of("forgetful", url=url)),
            ):
                raise AssertionError("it was taken for the application")
        finally:
            somebody.terminate()


@pytest.mark.parametrize(
    ("command", "url", "words"),
    [
        ("serve --port={port}", URL, "does not say which database"),
        ("serve {databse}", URL, "cannot be filled in"),
        ("serve {database} {", URL, "cannot be filled in"),
        ("serve {database.name}", URL, "cannot be filled in"),
        ("serve {database}", "", "go together"),
        ("", URL, "go together"),
    ],
)
def test_a_command_that_does_not_name_the_copy_is_refused(command: str, url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        require_sensible(DrillSettings(command, url))


def test_braces_of_its_own_are_written_twice() -> None:
    require_sensible(DrillSettings("PGDATABASE={database} serve --files {filestore} {port} '{{}}'", URL))
