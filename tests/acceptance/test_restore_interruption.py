"""SIGTERM and Ctrl-C while a restore changes things: undone, told in the XML, and never exit status 0."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.lab.action_run import REPOSITORY, ActionRun, Begun
from tests.lab.restorelab import PLUGINS, Patient, State
from tests.lab.waiting import await_true

pytestmark = pytest.mark.slow

ARRIVED = "arrived while this step was running"


def require_interrupted(run: ActionRun, step: str, number: signal.Signals = signal.SIGTERM) -> None:
    """Check that a run says which step was interrupted, ran nothing after it, and undid what there was."""
    assert run.status in (1, 2), run.output
    assert (run.failed_step().step, list(run.outcomes())[-1]) == (step, step), run.output
    assert f"{number.name} {ARRIVED}" in run.failed_step().message
    assert len(run.named("undo begins")) == len(run.named("undo ends")) == 1
    assert "THE UNDO FAILED" not in run.output


# Steps, and the seconds after their beginning at which the signal arrives; 0: before their first statement.
MOMENTS = {
    "test_take_lock": 0.01,
    "test_take_safety_backup": 0.3,
    "test_build_side_database": 0.05,  # while the server creates it
    "test_side_database_is_the_backup": 0.05,
    "test_neutralize": 0.0,
    "test_add_files": 0.01,
    "test_stop_services": 0.05,
    "test_swap": 0.02,
    "test_start_services": 0.5,
    "test_application_finds_its_data": 0.01,
    "test_finish": 0.0,
}


@pytest.mark.parametrize("step", MOMENTS)
def test_a_signal_in_any_step_that_changes_something(patient: Patient, before: State, step: str) -> None:
    variables = {"PYTHONPATH": str(REPOSITORY), "HAIL_STEP": step, "HAIL_SECONDS": str(MOMENTS[step])}
    with patient.begin_restore("-p", PLUGINS["hail"], environ=variables) as begun:
        run = begun.finish()
    # On a fast machine short steps are over by then, and the signal arrives in a later one, or between two.
    steps = list(MOMENTS)
    last = list(run.outcomes())[-1]
    assert last in ("test_application_is_healthy", *steps[steps.index(step) :]), run.output
    assert run.status in (1, 2), run.output
    assert "SIGTERM arrived" in run.output
    assert len(run.named("undo begins")) == len(run.named("undo ends")) == 1
    assert "THE UNDO FAILED" not in run.output
    patient.require_old(before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_again_and_again_while_the_load_is_undone(
    patient: Patient, before: State, number: signal.Signals
) -> None:
    with patient.closed_gate(), patient.begin_restore() as begun:
        begun.wait_until(lambda: patient.loaders() != [])
        hail(begun, number)
        run = begun.finish()
    require_interrupted(run, "test_build_side_database", number)
    patient.require_old(before)


def hail(begun: Begun, number: signal.Signals) -> None:
    """Send a signal, and then both kinds again and again until the run has ended."""
    begun.send(number)
    while begun.process.poll() is None:
        time.sleep(0.05)
        begun.send(signal.SIGTERM)
        begun.send(signal.SIGINT)


def at_a_lock(patient: Patient) -> bool:
    return patient.swappers() != []


@pytest.mark.parametrize(
    ("paused", "step"),
    [
        pytest.param("test_add_files", "test_stop_services", id="before the stop"),
        pytest.param("test_stop_services", "test_swap", id="with the names changed"),
        pytest.param("test_application_finds_its_data", "test_finish", id="at the last word"),
    ],
)
def test_a_signal_while_the_server_is_in_the_middle_of_a_statement(
    patient: Patient, before: State, paused: str, step: str
) -> None:
    arguments, variables, folder = patient.pausing(paused)
    with ExitStack() as stack:
        begun = stack.enter_context(patient.begin_restore(*arguments, environ=variables))
        begun.wait_until((folder / "reached").exists)
        with patient.held_comments():
            (folder / "go").touch()
            begun.wait_until(lambda: at_a_lock(patient))
            begun.send(signal.SIGTERM)
            # It is this statement that ends, not the lock that it waits for.
            await_true(lambda: patient.swappers() == [] or begun.process.poll() is not None, "it waits on")
        run = begun.finish()
    require_interrupted(run, step)
    patient.require_old(before)


@pytest.mark.parametrize(
    ("mood", "step", "ready"),
    [
        pytest.param("deaf", "test_stop_services", "stop", id="while a service takes its time to stop"),
        pytest.param("ill on new", "test_application_is_healthy", "health", id="while the application is waited for"),
    ],
)
def test_a_signal_while_something_is_waited_for(
    patient: Patient, before: State, mood: str, step: str, ready: str
) -> None:
    patient.describe(health_timeout=30)
    patient.feel(mood)

    def begun_phase(begun: Begun) -> Callable[[], bool]:
        return lambda: any(one["event"] == "phase begins" and one["phase"] == ready for one in begun.events())

    with patient.begin_restore() as begun:
        begun.wait_until(begun_phase(begun))
        time.sleep(0.3)
        begun.send(signal.SIGTERM)
        run = begun.finish()
    require_interrupted(run, step)
    patient.require_old(before)
