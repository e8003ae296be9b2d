"""What a deploy, or a rollback to another release, came to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from opsproof.procedures.outage.exchange import Outage


@dataclass(frozen=True)
class DeployOutcome:
    """What a deploy, or a rollback to another release, came to, for the summary, the journal and the XML. Seconds.

    Attributes:
        event: `deployed` or `rolled back`.
        release: What is current now.
        revision: Of it.
        source: What it was made from.
        previous: What was current before; empty for nothing.
        backup: The backup before.
        parked: The database that was live before, where it was exchanged.
        changes: What was done to the database, a line each.
        outage: In which nobody could work.
        hooks: What passed, and how long it took.
        phases: Seconds by phase.
    """

    event: str
    release: str
    revision: str
    source: str
    previous: str
    backup: str
    parked: str
    changes: tuple[str, ...]
    outage: Outage
    hooks: tuple[str, ...]
    phases: Mapping[str, float]
