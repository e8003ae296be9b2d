"""The line of a monitoring plugin: OK only where something ran and passed, and never more than one line."""

from __future__ import annotations

import pytest

from opsproof.report.nagios import Session, State, judge


@pytest.mark.parametrize(
    ("session", "state", "text"),
    [
        (Session(0, passed=3), State.OK, "OK - 3 passed | "),
        (Session(0, passed=3, skipped=1), State.OK, "OK - 3 passed, 1 skipped | "),
        (Session(0, passed=3, warnings=1), State.WARNING, "WARNING - 3 passed, 1 warning: see the log | "),
        (Session(1, passed=3, failed=1, complaint="t: no"), State.CRITICAL, "CRITICAL - 1 of 4 failed: t: no | "),
        (Session(1, passed=3), State.CRITICAL, "CRITICAL - 3 passed, but it was not brought to its end | "),
        (Session(1, failed=1, problem="p"), State.CRITICAL, "CRITICAL - 1 of 1 failed:"),
        (Session(0), State.UNKNOWN, "UNKNOWN - nothing was confirmed: none ran | "),
        (Session(1, skipped=5), State.UNKNOWN, "UNKNOWN - nothing was confirmed: none ran, 5 skipped | "),
        (Session(5), State.UNKNOWN, "UNKNOWN - nothing was confirmed"),
        (Session(4, problem="no such environment"), State.UNKNOWN, "UNKNOWN - no such environment | "),
        (Session(2, passed=3), State.UNKNOWN, "UNKNOWN - pytest ended with exit status 2 after 3 had passed | "),
    ],
)
def test_what_a_session_comes_to(session: Session, state: State, text: str) -> None:
    found, line = judge(session)
    assert found is state
    assert line.startswith(text), line


def test_figures_are_performance_data() -> None:
    _, line = judge(Session(0, passed=1, seconds=2.345, figures={"e'r=p bytes": "12B"}))
    assert line == "OK - 1 passed | 'passed'=1 'failed'=0 'skipped'=0 'time'=2.35s 'erp bytes'=12B"


def test_nothing_in_a_message_ends_the_text_or_the_line() -> None:
    _, line = judge(Session(1, failed=1, complaint="a | b\nc\td" + "x" * 1000))
    text, separator, data = line.partition(" | ")
    assert text.startswith("CRITICAL - 1 of 1 failed: a b c d")
    assert text.endswith(" ...")
    assert separator
    assert data.startswith("'passed'=0 'failed'=1")
    assert len(line.splitlines()) == 1
