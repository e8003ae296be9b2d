"""The story of a run, read from its journal."""

from __future__ import annotations

import json

import pytest

from opsproof.journal import Journal, Redactor
from opsproof.report.reading import read_story
from opsproof.report.story import Phase, Rows, Story, TargetStory
from tests.lab.journals import BEGAN, JournalLines, drill

STEPS = {"test_look": "It looks.", "test_change": "It changes."}


def only(story: Story) -> TargetStory:
    (target,) = story.targets
    return target


def passed() -> JournalLines:
    journal = JournalLines()
    journal.begin("restore", steps=STEPS)
    journal.step(1, "test_look")
    journal.step(2, "test_change")
    journal.end(3)
    return journal


def test_a_run_that_passed() -> None:
    story = read_story(passed().lines)
    assert (story.action, story.environment, story.verdict, story.seconds) == ("restore", "staging", "passed", 3.0)
    assert (story.began, story.is_dry, story.is_cut_off) == (BEGAN, False, False)
    target = only(story)
    assert (target.name, target.procedure, target.verdict, target.reason) == ("erp", "TestDrill", "passed", "")
    assert [(one.name, one.sentence, one.outcome, one.seconds) for one in target.steps] == [
        ("test_look", "It looks.", "passed", 0.5),
        ("test_change", "It changes.", "passed", 0.5),
    ]
    assert target.phases == ()  # an undo that had nothing to undo is none


def test_a_step_that_failed_fails_its_target_and_says_why() -> None:
    journal = JournalLines()
    journal.begin(steps=STEPS)
    journal.step(1, "test_look", "failed", error="There is no room\n  hint: df")
    journal.step(1, "test_change", "skipped", when="setup")
    journal.end(2, status=1)
    target = only(read_story(journal.lines))
    assert (target.verdict, target.reason) == ("failed", "There is no room")
    assert [one.error for one in target.failures] == ["There is no room\n  hint: df"]
    assert [one.name for one in target.phases] == ["undo"]


def test_an_undo_that_failed_breaks_its_target_though_every_step_passed() -> None:
    journal = JournalLines()
    journal.begin(steps=STEPS)
    journal.step(1, "test_look")
    journal.step(2, "test_change")
    journal.step(2, "test_change", "failed", when="teardown", error="the undo failed")
    journal.end(3, status=1)
    story = read_story(journal.lines)
    assert (story.verdict, only(story).reason) == ("broken", "teardown of change failed: the undo failed")


def test_a_dry_run_is_planned_and_a_check_in_one_passed() -> None:
    journal = JournalLines()
    journal.begin(dry_run=True, steps=STEPS)
    journal.step(1, "test_look")
    journal.step(1, "test_change", "skipped", when="setup")
    journal.add(2, "plan", lines=["look", "change"])
    journal.end(2)
    target = only(read_story(journal.lines))
    assert (target.verdict, target.plan) == ("planned", ("look", "change"))
    checks = JournalLines()
    checks.begin("service", dry_run=True)
    checks.add(1, "check", check="test_services_run", outcome="passed")
    checks.end(2)
    assert only(read_story(checks.lines)).verdict == "passed"


@pytest.mark.parametrize("outcomes", [[], ["skipped"], ["skipped", "skipped"]])
def test_nothing_confirmed_never_passed(outcomes: list[str]) -> None:
    journal = JournalLines()
    journal.begin("service")
    journal.add(1, "warning", message="slow")
    for outcome in outcomes:
        journal.add(1, "check", check="test_services_run", outcome=outcome)
    journal.end(2)
    assert (read_story(journal.lines).verdict, only(read_story(journal.lines)).reason) == (
        "broken",
        "nothing was confirmed",
    )


@pytest.mark.parametrize("status", [1, 2, 3])
def test_a_run_that_pytest_says_went_wrong_never_passed(status: int) -> None:
    """A signal between two targets: the first one passed, and nobody has begun the second."""
    journal = passed()
    journal.lines.pop()
    journal.add(3, "run ends", target=None, exit_status=status)
    assert (read_story(journal.lines).verdict, only(read_story(journal.lines)).verdict) == ("broken", "passed")
    assert read_story(passed().lines, status=status).verdict == "broken"


def test_a_journal_without_anything_is_broken() -> None:
    assert read_story([]).verdict == "broken"
    assert read_story([], has_ended=True).verdict == "broken"


