"""Journals as runs write them, made up line by line: for what is seldom, and for what nobody would wish for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

BEGAN = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
# What an application's owner, or somebody who writes into its database, can choose the name of.
HOSTILE = "<script>alert('x')</script> \"]]>{{ 7 * 7 }} `|@all` \u202egnp\x00\x1b[31m<b>"
LONG = "a_name_that_somebody_gave_a_table_without_a_thought_for_those_who_have_to_read_it_on_a_phone"


@dataclass
class JournalLines:
    """The lines of a journal. Times are seconds after the run began."""

    target: str = "erp"
    procedure: str = "actions.test_drill.TestDrill"
    lines: list[str] = field(default_factory=list)

    def add(self, at: float, event: str, /, **fields: Any) -> None:
        """Add a line about the target; `target=None` is about none."""
        named = {"target": self.target, **fields}
        known = {name: value for name, value in named.items() if value is not None}
        self.lines.append(json.dumps({"time": (BEGAN + timedelta(seconds=at)).isoformat(), "event": event, **known}))

    def begin(self, action: str = "drill", *, dry_run: bool = False, steps: Mapping[str, str] | None = None) -> None:
        """Begin the run, and its procedure where there are steps."""
        self.add(0, "run begins", target=None, action=action, environment="staging", dry_run=dry_run)
        if steps is not None:
            self.add(0, "procedure begins", procedure=self.procedure, steps=steps)

    def phase(self, name: str, begin: float, end: float, *, outcome: str = "done") -> None:
        """Add a phase: its beginning and its end, one after the other."""
        self.add(begin, "phase begins", phase=name)
        self.add(end, "phase ends", phase=name, outcome=outcome, seconds=end - begin)

    def step(self, at: float, name: str, outcome: str = "passed", **fields: Any) -> None:
        """Add a step that has ended."""
        how = {"procedure": self.procedure, "when": "call", "seconds": 0.5, **fields}
        self.add(at, "step", step=name, outcome=outcome, **how)

    def end(self, at: float, status: int = 0) -> None:
        """End the undo and the run."""
        self.add(at, "undo begins")
        self.add(at, "undo ends")
        self.add(at, "run ends", target=None, exit_status=status)


def drill(**changes: Any) -> JournalLines:
    """Return the journal of a drill that missed its RPO.

    Args:
        changes: Of its outcome's fields.
    """
    journal = JournalLines()
    steps = {
        "test_choose_backup": "The newest verified backup of prod.",
        "test_build_scratch_database": "The scratch database is built, and no application sees it.",
        "test_objectives": "RTO and RPO are as they have to be.",
        "test_remove": "All of it is removed.",
    }
    journal.begin(steps=steps)
    location = "s3://acme-backups/acme/backups/acme_2026-02-28_22-00-04.zip"
    journal.add(1, "backup chosen", id="acme_2026-02-28_22-00-04", location=location, why="the newest verified one")
    journal.step(2, "test_choose_backup")
    journal.phase("download", 2, 62)
    journal.phase("load", 62, 540)
    journal.add(541, "phase begins", phase="application")
    journal.phase("start on the scratch copy with a name that is far too long", 545, 560)
    journal.add(561, "phase ends", phase="application", outcome="failed", seconds=20)
    journal.step(562, "test_build_scratch_database", seconds=561.0)
    history = [
        {"time": (BEGAN - timedelta(days=7 * week)).isoformat(), "rto": 400 + 31 * (week * 7 % 11),
         "rpo_age": 14_000 + 700 * week, "verdict": "failed" if week == 3 else "passed"}
        for week in range(1, 13)
    ]  # fmt: skip
    journal.add(563, "drill history", history=history)
    outcome = {
        "backup": "acme_2026-02-28_22-00-04", "location": location, "source": "prod/erp",
        "restore": "passed", "validation": "passed",
        "rto": {"objective": 1800, "measured": 561.5, "phases": {"download": 60, "load": 478, "application": 20}},
        "rpo": {"objective": 14_400, "age": 14_396, "widest_gap": 86_400},
        "rows": {"public.res_partner": [12_044, 12_044], "public.sale_order": [88_123, 88_120],
                 "public.gone": [1, None], f"public.{HOSTILE}": [3, 3], f"public.{LONG}": [123_456_789, 123_456_790]},
    }  # fmt: skip
    journal.add(564, "drill finished", outcome={**outcome, **changes})
    error = (
        "RPO: 24 h between two verified backups\n  expected: at most 4 h\n"
        f"  found:    {'x' * 200} {HOSTILE}\n  hint:     pytest actions/test_backup.py --env=prod"
    )
    journal.step(564, "test_objectives", "failed", error=error)
    journal.step(564, "test_remove", "skipped", when="setup", seconds=0.0)
    journal.add(565, "warning", message=f"the services of {HOSTILE} were not looked at")
    journal.add(566, "check", check="test_services_run", outcome="passed", seconds=0.2, sentence="Each is running.")
    journal.end(570, status=1)
    return journal
