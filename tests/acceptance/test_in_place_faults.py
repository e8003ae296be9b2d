"""`--in-place` drops the live database first: whatever fails then, it is built anew from the safety backup."""

from __future__ import annotations

import pytest

from tests.lab.action_run import require_failure
from tests.lab.restorelab import Patient, State, recover

pytestmark = pytest.mark.slow

IN_PLACE = "--in-place"


def require_built_anew(patient: Patient, before: State) -> None:
    patient.require_old(before, same_database=False)


def test_a_load_that_fails_after_the_drop(patient: Patient, before: State) -> None:
    with patient.closed_gate() as open_gate, patient.begin_restore(IN_PLACE) as begun:
        begun.wait_until(lambda: patient.loaders() != [])
        assert list(patient.own.databases()) == [name for name in patient.own.databases() if "__side_" in name]
        assert not patient.is_running()
        patient.terminate(patient.loaders())
        open_gate()
        run = begun.finish()
    require_failure(run, "test_build_side_database", "terminating connection")
    assert "is built anew from" in run.log
    require_built_anew(patient, before)


def test_an_application_that_is_ill_with_the_restored_data(patient: Patient, before: State) -> None:
    patient.feel("ill on new")
    run = patient.own.restore(IN_PLACE)
    require_failure(run, "test_application_is_healthy", "HTTP 500")
    require_built_anew(patient, before)


def test_a_drop_that_is_refused_leaves_the_very_database(patient: Patient, before: State) -> None:
    # The preflight does not see what comes later.
    arguments, variables, folder = patient.pausing("test_take_safety_backup")
    with patient.begin_restore(IN_PLACE, *arguments, environ=variables) as begun:
        begun.wait_until((folder / "reached").exists)
        with patient.server.connect(patient.name) as connection:
            connection.execute("SELECT 'a superuser, whose session the role may not end'")
            (folder / "go").touch()
            run = begun.finish()
    require_failure(run, "test_build_side_database", f"Database {patient.name!r} cannot be dropped")
    patient.require_old(before)


@pytest.mark.parametrize("step", ["after the drop", "after the swap"])
def test_a_run_that_is_killed_is_recovered_from_its_safety_backup(patient: Patient, before: State, step: str) -> None:
    if step == "after the drop":
        with patient.closed_gate(), patient.begin_restore(IN_PLACE) as begun:
            begun.wait_until(lambda: patient.loaders() != [])
            patient.kill(begun)
    else:
        arguments, variables, folder = patient.pausing("test_swap")
        with patient.begin_restore(IN_PLACE, *arguments, environ=variables) as begun:
            begun.wait_until((folder / "reached").exists)
            patient.kill(begun)
        patient.feel("ill on new")
    again = patient.own.restore()
    require_failure(again, "test_nothing_is_unfinished", "test_recover.py")
    run = recover(patient)
    assert "is built anew from the safety backup" in run.output
    require_built_anew(patient, before)


def test_a_recovery_that_is_killed_in_its_turn_can_be_repeated(patient: Patient, before: State) -> None:
    with patient.closed_gate() as open_gate:
        with patient.begin_restore(IN_PLACE) as begun:
            begun.wait_until(lambda: patient.loaders() != [])
            patient.kill(begun)
        for _ in range(2):
            older = patient.loaders()
            with patient.begin_recover() as begun:
                begun.wait_until(lambda older=older: set(patient.loaders()) - set(older) != set())
                patient.kill(begun)
            assert not set(patient.loaders()) & set(older), "what the killed run was at was ended"
        open_gate()
    recover(patient)
    require_built_anew(patient, before)
