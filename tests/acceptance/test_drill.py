"""`pytest actions/test_drill.py`: what a drill of a good backup proves, and that nobody who is served notices it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import actions.test_drill
from opsproof.chain import verify_chain
from tests.lab.action_run import ActionRun
from tests.lab.drilling import DRILL, STAGING, DrillGround
from tests.lab.migrated import migrated
from tests.lab.postgres_server import PostgresServer
from tests.lab.trialserver import TRACE

pytest_plugins = ["tests.lab.drilling"]

STEPS = [name for name in vars(actions.test_drill.TestDrill) if name.startswith("test_")]


def outcome_of(run: ActionRun) -> dict[str, Any]:
    """Return what the journal says that a drill came to."""
    (event,) = run.named("drill finished")
    outcome: dict[str, Any] = event["outcome"]
    return outcome


def test_a_good_backup_passes_and_nobody_notices(ground: DrillGround) -> None:
    ground.describe(**ground.starting("well"), objectives={"rto": "1h", "rpo": "1h"})
    before = ground.look()

    run = ground.drill("--random=1d")

    assert run.status == 0, run.output
    assert run.outcomes() == dict.fromkeys(STEPS, "passed")
    ground.require_untouched(before)
    ground.require_nothing_left()
    outcome = outcome_of(run)
    assert (outcome["restore"], outcome["validation"]) == ("passed", "passed")
    assert (outcome["backup"], outcome["source"]) == (ground.backup.id, "prod/erp")
    assert outcome["rows"]["public.mail_message"] == [4000, 4000]
    assert outcome["files"] == 14
    assert "neutralized by the built-in statements" in outcome["identity"]
    # What the application's role may not do is told, and is all that is.
    assert [one.partition(":")[0] for one in outcome["unverified"]] == ["amcheck"]
    assert any("the application answers on the copy" in one for one in outcome["checks"])
    phases = {"download", "verify", "load", "prove", "neutralize", "files", "checks", "application"}
    assert phases <= outcome["rto"]["phases"].keys()
    assert 0 < sum(outcome["rto"]["phases"].values()) <= outcome["rto"]["measured"] < 60
    assert 0 < outcome["rpo"]["age"] == outcome["rpo"]["widest_gap"] < 600
    properties = run.case("test_objectives_are_met").properties
    assert float(properties["rto_seconds"]) == pytest.approx(outcome["rto"]["measured"], abs=0.1)
    assert {"rpo_seconds", "widest_gap_seconds"} <= properties.keys()
    assert "scheduled actions 2" in run.case("test_neutralize").properties["identity"]
    assert "the application answers on the copy" in run.case("test_application_starts").properties["application"]
    # It wrote into what it was given, which was the copy.
    assert TRACE not in repr(ground.look())
    require_evidence(ground, run)


def require_evidence(ground: DrillGround, run: ActionRun) -> None:
    """Check that the journal beside staging's own backups is whole up to the head in the JUnit XML."""
    (stored,) = (Path(str(ground.staging["backup_dir"])) / "journals").iterdir()
    (head,) = re.findall(r'name="opsproof_journal_head" value="([^"]*)"', run.xml)
    assert verify_chain(stored.read_bytes(), head).faults == ()
    told = [json.loads(line)["event"] for line in stored.read_bytes().splitlines()]
    assert told == [one["event"] for one in run.events]


def test_missed_objectives_name_the_phase_that_cost_most(ground: DrillGround) -> None:
    ground.describe(objectives={"rto": "0.01s"}, production={"objectives": {"rpo": "0.5s"}})
    first = ground.drill()
    case = first.failed_step()
    assert (first.status, case.step) == (1, "test_objectives_are_met"), first.output
    outcome = outcome_of(first)
    phase = max(outcome["rto"]["phases"], key=outcome["rto"]["phases"].__getitem__)
    for words in (
        "RTO: restored and checked within",
        f"; {phase} took ",
        "RPO: its snapshot is",
        "between two verified",
    ):
        assert words in case.message, case.message
    assert (outcome["restore"], outcome["validation"]) == ("passed", "failed")
    assert first.named("drill history")[0]["history"] == []
    ground.require_nothing_left()

    # The next one tells of it, and so do the checks; its time is a number for Prometheus.
    metrics = ground.project.folder / "drill.prom"
    ground.describe(objectives={"rto": "1h"})
    second = ground.drill(f"--metrics-file={metrics}", "--backup", ground.backup.id)
    assert second.status == 0, second.output
    (earlier,) = second.named("drill history")[0]["history"]
    assert (earlier["verdict"], earlier["rto"], earlier["rpo_age"]) == (
        "failed", outcome["rto"]["measured"], outcome["rpo"]["age"],
    )  # fmt: skip
    measured = outcome_of(second)["rto"]["measured"]
    lines = [line for line in metrics.read_text().splitlines() if line.startswith("opsproof_rto_seconds")]
    assert f'opsproof_rto_seconds{{environment="staging",kind="measured",target="shop"}} {measured}' in lines
    for rto, wanted in (("1h", "passed"), ("0.01s", "failed")):
        ground.describe(objectives={"rto": rto})
        looked = ground.project.run(action="checks/test_backups.py", env=STAGING)
        case = looked.case("test_restore_is_fast_enough")
        assert case.outcome == wanted, looked.output
    assert "The last drill's restore took" in case.message


def test_a_dry_run_tells_the_plan_and_is_no_drill(ground: DrillGround) -> None:
    ground.describe(**ground.starting("well"))
    before = ground.look()
    run = ground.drill("--dry-run")
    assert run.status == 0, run.output
    assert "rehearse a restore of" in run.output
    assert "neutralize it before anybody sees it, as the backup is one of prod/erp" in run.output
    assert run.named("drill finished") == []
    assert not Path(str(ground.staging["backup_dir"])).exists()
    ground.require_untouched(before)
    ground.require_nothing_left()


def test_a_rollback_is_rehearsed_on_the_neutralized_copy(wheel_postgres: PostgresServer) -> None:
    """This application has no files, and what made the copy harmless is no loss of the downgrade's."""
    with migrated(wheel_postgres, neutralize="UPDATE customers SET name = 'nobody'") as app:
        app.back_up()
        before, heads = app.contents(), app.heads()
        run = app.project.run("--to-revision=total_01", action=DRILL, env=STAGING)
        assert run.status == 0, run.output
        assert run.outcomes() == dict.fromkeys(STEPS, "passed")
        assert "rolled back by 2 revisions to total_01" in outcome_of(run)["checks"]
        assert "neutralized by the inventory's statements" in outcome_of(run)["identity"]
        lossy = app.project.run("--to-revision=orders_01", action=DRILL, env=STAGING)
        assert lossy.failed_step().step == "test_schema_rolls_back", lossy.output
        assert "orders.total" in lossy.failed_step().message
        assert (outcome_of(lossy)["restore"], outcome_of(lossy)["validation"]) == ("passed", "failed")
        assert (app.contents(), app.heads(), app.databases()) == (before, heads, [])
        assert app.project.litter() == []
