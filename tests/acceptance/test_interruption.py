"""SIGTERM, Ctrl-C and kill -9 at any moment: undone at once, or said and cleared away by the next run."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from opsproof.archive.manifest import read_sidecar
from tests.lab.action_run import REPOSITORY, Begun, Project, make_project
from tests.lab.application import Application, file_contents, running_application, table_contents
from tests.lab.backup_runs import describe
from tests.lab.bucket import Bucket
from tests.lab.client_programs import SLOW, WAITS_MIDWAY, wrap_clients
from tests.lab.fault_proxy import Fault, FaultProxy
from tests.lab.postgres_server import PostgresServer

MIB = 1 << 20
PAUSE = ["-p", "tests.lab.pause"]


@pytest.fixture(scope="module")
def application(wheel_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with running_application(wheel_postgres, tmp_path_factory.mktemp("application"), attachments=2) as application:
        with application.connect() as connection:
            application.attach(connection, os.urandom(9 * MIB))
        yield application


@pytest.fixture
def project(tmp_path: Path, application: Application) -> Project:
    """A project whose backups go to a folder."""
    project = make_project(tmp_path / "project", PYTHONPATH=str(REPOSITORY), PAUSE_FOLDER=str(tmp_path))
    describe(project, application)
    return project


@pytest.fixture
def cloud(tmp_path: Path, application: Application, bucket: Bucket, proxy: FaultProxy) -> Project:
    """A project whose backups go to the bucket by way of the proxy."""
    project = make_project(tmp_path / "cloud", PYTHONPATH=str(REPOSITORY), **bucket.server.variables)
    store = {"bucket": bucket.name, "endpoint_url": proxy.url, "region": "us-east-1"}
    describe(project, application, customer="acme", store=store)
    return project


def hail(begun: Begun, first: signal.Signals, others: tuple[signal.Signals, ...]) -> None:
    """Send one signal, and then others again and again until the run has ended."""
    begun.send(first)
    while begun.process.poll() is None:
        time.sleep(0.05)
        for number in others:
            begun.send(number)


def require_undone(
    begun: Begun, project: Project, application: Application, steps: str | tuple[str, ...], number: signal.Signals
) -> None:
    run = begun.finish()
    assert run.status in (1, 2), run.output
    step = run.failed_step().step
    assert step in ((steps,) if isinstance(steps, str) else steps), run.output
    assert f"{number.name} arrived while this step was running" in run.failed_step().message
    assert list(run.outcomes())[-1] == step, "nothing runs after it"
    assert len(run.named("undo begins")) == len(run.named("undo ends")) == 1
    assert "is stored and verified" not in run.output
    assert project.litter() == []
    assert not application.frozen.exists()
    application.require_no_session()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_during_the_dump_undoes_it(project: Project, application: Application, number: signal.Signals) -> None:
    # It does not heed SIGTERM, so that the undo takes its time, and further signals find it at work.
    script = f"trap '' TERM\n{WAITS_MIDWAY}"
    bindir = wrap_clients(project.folder / "bin", application.server.bindir, pg_dump=script)
    describe(project, application, bindir)
    with project.begin() as begun:
        begun.wait_until((bindir / "reached").exists)
        hail(begun, number, (signal.SIGTERM, signal.SIGINT))
        require_undone(begun, project, application, "test_dump_database", number)
        assert "undo is at work; it is not cut short" in begun.output
    assert project.stored() == []


STALLS = {
    # The files are sent from the dump on.
    "upload": (("test_dump_database", "test_write_bundle"), Fault("stall", "PUT", query="partNumber=1", seconds=3)),
    "completion": (("test_complete_upload",), Fault("stall", "POST", query="uploadId=", seconds=3)),
    "reading back": (("test_stored_copy_is_what_was_sent",), Fault("stall", "GET", path=r"\.zip$", seconds=3)),
    "manifest": (("test_publish_manifest",), Fault("stall", "PUT", path=r"manifest\.json$", seconds=3)),
}


@pytest.mark.parametrize("moment", STALLS)
def test_a_signal_while_the_store_is_at_work_leaves_it_empty(
    cloud: Project, application: Application, bucket: Bucket, proxy: FaultProxy, moment: str
) -> None:
    steps, stall = STALLS[moment]
    stall = proxy.inject(Fault(stall.kind, stall.method, stall.path, stall.query, times=1, seconds=stall.seconds))
    with cloud.begin(*PAUSE) as begun:
        begun.wait_until(lambda: stall.struck > 0)
        hail(begun, signal.SIGTERM, (signal.SIGTERM,))
        require_undone(begun, cloud, application, steps, signal.SIGTERM)
    assert bucket.is_empty()


def test_a_signal_between_two_steps_ends_the_run_and_undoes_it(
    project: Project, application: Application, tmp_path: Path
) -> None:
    with project.begin(*PAUSE, environ={"PAUSE_AFTER": "test_write_bundle"}) as begun:
        begun.wait_until((tmp_path / "reached").exists)
        begun.send(signal.SIGTERM)
        (tmp_path / "go").touch()
        run = begun.finish()
    assert run.status in (1, 2), run.output
    assert list(run.outcomes().values()) == ["passed"] * 9
    assert "SIGTERM" in run.output
    assert (project.stored(), project.litter(), application.frozen.exists()) == ([], [], False)


def kill_and_look(
    project: Project, application: Application, begun: Begun, release: Callable[[], object] = lambda: None
) -> None:
    """Kill a run, and check what is true at once: no lie in the store, the application's own as it was."""
    begun.send(signal.SIGKILL)
    run = begun.finish()
    release()
    assert run.status == -signal.SIGKILL
    # The report is written last: where it is, the run was over but for the end of its process.
    assert run.xml == "" or any(event["event"] == "backup verified" for event in run.events)
    assert run.events, "the journal survives"
    for sidecar in project.store.glob("*.manifest.json"):
        record = read_sidecar(sidecar.read_bytes(), sidecar.name)
        data = (project.store / record.name).read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (record.bytes, record.sha256)
    deadline = time.monotonic() + 10
    while project.processes():
        assert time.monotonic() < deadline, project.processes()
        time.sleep(0.05)


