"""The intent of what takes a finished procedure back: one more swap, the other way round.

Nothing is dropped by it, so that even this can be taken back.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from opsproof.intent import Intent
from opsproof.system.postgres.databases import STAMP, parked_name

# The option of such an intent: what the kept database said until then, as JSON.
UNDO = "undo"


def to_undo(kept: Intent) -> Intent:
    """Return the intent that makes a kept database live again, and parks what is live now.

    Args:
        kept: The intent that the kept database bears.
    """
    moment = datetime.now(UTC)
    while (parked := parked_name(kept.live, moment)) == kept.parked:
        moment += timedelta(seconds=1)
    stamp = {"stamp": moment.strftime(STAMP)} if "stamp" in kept.options else {}
    return replace(
        kept,
        side=kept.parked,
        parked=parked,
        stage="stopping",
        options={**kept.options, **stamp, UNDO: kept.to_json()},
    )