@pytest.mark.parametrize("kept", range(1, len(passed().lines)))
def test_a_journal_cut_off_anywhere_never_passed(kept: int) -> None:
    """Whatever line it ends with, and in the middle of the next one."""
    lines = passed().lines
    for rest in ("", lines[kept][: len(lines[kept]) // 2]):
        story = read_story([*lines[:kept], rest])
        assert (story.is_cut_off, story.verdict) == (True, "broken")
        # A target whose last step and undo had been written is told as what it came to.
        is_whole = any('"undo ends"' in line for line in lines[:kept])
        assert [one.verdict for one in story.targets] == ([] if kept == 1 else ["passed" if is_whole else "broken"])


def test_steps_that_were_not_reached_are_named() -> None:
    journal = JournalLines()
    journal.begin(steps=STEPS)
    journal.step(1, "test_look")
    journal.add(2, "phase begins", phase="load")
    journal.add(9, "warning", message="slow")
    target = only(read_story(journal.lines))
    assert [one.outcome for one in target.steps] == ["passed", "not reached"]
    assert target.phases == (Phase("load", (), 2.0, 9.0, "cut off"),)
    assert (target.is_cut_off, target.reason) == (True, "the journal ends in the middle of it")


def test_phases_stand_within_each_other() -> None:
    target = only(read_story(drill().lines))
    told = [(one.name[:8], one.within, one.begin, one.seconds, one.outcome) for one in target.phases]
    assert told == [
        ("download", (), 2.0, 60.0, "done"),
        ("load", (), 62.0, 478.0, "done"),
        ("applicat", (), 541.0, 20.0, "failed"),
        ("start on", ("application",), 545.0, 15.0, "done"),
        ("undo", (), 570.0, 0.0, "done"),
    ]


def test_a_drill_is_told_with_its_objectives_and_rows() -> None:
    target = only(read_story(drill().lines))
    rto, rpo = target.objectives
    assert (rto.measured, rto.objective, rto.is_met, rto.costliest) == (561.5, 1800.0, True, ("load", 478.0))
    # The age alone would do: it is the gap that missed.
    assert (rpo.measured, rpo.worst, rpo.objective, rpo.is_met) == (14_396.0, 86_400.0, 14_400.0, False)
    assert [one.verdict for one in rpo.earlier].count("failed") == 1
    assert [one.time for one in rto.earlier] == sorted(one.time for one in rto.earlier if one.time)
    assert target.rows[:3] == (
        Rows("public.res_partner", 12_044, 12_044),
        Rows("public.sale_order", 88_123, 88_120),
        Rows("public.gone", 1, None),
    )
    assert [one.difference for one in target.rows[:3]] == [0, -3, None]
    assert target.checks[0].sentence == "Each is running."


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [({"restore": "broken"}, "broken"), ({"validation": "broken"}, "broken"), ({"validation": "failed"}, "failed")],
)
def test_a_drill_that_failed_is_not_one_that_broke(changes: dict[str, str], verdict: str) -> None:
    assert only(read_story(drill(**changes).lines)).verdict == verdict


@pytest.mark.parametrize(
    "changes",
    [
        {"rto": None, "rpo": "none", "rows": []},
        {"rto": {}, "rpo": {"age": None}, "rows": {"a": [1], "b": ["x", 2], "c": 7}},
        {"rto": {"measured": float("nan"), "objective": -1, "phases": [1]}, "rpo": {"age": True}},
    ],
)
def test_a_drill_that_says_less_or_nonsense_is_told_without_it(changes: dict[str, object]) -> None:
    target = only(read_story(drill(**changes).lines))
    assert [one.measured for one in target.objectives] == [None] * len(target.objectives)
    assert all(one.is_met is None for one in target.objectives)
    assert not any(one.table in ("a", "b", "c") for one in target.rows)


def test_two_procedures_of_a_target_are_two_stories() -> None:
    journal = JournalLines(procedure="actions.test_backup.TestBackup")
    journal.begin(steps={"test_dump": "It dumps."})
    journal.phase("dump", 1, 2)
    journal.step(2, "test_dump")
    journal.add(2, "undo ends")
    journal.procedure = "actions.test_restore.TestRestore"
    journal.add(3, "procedure begins", procedure=journal.procedure, steps={"test_load": "It loads."})
    journal.phase("load", 3, 4)
    journal.step(4, "test_load", "failed", error="no")
    journal.end(5)
    told = [(one.procedure, one.verdict, [phase.name for phase in one.phases][:1]) for one in
            read_story(journal.lines).targets]  # fmt: skip
    assert told == [("TestBackup", "passed", ["dump"]), ("TestRestore", "failed", ["load"])]


def test_targets_side_by_side_are_kept_apart() -> None:
    journal = JournalLines()
    journal.begin()
    for at, name, event in [(1, "a", "begins"), (1, "b", "begins"), (2, "a", "ends"), (5, "b", "ends")]:
        journal.add(at, f"phase {event}", target=name, phase="dump", **({"outcome": "done"} if event == "ends" else {}))
    for name in "ab":
        journal.step(6, "test_dump", target=name)
    journal.end(7)
    told = {one.name: [phase.seconds for phase in one.phases] for one in read_story(journal.lines).targets[:2]}
    assert told == {"a": [1.0], "b": [4.0]}


def test_secrets_control_characters_and_other_kinds_of_lines_do_no_harm() -> None:
    redactor = Redactor()
    for secret in ("hunter22", "step", "begins"):  # a password may be a word that journals are made of
        redactor.add(secret)
    journal = JournalLines()
    journal.begin(steps=STEPS)
    journal.step(1, "test_look", "failed", error="\x1b[31mhunter22\x1b[0m\x00 \u202eevil \ud800")
    journal.lines += ["null", "[]", "7", '{"event": 7}', '{"no": "event"}', "{" * 100_000, ""]
    journal.add(2, "an event of tomorrow", target={"not": "a name"})
    journal.end(3)
    story = read_story(journal.lines, clean=redactor.clean)
    failed = next(one for one in story.targets if one.name == "erp").failures
    assert [one.error for one in failed] == ["***\ufffd \ufffdevil \ufffd"]
    assert story.warnings == ("a line of the journal cannot be read: it is not told here",)


def test_what_a_check_has_noted_is_told_beside_it() -> None:
    journal = JournalLines()
    journal.begin("database")
    journal.add(1, "check", check="test_size[erp]", noted="bytes", value=7)
    journal.add(1, "check", check="test_size", outcome="passed", seconds=0.1)
    journal.end(2)
    target = only(read_story(journal.lines))
    assert ([one.name for one in target.checks], target.verdict) == (["test_size"], "passed")
    assert [(fact.label, fact.values) for one in target.facts for fact in one.facts] == [("bytes", ("7",))]


def test_what_a_journal_writes_is_what_is_read(tmp_path: object) -> None:
    """With the real writer: times, phases within phases, one that raises."""
    from pathlib import Path

    path = Path(str(tmp_path)) / "j.jsonl"
    journal = Journal(path)
    journal.record("run begins", action="backup", environment="prod", dry_run=False)
    with pytest.raises(KeyError), journal.phase("all", target="erp"):
        with journal.phase("part", target="erp"):
            pass
        raise KeyError
    journal.record("step", target="erp", procedure="P", step="test_a", when="call", outcome="passed", seconds=0.1)
    journal.close()
    target = only(read_story(path.read_text().splitlines(), has_ended=True))
    assert [(one.name, one.within, one.outcome) for one in target.phases] == [
        ("all", (), "failed"),
        ("part", ("all",), "done"),
    ]
    assert json.loads(path.read_text().splitlines()[0])["event"] == "run begins"


def test_a_rollback_to_another_release_is_told_with_its_safety_backup() -> None:
    journal = JournalLines(procedure="actions.test_rollback.TestReleaseRollback")
    journal.begin("rollback", steps={"test_finish": "It says so."})
    journal.add(1, "backup verified", outcome={"id": "shop_1", "location": "s3://b/shop_1.zip"})
    journal.add(2, "release rolled back", outcome={"release": "20260101000000", "previous": "20260102000000"})
    journal.step(2, "test_finish")
    journal.end(3)
    facts = {
        one.title: {fact.label: fact.values for fact in one.facts} for one in only(read_story(journal.lines)).facts
    }
    assert facts["Rolled back"] == {"release": ("20260101000000",), "previous": ("20260102000000",)}
    assert set(facts) == {"Rolled back", "Safety backup"}
