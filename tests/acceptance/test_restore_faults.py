"""When a restore fails, whatever the reason: an error that says what to do, and the old state at work, untouched."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.lab.action_run import require_failure
from tests.lab.restored import TARGET
from tests.lab.restorelab import Patient, State, recover

pytestmark = pytest.mark.slow

BUILD = "test_build_side_database"


def clients(patient: Patient, program: str) -> list[int]:
    """Return the processes of a client program of this patient's runs, the leader first."""
    mark = f"TMPDIR={patient.own.project.temporary}\0".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
            if words[0].endswith(f"/{program}".encode()) and mark in (process / "environ").read_bytes() + b"\0":
                found.append(int(process.name))
        except OSError:
            continue
    return sorted(found)


def kill_leader(patient: Patient, program: str) -> None:
    os.kill(clients(patient, program)[0], signal.SIGKILL)


def kill_worker(patient: Patient, program: str) -> None:
    os.kill(clients(patient, program)[-1], signal.SIGKILL)


def end_sessions(patient: Patient, program: str) -> None:
    del program
    patient.terminate(patient.loaders())


@pytest.mark.parametrize(
    ("program", "harm", "words"),
    [
        pytest.param("pg_restore", kill_leader, ["pg_restore was killed by signal 9"], id="pg_restore killed"),
        pytest.param(
            "pg_restore", kill_worker, ["pg_restore", "exit status 1", "worker process"], id="its worker killed"
        ),
        pytest.param("pg_restore", end_sessions, ["pg_restore", "terminating connection"], id="its session ended"),
        pytest.param("psql", kill_leader, ["psql was killed by signal 9"], id="psql killed"),
        pytest.param("psql", end_sessions, ["psql", "terminating connection"], id="psql's session ended"),
    ],
)
def test_a_load_that_is_cut_short(
    patient: Patient,
    before: State,
    tmp_path: Path,
    program: str,
    harm: Callable[[Patient, str], None],
    words: list[str],
) -> None:
    arguments = []
    if program == "psql":
        path = tmp_path / "shop.sql"
        path.write_bytes(patient.read(patient.own.backup.manifest.sql.path))
        arguments = [f"--backup={path}"]
    with patient.closed_gate() as open_gate, patient.begin_restore(*arguments) as begun:
        begun.wait_until(lambda: patient.loaders() != [])
        harm(patient, program)
        open_gate()
        run = begun.finish()
    require_failure(run, BUILD, *words, "the live database is as it was")
    patient.require_old(before)


def test_the_session_of_the_swap_is_ended_in_the_middle_of_it(patient: Patient, before: State) -> None:
    arguments, variables, folder = patient.pausing("test_stop_services")
    with patient.begin_restore(*arguments, environ=variables) as begun:
        begun.wait_until((folder / "reached").exists)
        with patient.held_comments():
            (folder / "go").touch()
            begun.wait_until(lambda: patient.swappers() != [])
            patient.terminate(patient.swappers())
        run = begun.finish()
    require_failure(run, "test_swap", "terminating connection", "nothing was changed")
    patient.require_old(before)


def test_a_service_that_refuses_the_restored_data(patient: Patient, before: State) -> None:
    patient.feel("refuses new")
    run = patient.own.restore()
    require_failure(run, "test_start_services", "did not start", "this data is not to my taste", "supervisorctl")
    assert f"undone: {patient.name!r} is the database of before again" in run.log
    patient.require_old(before)


def test_an_application_that_is_ill_with_the_restored_data(patient: Patient, before: State) -> None:
    patient.feel("ill on new")
    run = patient.own.restore()
    require_failure(run, "test_application_is_healthy", "HTTP 500", "curl -i")
    assert f"undone: {patient.service.url} answers" in run.log
    patient.require_old(before)


def test_an_undo_that_fails_says_the_commands_that_mend_it(patient: Patient, before: State) -> None:
    patient.feel("never starts")
    run = patient.own.restore()
    assert run.status == 1, run.output
    assert run.failed_step().step == "test_start_services"
    verdict = next(case.message for case in run.cases if "THE UNDO FAILED" in case.message)
    assert "this data is not to my taste" in verdict
    assert f"{patient.name!r} holds the old data" in verdict

    # The names were swapped back all the same.
    now = patient.look()
    assert (now.oid, now.contents, now.properties) == (before.oid, before.contents, before.properties)
    assert not patient.is_running()

    # While it is broken, nothing else begins.
    again = patient.own.restore()
    require_failure(again, "test_nothing_is_unfinished", "was not brought to its end", "test_recover.py")

    patient.feel("well")
    lines = [line.strip() for line in verdict.splitlines()]
    (start,) = {line for line in lines if line.startswith("supervisorctl")}
    subprocess.run(shlex.split(start), check=True, timeout=30, stdout=subprocess.DEVNULL)
    assert any("test_recover.py" in line and f"--target={TARGET}" in line for line in lines)
    recover(patient)
    patient.require_old(before)


def test_recover_alone_mends_a_failed_undo(patient: Patient, before: State) -> None:
    patient.feel("never starts")
    assert patient.own.restore().status == 1
    stuck = patient.own.recover()
    assert stuck.status == 1
    assert "did not start" in stuck.output
    patient.feel("well")
    recover(patient)
    patient.require_old(before)
