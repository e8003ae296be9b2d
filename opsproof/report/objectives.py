"""RTO and RPO: what a drill has measured, what is asked for, and what earlier drills measured."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from opsproof.report.story import Earlier, Objective

RTO, RPO = "RTO", "RPO"


def tell_objectives(drilled: Mapping[str, Any], histories: Iterable[Mapping[str, Any]]) -> Iterator[Objective]:
    """Yield RTO and RPO, as far as they are known.

    Args:
        drilled: The outcome of the drill.
        histories: The events `drill history`; each has earlier drills, in any order.
    """
    earlier = [
        one for event in histories if isinstance(event.get("history"), list) for one in event["history"]
        if isinstance(one, dict)
    ]  # fmt: skip
    rto, rpo = drilled.get("rto"), drilled.get("rpo")
    if isinstance(rto, dict):
        phases = rto.get("phases")
        named = phases.items() if isinstance(phases, dict) else ()
        yield Objective(
            RTO,
            measured=_seconds(rto.get("measured")),
            objective=_seconds(rto.get("objective")),
            phases={str(name): known for name, one in named if (known := _seconds(one)) is not None},
            widest_gap=None,
            earlier=tuple(_earlier(earlier, "rto")),
        )
    if isinstance(rpo, dict):
        yield Objective(
            RPO,
            measured=_seconds(rpo.get("age")),
            objective=_seconds(rpo.get("objective")),
            phases={},
            widest_gap=_seconds(rpo.get("widest_gap")),
            earlier=tuple(_earlier(earlier, "rpo_age")),
        )


def _earlier(history: list[dict[str, Any]], key: str) -> list[Earlier]:
    found = [
        Earlier(_time(one.get("time")), seconds, str(one.get("verdict", "")))
        for one in history
        if (seconds := _seconds(one.get(key))) is not None
    ]
    return sorted(found, key=lambda one: one.time or datetime.min.replace(tzinfo=UTC))


def _seconds(value: object) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) and value >= 0 else None  # type: ignore[arg-type, operator]


def _time(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment if moment is None or moment.tzinfo else moment.replace(tzinfo=UTC)
