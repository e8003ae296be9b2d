"""The summary: what each target came to."""

from __future__ import annotations

from dataclasses import replace

from opsproof.inspection.objectives import RecoveryPoint, RecoveryTime
from opsproof.inspection.validation import Validated
from opsproof.procedures.backup.procedure import Outcome
from opsproof.procedures.drill.drilled import DrillOutcome
from opsproof.procedures.outage.exchange import Outage
from opsproof.procedures.rollback.rolledback import RollbackOutcome
from opsproof.report import summary

OUTCOME = Outcome(
    id="acme_2024-03-05_01-02-03",
    location="s3://bucket/acme/backups/acme_2024-03-05_01-02-03.zip",
    bytes=4_000_000,
    sha256="a" * 64,
    database_bytes=8_000_000,
    filestore_bytes=2_000_000,
    tables=12,
    rows=3_456,
    files=78,
    phases={"dump": 1.5, "upload": 61.0},
)


def test_a_backup_is_shown_with_size_ratio_content_and_durations() -> None:
    assert list(summary.lines(summary.Results(outcomes={"erp": OUTCOME}))) == [
        "erp: backup acme_2024-03-05_01-02-03 is stored and verified",
        "  location   s3://bucket/acme/backups/acme_2024-03-05_01-02-03.zip",
        "  size       4.0 MB of 10.0 MB (2.5 : 1)",
        "  content    12 tables, 3,456 rows, 78 files",
        f"  SHA-256    {'a' * 64}",
        "  durations  dump 1.5 s, upload 1 min 01 s",
    ]


def test_an_encrypted_and_signed_backup_says_so() -> None:
    sealed = replace(OUTCOME, sealed="encrypted to 2 recipients by age, its manifest is signed")
    told = list(summary.lines(summary.Results(outcomes={"erp": sealed})))
    assert told[4] == "  sealed     encrypted to 2 recipients by age, its manifest is signed"


def test_an_empty_backup_has_no_ratio() -> None:
    results = summary.Results(outcomes={"erp": replace(OUTCOME, bytes=0)})
    assert any(line.endswith("(-)") for line in summary.lines(results))


def test_a_plan_is_shown_only_where_nothing_came_of_it() -> None:
    lines = list(
        summary.lines(
            summary.Results(outcomes={"erp": OUTCOME}, plans={"erp": ["dump it"], "wiki": ["dump it", "store it"]})
        )
    )
    assert lines[-3:] == ["wiki: the plan", "  1. dump it", "  2. store it"]
    assert "erp: the plan" not in lines


def test_nothing_done_and_nothing_planned_says_nothing() -> None:
    assert list(summary.lines(summary.Results())) == []


def test_a_rollback_says_what_went_and_how_to_go_forward_again() -> None:
    outcome = RollbackOutcome(
        kind="schema",
        before=("e51a7f30c9b2",),
        after=(),
        undone={"e51a7f30c9b2": 0.25},
        losses=("table public.orders: 3 rows",),
        safety="acme_2024-03-05_01-02-03",
        safety_sha256="a" * 64,
        parked="acme__before_20240305010203",
        forward=("pytest actions/test_recover.py --undo",),
        outage=Outage(stop=0.2, swap=0.0, start=2.0, healthy=0.1, total=3.0),
        validated=Validated(2, 4, 1),
        unverified=("the schema afterwards",),
        phases={"copy": 0.5},
    )
    assert list(summary.lines(summary.Results(rolled_back={"shop": outcome}, plans={"shop": ["undo it"]}))) == [
        "shop: schema rolled back, from e51a7f30c9b2 to base",
        "  undone     e51a7f30c9b2 in 0.2 s",
        "  lost       table public.orders: 3 rows",
        "  outage     3.0 s: stop 0.2 s, copy, undo and compare 0.7 s, start 2.0 s, healthy 0.1 s",
        "  validated  2 tables, 4 relations, 1 queries",
        "  before     acme__before_20240305010203; safety backup acme_2024-03-05_01-02-03",
        "  unverified the schema afterwards",
        "  forward    pytest actions/test_recover.py --undo",
        "  durations  copy 0.5 s",
    ]


def test_a_rollback_of_data_names_the_backup_and_what_was_dropped_in_place() -> None:
    outcome = RollbackOutcome(
        kind="data",
        before=(),
        after=(),
        undone={},
        losses=(),
        safety="acme_2024-03-05_01-02-03",
        safety_sha256="a" * 64,
        parked="",
        forward=(),
        outage=Outage(stop=0.2, swap=0.5, start=2.0, healthy=0.1, total=3.0),
        validated=Validated(2, 4, 1),
        unverified=(),
        phases={},
        backup="s3://bucket/acme/backups/acme_2024-03-04_01-02-03.zip",
    )
    told = list(summary.lines(summary.Results(rolled_back={"shop": outcome})))
    assert told[1] == "  backup     s3://bucket/acme/backups/acme_2024-03-04_01-02-03.zip"
    assert "  before     dropped; safety backup acme_2024-03-05_01-02-03" in told


def test_what_a_cleanup_or_a_recovery_did_is_told() -> None:
    results = summary.Results(
        recovered={"erp": ("swapped back",)},
        cleaned={"shop": ("3 backups removed", "1.0 GB")},
        plans={"erp": ["swap back"]},
    )
    assert list(summary.lines(results)) == [
        "erp: recovered",
        "  swapped back",
        "shop: cleaned up",
        "  3 backups removed",
        "  1.0 GB",
    ]


def test_a_drill_answers_two_questions_and_tells_its_times() -> None:
    outcome = DrillOutcome(
        backup="acme_2024-03-05_01-02-03",
        location="s3://bucket/acme/backups/acme_2024-03-05_01-02-03.zip",
        source="prod/erp",
        restore="passed",
        validation="failed",
        why="The drill misses its objectives",
        rto=RecoveryTime(60.0, 61.5, {"download": 4.0, "load": 40.0}),
        rpo=RecoveryPoint(None, 3_600.0, 7_200.0, 86_400.0 * 30, 12),
        tables=12,
        rows_total=3_456,
        files=78,
        rows={},
        checks=("3 tables, 9 relations, 0 queries hold",),
        unverified=("the application: not started",),
        identity="",
        phases={"load": 40.0},
    )
    assert not outcome.has_passed
    told = list(summary.lines(summary.Results(drilled={"erp": outcome}, plans={"erp": ["restore it"]})))
    assert told == [
        "erp: the drill of acme_2024-03-05_01-02-03 did not pass: The drill misses its objectives",
        "  location   s3://bucket/acme/backups/acme_2024-03-05_01-02-03.zip",
        "  restore    passed: 12 tables, 3,456 rows, 78 files",
        "  validation failed",
        "             3 tables, 9 relations, 0 queries hold",
        "  RTO        1 min 02 s of 1 min 00 s; longest: load 40.0 s",
        "  RPO        1 h 00 min; widest gap in 30 days 2 h 00 min",
        "  unverified the application: not started",
        "  durations  load 40.0 s",
    ]
