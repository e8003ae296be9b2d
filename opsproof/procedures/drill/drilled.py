"""What a drill came to: what it proved of a backup, and how long that took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from opsproof.inspection.objectives import RecoveryPoint, RecoveryTime

Status = Literal["not reached", "broken", "failed", "passed"]
"""Of a question: nobody came to it, it could not be asked, the answer is no, the answer is yes."""


@dataclass(frozen=True)
class DrillOutcome:
    """What a drill came to. `restore` and `validation` are two questions; seconds.

    `rows` has of the biggest tables how many rows the backup says, and how many the copy has.
    """

    backup: str
    location: str
    source: str
    restore: Status
    validation: Status
    why: str
    rto: RecoveryTime | None
    rpo: RecoveryPoint | None
    tables: int
    rows_total: int
    files: int
    rows: Mapping[str, tuple[int, int]]
    checks: tuple[str, ...]
    unverified: tuple[str, ...]
    identity: str
    phases: Mapping[str, float]

    @property
    def has_passed(self) -> bool:
        """Tell whether both questions were answered with yes."""
        return self.restore == self.validation == "passed"
