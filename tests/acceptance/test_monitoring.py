"""What monitoring hears of a run: the metrics file, the dead-man switches, and the one line of `--nagios`."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.lab.action_run import BACKUP, REPOSITORY, Project
from tests.lab.client_programs import WAITS_MIDWAY
from tests.lab.fleets import Fleet, fleet_of
from tests.lab.postgres_server import PostgresServer

TOKEN = "a81f7c2e-token-of-t"
CHECKS = "checks/test_host.py"


@dataclass
class Switch:
    """What dead-man switches heard, in order, without the token."""

    url: str
    status: int = 200
    heard: list[str] = field(default_factory=list)

    def of(self, target: str) -> list[str]:
        """Return what the one of a target heard."""
        return [one.removeprefix(target).strip("/") for one in self.heard if one.startswith(target)]


@contextmanager
def listening() -> Iterator[Switch]:
    """Hear pings on 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ears.heard.append(self.path.removeprefix(f"/ping/{TOKEN}"))
            self.send_response(ears.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        ears = Switch(f"http://127.0.0.1:{server.server_address[1]}/ping/{TOKEN}")
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        try:
            yield ears
        finally:
            server.shutdown()


@pytest.fixture
def switch() -> Iterator[Switch]:
    with listening() as switch:
        yield switch


@pytest.fixture(scope="module")
def made(wheel_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with fleet_of(2, wheel_postgres, tmp_path_factory.mktemp("fleet") / "project", rows=50) as fleet:
        yield fleet


@pytest.fixture
def fleet(made: Fleet, switch: Switch) -> Fleet:
    """Two targets, each with a switch of its own."""
    describe(made, switch)
    return made


def describe(fleet: Fleet, switch: Switch, **changes: Mapping[str, object]) -> None:
    pings = {
        name: {"ping": {"backup": f"{switch.url}{name}", "checks": f"{switch.url}{name}"}} for name in fleet.targets
    }
    fleet.describe(**{name: {**pings[name], **changes.get(name, {})} for name in fleet.targets})


def scraped(path: Path, name: str) -> dict[tuple[str, ...], float]:
    """Return the values of a metric by their labels, but for the environment."""
    return {
        tuple(value for label, value in sorted(one.labels.items()) if label != "environment"): one.value
        for family in text_string_to_metric_families(path.read_text())
        for one in family.samples
        if one.name == f"opsproof_{name}"
    }


ALONE_AND_BY_WORKERS = pytest.mark.parametrize(
    "workers", [(), pytest.param(("-n", "2"), marks=pytest.mark.slow)], ids=["alone", "by workers"]
)


@ALONE_AND_BY_WORKERS
def test_a_target_that_is_well_and_one_that_is_not(
    fleet: Fleet, switch: Switch, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    describe(fleet, switch, t1=fleet.missing())
    path = tmp_path / "opsproof.prom"
    path.write_text('opsproof_last_success_timestamp_seconds{environment="prod",target="t1",action="backup"} 77\n')
    began = time.time()
    run = fleet.project.run(f"--metrics-file={path}", *workers)
    assert run.status == 1, run.output
    assert (switch.of("t0"), switch.of("t1")) == (["start", ""], ["start", "fail"])
    successes = scraped(path, "last_success_timestamp_seconds")
    assert successes["backup", "t1"] == 77
    assert began < successes["backup", "t0"] < time.time()
    assert scraped(path, "verdict")["backup", "t0", "passed"] == 1
    assert scraped(path, "verdict")["backup", "t1", "failed"] == 1
    assert scraped(path, "verdict")["backup", "t1", "passed"] == 0
    stored = run.case("test_publish_manifest", "t0").properties
    assert scraped(path, "backup_bytes") == {("backup", "t0"): float(stored["backup_bytes"])}
    assert 0 <= scraped(path, "backup_age_seconds")["backup", "t0"] < 60
    durations = scraped(path, "duration_seconds")
    assert 0 < durations["backup", "dump", "t0"] < durations["backup", "total", "t0"] < 60
    for text in (run.output, run.log, run.xml, path.read_text()):
        assert TOKEN not in text


def test_an_interrupted_run_says_so(fleet: Fleet, switch: Switch, tmp_path: Path) -> None:
    waiting, settings = fleet.hang("t0", WAITS_MIDWAY)
    describe(fleet, switch, t0=settings)
    path = tmp_path / "opsproof.prom"
    with fleet.project.begin("--target=t0", f"--metrics-file={path}") as begun:
        begun.wait_until(lambda: (waiting / "reached").exists())
        begun.send(signal.SIGTERM)
        run = begun.finish()
    assert run.status == 1, run.output
    assert switch.heard == ["t0/start", "t0/fail"]
    assert scraped(path, "verdict")["backup", "t0", "error"] == 1
    assert ("backup", "t0") not in scraped(path, "last_success_timestamp_seconds")


def test_a_dry_run_tells_nobody(fleet: Fleet, switch: Switch, tmp_path: Path) -> None:
    run = fleet.project.run("--target=t0", "--dry-run", f"--metrics-file={tmp_path / 'm.prom'}")
    assert run.status == 0, run.output
    assert switch.heard == []
    assert list(tmp_path.glob("*.prom")) == []


def test_a_file_of_somebody_elses_is_refused_before_anything_runs(fleet: Fleet, switch: Switch) -> None:
    inventory = fleet.project.inventory
    before = inventory.read_bytes()
    run = fleet.project.run(f"--metrics-file={inventory}")
    assert run.status == 4, run.output
    assert "is not a file of this tool's" in run.output
    assert "hint:" in run.output
    assert inventory.read_bytes() == before
    assert (run.cases, switch.heard) == ((), [])


def answer(project: Project, *arguments: str, **how: str) -> tuple[int, str, str]:
    """Return the exit status of a run with `--nagios`, its only line, and what went to stderr."""
    done = subprocess.run(
        [*project.command("--nagios", *arguments, **how)],  # type: ignore[arg-type]
        cwd=project.folder, env=project.environ, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    (line,) = done.stdout.splitlines()
    return done.returncode, line, done.stderr


def test_nagios_of_an_action(fleet: Fleet, switch: Switch) -> None:
    status, line, rest = answer(fleet.project, "--target=t0")
    assert status == 0, line + rest
    assert line.startswith("OK - 14 passed | 'passed'=14 'failed'=0 'skipped'=0 'time'=")
    assert "'t0 bytes'=" in line
    assert "is stored and verified" in rest


@ALONE_AND_BY_WORKERS
def test_nagios_of_checks_that_find_something(
    fleet: Fleet, switch: Switch, tmp_path: Path, workers: tuple[str, ...]
) -> None:
    describe(fleet, switch, t1={"pg_bindir": "/nonexistent"})
    path = tmp_path / "m.prom"
    status, line, rest = answer(fleet.project, f"--metrics-file={path}", *workers, action=CHECKS)
    assert status == 2, line + rest
    assert line.startswith("CRITICAL - 1 of 10 failed: test_client_programs_fit[t1]: ProgramMissing: pg_dump not found")
    assert "'passed'=9 'failed'=1 'skipped'=2" in line
    assert switch.of("t0")[-1] == ""
    assert switch.of("t1")[-1] == "fail"
    verdicts = scraped(path, "verdict")
    assert (verdicts["check_host", "t0", "passed"], verdicts["check_host", "t1", "failed"]) == (1, 1)


def test_a_ping_that_nobody_takes_changes_nothing_but_is_told(fleet: Fleet, switch: Switch) -> None:
    switch.status = 404
    status, line, rest = answer(fleet.project, "--target=t0")
    assert status == 1, line + rest
    assert line.startswith("WARNING - 14 passed, 2 warnings: see the log | ")
    assert "The ping of backup of t0 (start) was not taken: HTTP 404" in rest
    assert "The ping of backup of t0 (success) was not taken: HTTP 404" in rest
    checked = fleet.project.run("--target=t0", action=CHECKS)
    for word in ("start", "success"):
        assert f"WARNING: The ping of checks of t0 ({word}) was not taken: HTTP 404" in checked.output
    assert TOKEN not in line + rest


def test_nagios_knows_nothing(fleet: Fleet, tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["opsproof.plugin"]\n')
    broken = tmp_path / "test_broken.py"
    broken.write_text("import nothing_of_that_name\n")
    empty = tmp_path / "test_empty.py"
    empty.write_text("")
    skipped = tmp_path / "test_skipped.py"
    skipped.write_text("import pytest\n\n\ndef test_it():\n    pytest.skip('not today')\n")
    for arguments, how, words in (
        ((), {"env": "nowhere"}, "nowhere"),
        (("--at=never",), {}, "--at='never' is no time"),
        ((), {"action": str(broken)}, "cannot be collected: ImportError while importing"),
        ((), {"action": str(empty)}, "nothing was confirmed: none ran"),
        ((), {"action": str(skipped)}, "nothing was confirmed: none ran, 1 skipped"),
    ):
        status, line, rest = answer(fleet.project, *arguments, **how)
        assert status == 3, line + rest
        assert line.startswith("UNKNOWN - "), line
        assert words in line, line + rest


SECOND = """

@pytest.mark.procedure
class TestSecond:
    def test_second(self, target):
        raise ValueError("no")
"""


@pytest.mark.parametrize("stops", [(), ("--maxfail=1", "-p", "between")], ids=["fails", "is never begun"])
def test_an_action_of_two_procedures_is_well_where_both_are(
    fleet: Fleet, switch: Switch, tmp_path: Path, stops: tuple[str, ...]
) -> None:
    """What one's own repository has: a first procedure that is well, and a second one that is not."""
    folder = fleet.project.folder
    (folder / "conftest.py").write_text('pytest_plugins = ["opsproof.plugin"]\n')
    (folder / "test_backup.py").write_text((REPOSITORY / BACKUP).read_text() + SECOND)
    (folder / "between.py").write_text(
        "def pytest_runtest_logfinish(nodeid, location):\n"
        "    if 'test_publish_manifest' in nodeid:\n"
        "        SESSION.shouldfail = 'somebody has stopped it'\n"
        "def pytest_sessionstart(session):\n    global SESSION\n    SESSION = session\n"
    )
    path = tmp_path / "opsproof.prom"
    run = fleet.project.run("--target=t0", f"--metrics-file={path}", *stops, action=str(folder / "test_backup.py"))
    assert run.status == 1, run.output
    assert switch.of("t0") == ["start", "fail"]
    assert scraped(path, "last_success_timestamp_seconds") == {}
    assert scraped(path, "verdict")["backup", "t0", "passed"] == 0
