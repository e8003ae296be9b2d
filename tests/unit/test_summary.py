"""The summary: what each target came to."""

from __future__ import annotations

from dataclasses import replace

from opsproof.procedures.backup import Outcome
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
    assert list(summary.lines({"erp": OUTCOME}, {}, {}, {}, {})) == [
        "erp: backup acme_2024-03-05_01-02-03 is stored and verified",
        "  location   s3://bucket/acme/backups/acme_2024-03-05_01-02-03.zip",
        "  size       4.0 MB of 10.0 MB (2.5 : 1)",
        "  content    12 tables, 3,456 rows, 78 files",
        f"  SHA-256    {'a' * 64}",
        "  durations  dump 1.5 s, upload 1 min 01 s",
    ]


def test_an_empty_backup_has_no_ratio() -> None:
    assert any(line.endswith("(-)") for line in summary.lines({"erp": replace(OUTCOME, bytes=0)}, {}, {}, {}, {}))


def test_a_plan_is_shown_only_where_nothing_came_of_it() -> None:
    lines = list(summary.lines({"erp": OUTCOME}, {}, {}, {}, {"erp": ["dump it"], "wiki": ["dump it", "store it"]}))
    assert lines[-3:] == ["wiki: the plan", "  1. dump it", "  2. store it"]
    assert "erp: the plan" not in lines


def test_nothing_done_and_nothing_planned_says_nothing() -> None:
    assert list(summary.lines({}, {}, {}, {}, {})) == []
