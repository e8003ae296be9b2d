"""Running an action for real: `pytest actions/test_backup.py ...` in a process of its own, as people do.

A *project* is the folder that an operator stands in: an inventory, logs, temporary files, backups. Its runs get an
environment that names nothing of this machine's user.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
BACKUP = "actions/test_backup.py"
RUN_SECONDS = 120


@dataclass(frozen=True)
class Case:
    """One test case of the JUnit XML. `outcome` is passed, failed, error or skipped."""

    name: str
    outcome: str
    message: str
    properties: Mapping[str, str]

    @property
    def step(self) -> str:
        """The step's name without its target."""
        return self.name.partition("[")[0]

    @property
    def target(self) -> str:
        """The target's name."""
        return self.name.partition("[")[2].removesuffix("]")


@dataclass(frozen=True)
class ActionRun:
    """An action that has ended.

    Attributes:
        status: The exit status; negative for a signal.
        output: What it printed, to stdout and stderr.
        xml: The JUnit XML as it stands in the file; empty where none was written.
        cases: Its test cases, in order.
        events: The journal's lines.
        log: The log file's text.
    """

    status: int
    output: str
    xml: str
    cases: tuple[Case, ...]
    events: tuple[dict[str, Any], ...]
    log: str

    def outcomes(self, target: str = "") -> dict[str, str]:
        """Return each step's outcome, in order; of one target, where there are several."""
        return {case.step: case.outcome for case in self.cases if target in ("", case.target)}

    def case(self, step: str, target: str = "") -> Case:
        """Return the last case of a step: that is the error of a teardown where there is one."""
        return [case for case in self.cases if case.step == step and target in ("", case.target)][-1]

    def failed_step(self, target: str = "") -> Case:
        """Return the first step that did not pass, with its error."""
        return next(case for case in self.cases if case.outcome in ("failed", "error") and target in ("", case.target))

    def named(self, event: str) -> list[dict[str, Any]]:
        """Return the journal's events of a name."""
        return [one for one in self.events if one["event"] == event]


