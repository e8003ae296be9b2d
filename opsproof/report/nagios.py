"""The one line of a monitoring plugin, `OK|WARNING|CRITICAL|UNKNOWN - text | perfdata`, and its exit status."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

MOST_CHARACTERS = 300
# What ends the text, begins another line or another label.
_FORBIDDEN = re.compile(r"[|\s]+")


class State(IntEnum):
    """What monitoring knows; the number is the exit status."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


@dataclass(frozen=True)
class Session:
    """What a session of pytest came to.

    Attributes:
        status: pytest's own exit status.
        passed: How many tests.
        failed: How many, those that failed before they began included.
        skipped: How many.
        warnings: How often the run warned of something.
        complaint: The first failure, in a sentence.
        problem: Why nothing could be run or collected; empty where it could.
        seconds: How long it took.
        figures: Further performance data: label -> value with its unit.
    """

    status: int
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    warnings: int = 0
    complaint: str = ""
    problem: str = ""
    seconds: float = 0.0
    figures: Mapping[str, str] = field(default_factory=dict)


def judge(session: Session) -> tuple[State, str]:
    """Return the state, and the line that says it.

    OK is said only where something ran and passed, and nothing failed.
    """
    state, text = _judge(session)
    counted = {
        "passed": str(session.passed),
        "failed": str(session.failed),
        "skipped": str(session.skipped),
        "time": f"{session.seconds:.2f}s",
    }
    data = " ".join(f"'{_label(label)}'={value}" for label, value in {**counted, **session.figures}.items())
    clean = _FORBIDDEN.sub(" ", text).strip()
    if len(clean) > MOST_CHARACTERS:
        clean = f"{clean[: MOST_CHARACTERS - 4]} ..."
    return state, f"{state.name} - {clean} | {data}"


def _judge(session: Session) -> tuple[State, str]:
    ran = session.passed + session.failed
    if session.failed:
        return State.CRITICAL, f"{session.failed} of {ran} failed: {session.complaint}"
    if session.problem:
        return State.UNKNOWN, session.problem
    if not session.passed:
        skipped = f", {session.skipped} skipped" if session.skipped else ""
        return State.UNKNOWN, f"nothing was confirmed: none ran{skipped}"
    if session.status == 1:
        return State.CRITICAL, f"{session.passed} passed, but it was not brought to its end"
    if session.status != 0:
        return State.UNKNOWN, f"pytest ended with exit status {session.status} after {session.passed} had passed"
    rest = f", {session.skipped} skipped" if session.skipped else ""
    if session.warnings:
        warned = "1 warning" if session.warnings == 1 else f"{session.warnings} warnings"
        return State.WARNING, f"{session.passed} passed{rest}, {warned}: see the log"
    return State.OK, f"{session.passed} passed{rest}"


def _label(text: str) -> str:
    return _FORBIDDEN.sub(" ", text).replace("'", "").replace("=", "")
