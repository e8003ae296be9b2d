"""Several targets side by side, `actions/test_backup.py -n N`: what fails, hangs or is killed is one target's."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsproof.chain import verify_chain
from tests.lab.client_programs import WAITS_MIDWAY
from tests.lab.fleets import Fleet, fleet_of, require_in_order, worker_with
from tests.lab.postgres_server import PostgresServer

STEPS = 14

RUN_EVENTS = ("run begins", "run ends")


@pytest.fixture
def fleet(wheel_postgres: PostgresServer, tmp_path: Path) -> Iterator[Fleet]:
    """Four targets."""
    with fleet_of(4, wheel_postgres, tmp_path / "project") as fleet:
        yield fleet


def require_one_failed_one_hung(fleet: Fleet, workers: int, failed: str, hung: str) -> None:
    """Run a fleet of which one target has no database and one a pg_dump that never ends; check all that is told."""
    _, never_ends = fleet.hang(hung)
    fleet.describe(**{failed: fleet.missing(), hung: never_ends})
    run = fleet.project.run("-n", str(workers), "--step-timeout=3")
    done = [target for target in fleet.targets if target not in (failed, hung)]
    assert run.status == 1, run.output
    assert len(list(fleet.project.folder.glob("run-*.xml"))) == 1
    assert len(run.cases) == STEPS * len(fleet.targets)
    require_in_order(run, fleet.targets)
    for target in done:
        assert set(run.outcomes(target).values()) == {"passed"}, run.output
        properties = run.case("test_publish_manifest", target).properties
        assert properties["backup_location"].startswith(str(fleet.folder(target)))
        assert f"{target}: backup {properties['backup_id']} is stored and verified" in run.output
        assert fleet.stored(target) == 2
    assert run.failed_step(failed).step == "test_database_exists"
    assert "no_such_database" in run.failed_step(failed).message
    message = run.failed_step(hung).message
    assert run.failed_step(hung).step == "test_dump_database"
    assert f"test_dump_database of {hung} took longer than it may" in message
    assert "at most 3 s" in message
    assert "--step-timeout=SECONDS" in message
    assert list(run.outcomes(hung).values())[-1] == "skipped"
    assert fleet.stored(failed) == fleet.stored(hung) == 0
    assert f"{len(done)} of {len(fleet.targets)} came to their end" in run.output
    assert f"  {hung}: step test_dump_database did not pass" in run.output
    require_one_logbook(fleet, run.log, run.events)
    assert {event["target"] for event in run.named("undo ends")} == set(fleet.targets)
    assert fleet.project.processes() == []
    assert fleet.sessions() == 0


def require_one_logbook(fleet: Fleet, log: str, events: tuple[dict[str, object], ...]) -> None:
    """Check that one journal and one log tell of all targets, each line of which."""
    assert sorted(path.suffix for path in fleet.project.logs.iterdir()) == [".jsonl", ".log"]
    assert {path.stat().st_mode & 0o777 for path in fleet.project.logs.iterdir()} == {0o600}
    assert [event["event"] for event in events].count("run begins") == 1
    assert all(event.get("target") in fleet.targets for event in events if event["event"] not in RUN_EVENTS)
    (journal,) = fleet.project.logs.glob("*.jsonl")
    assert verify_chain(journal.read_bytes()).faults == ()
    begun = tuple(f"[{target}] " for target in fleet.targets)
    assert all(line.startswith(begun) for line in log.splitlines())
    assert {line.partition("]")[0][1:] for line in log.splitlines()} == set(fleet.targets)


def test_one_that_fails_and_one_that_hangs_do_not_hold_up_the_others(fleet: Fleet) -> None:
    require_one_failed_one_hung(fleet, workers=2, failed="t1", hung="t0")


@pytest.mark.slow
def test_ten_targets_in_four_workers_one_failed_and_one_hung(wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    with fleet_of(10, wheel_postgres, tmp_path / "project") as fleet:
        require_one_failed_one_hung(fleet, workers=4, failed="t3", hung="t6")


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_undoes_every_target_that_has_begun(fleet: Fleet, number: signal.Signals) -> None:
    # They do not heed SIGTERM, so that the undo takes its time, and is not cut short by the end of the run.
    waiting = {target: fleet.hang(target, f"trap '' TERM\n{WAITS_MIDWAY}") for target in fleet.targets}
    fleet.describe(**{target: settings for target, (_, settings) in waiting.items()})
    with fleet.project.begin("-n", "2") as begun:
        begun.wait_until(lambda: sum((folder / "reached").exists() for folder, _ in waiting.values()) == 2)
        begun.send(number)
        time.sleep(0.3)
        begun.send(number)
        run = begun.finish()
    assert run.status in (1, 2), run.output
    assert f"{number.name}: interrupts" in run.output
    assert f"{number.name}: undo is at work; it is not cut short" in run.output
    targets = {case.target for case in run.cases}
    assert len(targets) == 2, "nothing was begun any more"
    for target in targets:
        assert run.failed_step(target).step == "test_dump_database"
        assert "arrived while this step was running" in run.failed_step(target).message
        assert list(run.outcomes(target))[-1] == "test_dump_database"
    assert sorted(event["target"] for event in run.named("undo ends")) == sorted(targets)
    assert "0 of 4 came to their end" in run.output
    assert run.output.count("it was not begun") == 2
    assert sorted(event["message"] for event in run.named("warning")) == sorted(
        f"{target} was not begun" for target in set(fleet.targets) - targets
    )
    assert fleet.project.stored() == []
    assert fleet.project.processes() == []
    assert fleet.sessions() == 0


def test_a_worker_that_is_killed_fails_its_target_alone_which_is_never_begun_again(fleet: Fleet) -> None:
    folder, waits = fleet.hang("t0", WAITS_MIDWAY)
    fleet.describe(t0=waits)
    with fleet.project.begin("-n", "2") as begun:
        begun.wait_until((folder / "reached").exists)
        os.kill(worker_with(begun.process.pid, str(folder)), signal.SIGKILL)
        run = begun.finish()
        (folder / "go").touch()
    assert run.status == 1, run.output
    require_in_order(run, fleet.targets[1:])
    for target in fleet.targets[1:]:
        assert set(run.outcomes(target).values()) == {"passed"}, run.output
        assert fleet.stored(target) == 2
    assert list(run.outcomes("t0").values()) == ["passed"] * 6 + ["failed"] + ["skipped"] * 7
    message = run.failed_step("t0").message
    assert "The worker of test_dump_database of t0 ended in the middle of it" in message
    assert "nothing is begun again" in message
    steps = [event["step"] for event in run.named("step") if event["target"] == "t0"]
    assert len(steps) == len(set(steps)) == 7
    assert "3 of 4 came to their end" in run.output
    require_one_logbook(fleet, run.log, run.events)
    assert "  t0: step test_dump_database did not pass" in run.output
    fleet.describe()
    again = fleet.project.run("--target=t0")
    assert again.status == 0, again.output


@pytest.mark.parametrize("how", ["inventory", "option"])
def test_a_step_that_takes_too_long_is_interrupted_without_workers_too(fleet: Fleet, how: str) -> None:
    _, never_ends = fleet.hang("t0")
    fleet.describe(t0={**never_ends, "step_timeout": 1.5 if how == "inventory" else 3600})
    said = ["--step-timeout=1.5"] if how == "option" else []
    run = fleet.project.run(*said, "--target=t0", "--target=t1")
    assert run.status == 1, run.output
    assert "test_dump_database of t0 took longer than it may" in run.failed_step("t0").message
    assert "still at work after 1.5 s" in run.failed_step("t0").message
    assert set(run.outcomes("t1").values()) == {"passed"}
    assert fleet.project.litter() == []
    assert fleet.stored("t0") == 0


def test_a_dry_run_of_a_fleet_prints_every_plan_and_changes_nothing(fleet: Fleet) -> None:
    run = fleet.project.run("-n", "2", "--dry-run")
    assert run.status == 0, run.output
    assert [run.output.count(f"{target}: the plan") for target in fleet.targets] == [1] * 4
    assert "4 of 4 came to their end" in run.output
    assert fleet.project.stored() == []


def test_the_list_of_targets_feeds_a_matrix(fleet: Fleet) -> None:
    command = fleet.project.command("--list-targets", "--json")
    listed = subprocess.run(
        command, cwd=fleet.project.folder, env=fleet.project.environ, stdout=subprocess.PIPE, check=True, timeout=60
    )
    # As `jq -c '[.targets[].target]'` of docs/how-to/fleets.md has it.
    assert [one["target"] for one in json.loads(listed.stdout)["targets"]] == fleet.targets