@dataclass(frozen=True)
class Project:
    """A folder to run actions from.

    Attributes:
        folder: Holds hosts.yml, logs/, tmp/ and store/.
        environ: All variables that its runs get.
    """

    folder: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def inventory(self) -> Path:
        """Its hosts.yml."""
        return self.folder / "hosts.yml"

    @property
    def logs(self) -> Path:
        """Where logs and journals go."""
        return self.folder / "logs"

    @property
    def temporary(self) -> Path:
        """TMPDIR of its runs."""
        return Path(self.environ["TMPDIR"])

    @property
    def store(self) -> Path:
        """The folder that a directory store of it uses."""
        return self.folder / "store"

    def write_inventory(self, groups: Mapping[str, Mapping[str, Mapping[str, object]]]) -> None:
        """Write hosts.yml: environment -> target -> variables. Texts are quoted as JSON, which YAML reads."""
        content = {
            group: {"hosts": {host: {"ansible_connection": "local", **own} for host, own in hosts.items()}}
            for group, hosts in groups.items()
        }
        self.inventory.write_text(json.dumps(content, indent=1))

    def command(self, *arguments: str, action: str = BACKUP, env: str = "prod", inventory: bool = True) -> list[str]:
        """Return the command line that `run` runs, the XML's name left out."""
        return [
            sys.executable,
            "-m",
            "pytest",
            str(REPOSITORY / action),
            f"--rootdir={REPOSITORY}",
            "-c",
            str(REPOSITORY / "pytest.ini"),
            "-p",
            "no:cacheprovider",
            # Of these tests, and not of those who run actions: it would cost each run a third of its start.
            "-p",
            "no:hypothesispytest",
            f"--env={env}",
            *([f"--inventory={self.inventory}"] if inventory else []),
            f"--logs={self.logs}",
            *arguments,
        ]

    def run(self, *arguments: str, **how: Any) -> ActionRun:
        """Run an action to its end.

        Args:
            arguments: More of pytest's.
            how: `action`, `env` and `inventory` as in `command`; `environ`: more variables; `size`: the most bytes
                that a file may grow to.
        """
        with self.begin(*arguments, **how) as begun:
            return begun.finish()

    @contextmanager
    def begin(
        self, *arguments: str, environ: Mapping[str, str] | None = None, size: int | None = None, **how: Any
    ) -> Iterator[Begun]:
        """Begin an action; whatever of it still runs at the end of the block is killed."""
        number = len(list(self.folder.glob("run-*.xml"))) + 1
        handle, name = tempfile.mkstemp(prefix="output-", dir=self.folder)
        os.close(handle)
        xml = self.folder / f"run-{number}-{Path(name).name}.xml"
        before = {path.name for path in self.logs.glob("*")}
        limit = ["prlimit", f"--fsize={size}"] if size is not None else []
        with Path(name).open("wb") as output:
            process = subprocess.Popen(
                [*limit, *self.command(*arguments, **how), f"--junitxml={xml}"],
                cwd=self.folder,
                env={**self.environ, **(environ or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        begun = Begun(self, process, Path(name), xml, before)
        try:
            yield begun
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()

    def processes(self) -> list[str]:
        """Return the command lines of all processes that have this project's TMPDIR: what its runs started."""
        mark = f"TMPDIR={self.environ['TMPDIR']}\0".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (process / "environ").read_bytes() + b"\0" and _state(process) != "Z":
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
        return found

    def stored(self) -> list[str]:
        """Return every file of the directory store but the journals of runs, unfinished ones too, sorted."""
        found = self.store.rglob("*") if self.store.exists() else iter(())
        names = sorted(path.relative_to(self.store).as_posix() for path in found if path.is_file())
        return [name for name in names if "journals" not in name.split("/")]

    def litter(self) -> list[str]:
        """Return what is in the temporary folder, and the processes that are left."""
        return [str(path) for path in sorted(self.temporary.rglob("*"))] + self.processes()


@dataclass(frozen=True)
class Begun:
    """An action that runs."""

    project: Project
    process: subprocess.Popen[bytes]
    printed: Path
    xml: Path
    older: set[str]

    def send(self, number: signal.Signals) -> None:
        """Send a signal to pytest's own process."""
        self.process.send_signal(number)

    def wait_until(self, happened: Callable[[], bool], seconds: float = 30.0) -> None:
        """Wait for something; it is an error if the run ends before that."""
        deadline = time.monotonic() + seconds
        while not happened():
            assert self.process.poll() is None, f"the run ended before it came to that:\n{self.output}"
            assert time.monotonic() < deadline, f"it never came to that:\n{self.output}"
            time.sleep(0.01)

    @property
    def output(self) -> str:
        """What it has printed so far."""
        return self.printed.read_text(errors="replace")

    def events(self) -> tuple[dict[str, Any], ...]:
        """Return the journal's lines so far."""
        # A line that is being written at this moment may be seen to its half.
        whole = [path.read_text().rpartition("\n")[0] for path in self._new("*.jsonl")]
        lines = [line for text in whole for line in text.splitlines()]
        return tuple(json.loads(line) for line in lines)

    def finish(self, seconds: float = RUN_SECONDS) -> ActionRun:
        """Wait for the end."""
        status = self.process.wait(seconds)
        text = self.xml.read_text() if self.xml.exists() else ""
        log = "".join(path.read_text() for path in self._new("*.log"))
        return ActionRun(status, self.output, text, _cases(text), self.events(), log)

    def _new(self, pattern: str) -> list[Path]:
        return sorted(path for path in self.project.logs.glob(pattern) if path.name not in self.older)


def make_project(folder: Path, **variables: str) -> Project:
    """Make a project in a folder, which may exist, with these variables on top of the few that every run needs."""
    folder.mkdir(parents=True, exist_ok=True)
    # Not below pytest's folder: on a tmpfs or with a long name it would be another case than the usual one.
    for name in ("home", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "LANG": "C.UTF-8",
        "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
        "ANSIBLE_LOCAL_TEMP": str(folder / "home" / "ansible"),
    }
    return Project(folder, {**environ, **variables})


def require_failure(run: ActionRun, step: str, *words: str) -> str:
    """Check that a step failed, with an error that says these words and what to do; return it."""
    assert run.status == 1, run.output
    case = run.failed_step()
    assert case.step == step, run.output
    for word in words:
        assert word in case.message, run.output
    assert "hint:" in case.message, case.message
    later = list(run.outcomes().values())[list(run.outcomes()).index(step) + 1 :]
    assert set(later) <= {"skipped"}, run.output
    assert "THE UNDO FAILED" not in run.output
    return case.message


def _cases(text: str) -> tuple[Case, ...]:
    if not text:
        return ()
    return tuple(_case(element) for element in ET.fromstring(text).iter("testcase"))


def _case(element: ET.Element) -> Case:
    properties = {one.attrib["name"]: one.attrib["value"] for one in element.iter("property")}
    for kind, outcome in (("failure", "failed"), ("error", "error"), ("skipped", "skipped")):
        found = element.find(kind)
        if found is not None:
            message = "\n".join(filter(None, (found.attrib.get("message", ""), found.text or "")))
            return Case(element.attrib["name"], outcome, message, properties)
    return Case(element.attrib["name"], "passed", "", properties)


def _state(process: Path) -> str:
    return (process / "stat").read_text().rpartition(")")[2].split()[0]
