"""Bytes, durations and progress as people read them."""

from __future__ import annotations

import pytest

from opsproof.journal import Progress
from opsproof.report.quantities import progress_line, show_bytes, show_seconds


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.0 kB"),
        (12_345_678, "12.3 MB"),
        (999_960, "1.0 MB"),
        (5_000_000_000, "5.0 GB"),
        (5_000_000_000_000_000, "5000.0 TB"),
    ],
)
def test_bytes(count: int, shown: str) -> None:
    assert show_bytes(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.0 s"),
        (59.9, "59.9 s"),
        (59.97, "1 min 00 s"),
        (60, "1 min 00 s"),
        (3_599.4, "59 min 59 s"),
        (3_599.6, "1 h 00 min"),
        (90_061, "25 h 01 min"),
    ],
)
def test_seconds(seconds: float, shown: str) -> None:
    assert show_seconds(seconds) == shown


def test_a_progress_line_has_amount_total_rate_and_what_is_being_done() -> None:
    progress = Progress("dump", "pg_dump", 50_000_000, 200_000_000, 2.0)
    assert progress_line(progress) == "dump: 50.0 MB of about 200.0 MB at 25.0 MB/s (pg_dump)"


def test_a_total_or_a_rate_that_nobody_knows_is_left_out() -> None:
    assert progress_line(Progress("upload", "x.zip", 10, None, 0.1)) == "upload: 10 B (x.zip)"
