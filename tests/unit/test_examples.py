"""The CI examples: every command of theirs is one that this tool takes, and is ended before its job is."""

from __future__ import annotations

import json
import os
import re
import shlex
import string
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped] # comes with ansible-core, without types

REPOSITORY = Path(__file__).parents[2]
GITLAB = REPOSITORY / "examples" / "gitlab-ci.yml"
GITHUB = REPOSITORY / "examples" / "github-actions.yml"
# What a person, or the CI itself, fills in.
GIVEN = {"TARGET": "erp", "REVISION": "-1", "PLAN": "0123abcd"}
CHANGES = (
    "test_drill.py",
    "test_rollback.py",
    "test_restore.py",
    "test_recover.py",
    "test_cleanup.py",
    "test_backup.py",
)
UNITS = {"s": 1, "m": 60, "h": 3600}
# pytest in one process for all commands: each would take a second to start.
RUN_ALL = """
import json, sys, pytest
for command in json.load(sys.stdin):
    print(json.dumps([command, int(pytest.main(command))]), file=sys.stderr, flush=True)
"""


@dataclass(frozen=True)
class Command:
    """A `pytest` of a job, and the seconds after which timeout(1) ends it."""

    job: str
    line: str
    arguments: tuple[str, ...]
    seconds: float
    variables: Mapping[str, str]

    @property
    def report(self) -> str:
        (name,) = [one.partition("=")[2] for one in self.arguments if one.startswith("--junitxml=")]
        return name

    @property
    def is_change(self) -> bool:
        return self.arguments[0].endswith(CHANGES) and "--dry-run" not in self.arguments


def seconds_of(text: str) -> float:
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)\s*([smh])", text))


def commands_of(job: str, lines: list[str], variables: Mapping[str, str]) -> Iterator[Command]:
    for line in "\n".join(lines).splitlines():
        words = shlex.split(string.Template(line).safe_substitute({**variables, **GIVEN}), comments=True)
        if "pytest" not in words:
            continue
        place = words.index("pytest")
        before = words[:place]
        assert before[-3:-1] == ["timeout", "--signal=TERM"], line
        assert not {"|", "||", "&&", ";", ">"} & set(words), line
        yield Command(job, line, tuple(words[place + 1 :]), seconds_of(before[-1]), variables)


def load(path: Path) -> dict[Any, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


def gitlab_jobs() -> dict[str, dict[str, Any]]:
    """Return the jobs with what they inherit."""
    content = load(GITLAB)
    keywords = {"stages", "workflow", "default", "variables"}
    jobs = {}
    for name, own in content.items():
        if name not in keywords and not name.startswith("."):
            base = content[own["extends"]] if "extends" in own else {}
            variables = {**content["variables"], **base.get("variables", {}), **own.get("variables", {})}
            jobs[name] = {**content["default"], **base, **own, "variables": variables}
    return jobs


def gitlab_commands() -> list[Command]:
    return [
        command for name, job in gitlab_jobs().items() for command in commands_of(name, job["script"], job["variables"])
    ]


def github_commands() -> list[Command]:
    return [
        command
        for name, job in load(GITHUB)["jobs"].items()
        for command in commands_of(name, [step["run"] for step in job["steps"] if "run" in step], job.get("env", {}))
    ]


def test_every_command_is_taken(tmp_path: Path) -> None:
    commands = [*gitlab_commands(), *github_commands()]
    assert len(commands) >= 12
    assert {command.arguments[0] for command in commands} >= {
        "actions/test_backup.py", "actions/test_rollback.py", "actions/test_recover.py", "actions/test_cleanup.py",
        "actions/test_drill.py", "checks/test_backups.py",
    }  # fmt: skip
    more = [
        "--collect-only", "-q", "-p", "no:cacheprovider", f"--logs={tmp_path / 'logs'}", f"--junitxml={tmp_path / 'x'}"
    ]  # fmt: skip
    different = {command.arguments: command for command in commands}
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1",
        # A target without an inventory, which Ansible would have to read for each command.
        "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/erp", "PYTEST_ADDOPTS": "-p no:hypothesispytest",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL], input=json.dumps([[*one, *more] for one in different]), cwd=REPOSITORY,
        env=environ, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    results = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("[[")]
    assert [status for _, status in results] == [0] * len(different), done.stdout + done.stderr
    assert done.stdout.count("tests collected") == len(different), done.stdout


def test_a_command_that_is_not_taken_would_be_found() -> None:
    (command,) = commands_of("x", ['exec timeout --signal=TERM 1h pytest a.py --env="$E" --junitxml=b.xml'], {"E": "e"})
    assert command.arguments == ("a.py", "--env=e", "--junitxml=b.xml")
    assert (command.seconds, command.report) == (3600, "b.xml")
    with pytest.raises(AssertionError):
        list(commands_of("x", ["pytest a.py"], {}))


@pytest.mark.parametrize("name", gitlab_jobs())
def test_a_job_of_gitlab(name: str) -> None:
    job = gitlab_jobs()[name]
    (command,) = [one for one in gitlab_commands() if one.job == name]
    script = seconds_of(job["variables"]["RUNNER_SCRIPT_TIMEOUT"])
    after = seconds_of(job["variables"]["RUNNER_AFTER_SCRIPT_TIMEOUT"])
    # Half an hour for the undo at least, and the job outlives both scripts, so that the report is uploaded.
    assert command.seconds + 1800 <= script
    assert script + after <= seconds_of(job["timeout"])
    assert job["interruptible"] is False
    assert job["resource_group"] == name.split(":")[1]  # the environment that it works on
    assert job["artifacts"]["when"] == "always"
    assert job["artifacts"]["reports"]["junit"] == command.report
    assert job["stage"] in load(GITLAB)["stages"]
    assert set(job.get("needs", [])) <= set(gitlab_jobs())


def test_gitlab_changes_by_hand_only_what_a_schedule_does_not() -> None:
    jobs = gitlab_jobs()
    by_hand = {name for name, job in jobs.items() if any(rule.get("when") == "manual" for rule in job["rules"])}
    by_hand_alone = {"rollback:prod:plan", "rollback:prod", "rollback:prod:release", "recover:prod"}
    assert by_hand == {"deploy:prod", *by_hand_alone}
    assert load(GITLAB)["deploy:prod"]["needs"] == ["backup:prod"]
    changing = {command.job for command in gitlab_commands() if command.is_change}
    assert changing - by_hand == {"backup:prod", "cleanup:prod", "drill:staging"}
    assert jobs["cleanup:prod"]["needs"] == ["verify:prod"]


@pytest.mark.parametrize("name", load(GITHUB)["jobs"])
def test_a_job_of_github(name: str) -> None:
    content = load(GITHUB)
    job = content["jobs"][name]
    (command,) = [one for one in github_commands() if one.job == name]
    assert command.line.startswith("exec timeout ")
    assert command.seconds + 1800 <= job["timeout-minutes"] * 60
    upload = job["steps"][-1]
    assert upload["if"] == "always()"
    assert command.report in upload["with"]["path"].split()
    # A step that runs whatever happened before it would begin after somebody has cancelled the job.
    assert all("if" not in step for step in job["steps"][:-1])
    assert content["concurrency"]["cancel-in-progress"] is False
    # What a person types reaches a shell as a variable only.
    assert not [step for step in job["steps"] if "${{" in step.get("run", "")]
