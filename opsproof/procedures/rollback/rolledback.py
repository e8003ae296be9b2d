"""What a rollback came to."""

from __future__ import annotations

from dataclasses import dataclass

from opsproof.inspection.validation import Validated
from opsproof.procedures.outage.exchange import Outage


@dataclass(frozen=True)
class RollbackOutcome:
    """What a rollback came to, for the summary, the journal and the XML. Seconds.

    Attributes:
        kind: `schema`, `data` or `full`.
        before: The heads before.
        after: The heads afterwards.
        undone: The revisions, and how long each took on the live data.
        losses: What was lost.
        safety: Id of the safety backup.
        safety_sha256: Of its bundle.
        parked: What the database of before is called.
        forward: What brings it back, a line each.
        outage: In which nobody could work.
        validated: What was looked at afterwards.
        unverified: What nobody could compare.
        phases: Seconds by phase.
        backup: Where the backup is whose data are live now; empty for a rollback of the schema alone.
    """

    kind: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    undone: dict[str, float]
    losses: tuple[str, ...]
    safety: str
    safety_sha256: str
    parked: str
    forward: tuple[str, ...]
    outage: Outage
    validated: Validated
    unverified: tuple[str, ...]
    phases: dict[str, float]
    backup: str = ""