def require_recovery(project: Project, application: Application, older: set[str]) -> str:
    """Check that the next run succeeds and leaves nothing but backups; return its output."""
    frozen, parts = application.frozen.exists(), [name for name in project.stored() if ".part-" in name]
    run = project.run()
    assert run.status == 0, run.output
    assert f"the frozen filestore {application.frozen}" in run.output or not frozen
    assert run.output.count("the unfinished upload") == len(parts)
    assert run.output.count("An earlier run was killed and left") == len(parts) + frozen
    assert not application.frozen.exists()
    assert project.litter() == []
    backup = run.cases[-1].properties["backup_id"]
    assert set(project.stored()) - older == {f"{backup}.zip", f"{backup}.manifest.json"}
    return run.output


@pytest.mark.parametrize("step", ["test_dump_database", "test_write_bundle", "test_complete_upload"])
def test_a_run_that_is_killed_is_cleared_away_by_the_next(
    project: Project, application: Application, tmp_path: Path, step: str
) -> None:
    files = file_contents(application.filestore)
    with project.begin(*PAUSE, environ={"PAUSE_AFTER": step}) as begun:
        begun.wait_until((tmp_path / "reached").exists)
        kill_and_look(project, application, begun)
        assert begun.events()[-1] | {"time": "", "previous": ""} == {
            "time": "",
            "previous": "",
            "event": "step",
            "procedure": "actions.test_backup.TestBackup",
            "target": "shop",
            "step": step,
            "when": "call",
            "outcome": "passed",
            "seconds": begun.events()[-1]["seconds"],
        }
    assert application.frozen.exists()
    left = set(project.stored())
    # A bundle that was stored but never verified stays, and is never taken for a backup.
    older = {name for name in left if ".part-" not in name}
    assert older == (left if step == "test_complete_upload" else set())
    output = require_recovery(project, application, older)
    assert "the frozen filestore" in output
    assert ("the unfinished upload" in output) == (step != "test_complete_upload")
    listing = project.run("--list-backups").output
    assert listing.count("never verified") == len(older)
    assert file_contents(application.filestore) == files


def test_a_killed_run_in_the_middle_of_the_dump_tells_its_phase(project: Project, application: Application) -> None:
    bindir = wrap_clients(project.folder / "bin", application.server.bindir, pg_dump=WAITS_MIDWAY)
    describe(project, application, bindir)
    with project.begin() as begun:
        begun.wait_until((bindir / "reached").exists)
        kill_and_look(project, application, begun, (bindir / "go").touch)
        assert {key: begun.events()[-1].get(key) for key in ("event", "phase")} == {
            "event": "phase begins",
            "phase": "dump",
        }
    describe(project, application)
    require_recovery(project, application, set())


def test_an_upload_of_a_killed_run_is_given_up_when_nobody_can_be_at_it_any_more(
    cloud: Project, application: Application, bucket: Bucket, proxy: FaultProxy
) -> None:
    stall = proxy.inject(Fault("stall", "PUT", query="partNumber=1", times=1, seconds=3))
    with cloud.begin(*PAUSE) as begun:
        begun.wait_until(lambda: stall.struck > 0)
        kill_and_look(cloud, application, begun)
    (left,) = bucket.unfinished()
    assert bucket.keys() == []
    # As long as another machine could be at work on it, it is left. To moto every upload is years old.
    (cloud.folder / "age.py").write_text(
        "import datetime\n"
        "from opsproof.procedures import leftovers\n"
        "leftovers.ABANDONED_AFTER = datetime.timedelta(days=100_000)\n"
    )
    run = cloud.run(*PAUSE, "-p", "age")
    assert run.status == 0, run.output
    assert bucket.unfinished() == [left]
    run = cloud.run(*PAUSE)
    assert run.status == 0, run.output
    assert f"left the unfinished upload s3://{bucket.name}/{left}: removed" in run.output
    assert bucket.unfinished() == []


@pytest.mark.slow
def test_a_dozen_runs_killed_at_random_moments_leave_nothing_that_the_next_does_not_clear_away(
    project: Project, application: Application
) -> None:
    bindir = wrap_clients(project.folder / "bin", application.server.bindir, pg_dump=SLOW)
    describe(project, application, bindir)
    files = file_contents(application.filestore)
    with application.connect() as connection:
        contents = table_contents(connection)
    started = time.monotonic()
    assert project.run().status == 0
    usual = time.monotonic() - started
    dice = random.Random()
    seed = dice.randrange(1 << 30)
    dice.seed(seed)
    print("seed", seed)
    for _ in range(12):
        older = {name for name in project.stored() if ".part-" not in name}
        with project.begin() as begun:
            begun.wait_until(lambda begun=begun: begun.events() != ())  # type: ignore[misc]
            time.sleep(dice.uniform(0, usual - 0.8))
            if begun.process.poll() is None:
                kill_and_look(project, application, begun)
        older |= {name for name in project.stored() if ".part-" not in name}
        describe(project, application)
        require_recovery(project, application, older)
        describe(project, application, bindir)
    assert file_contents(application.filestore) == files
    with application.connect() as connection:
        assert table_contents(connection) == contents
