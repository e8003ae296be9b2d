"""Facts: what a journal's event says, as labels and values that people read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from opsproof.chain import LINK
from opsproof.report.quantities import show_bytes, show_seconds
from opsproof.report.story import Fact, Facts

Event = Mapping[str, Any]

RELEASE_BACK = "release rolled back"
# Whose facts are told, under which title. What a restore verifies on its way is its safety backup.
TITLES = {
    "backup chosen": "The backup",
    "backup verified": "Stored and verified",
    "restore finished": "Restored",
    "rollback finished": "Rolled back",
    RELEASE_BACK: "Rolled back",
    "recover finished": "Recovered",
    "drill finished": "Drilled",
    "neutralized": "Neutralized",
    "outage": "Outage",
}
NOTED = "Noted by checks"
FINISHED = " finished"
SAFETY = "Safety backup"
# What has a place of its own in the report, or is of no use to a reader.
ELSEWHERE = {
    "time",
    "event",
    "target",
    "worker",
    "phases",
    "outage",
    "rto",
    "rpo",
    "history",
    "validation",
    "restore",
}
LABELS = {
    "id": "backup",
    "why": "because",
    "sha256": "SHA-256",
    "safety_sha256": "SHA-256 of the safety backup",
    "safety": "safety backup",
    "parked": "database of before",
    "files_present": "files there already",
    "files_added": "files added",
    "files_repaired": "files repaired",
    "database_bytes": "database",
    "filestore_bytes": "filestore",
    "bytes": "size",
    "odoo": "Odoo",
    "by": "statements of",
    "forward": "the way forward",
}
ROUND = re.compile(" 00 (?:s|min)$")
SPANS = {"stop", "swap", "start", "healthy", "total", "seconds", "undone", "age", "measured"}


def tell_facts(events: Sequence[Event]) -> Iterator[Facts]:
    """Yield what is known of each thing, in the order in which it became known."""
    finished = [str(event["event"]) for event in events]
    is_restore = any(name.endswith(FINISHED) or name in ("backup chosen", RELEASE_BACK) for name in finished)
    noted = [event for event in events if event["event"] == "check" and "noted" in event]
    if noted:
        told = (Fact(str(event["noted"]), tuple(show_value("", event.get("value")))) for event in noted)
        yield Facts(NOTED, tuple(told))
    for event in events:
        name = str(event["event"])
        title = TITLES.get(name) or (name.removesuffix(FINISHED).capitalize() if name.endswith(FINISHED) else None)
        outcome = event.get("outcome")
        if name == "backup verified" and not isinstance(outcome, Mapping):
            continue  # the one that is restored: told when it was chosen
        if name == "backup verified" and is_restore:
            title = SAFETY
        if title is None:
            continue
        facts = tuple(_facts(outcome if isinstance(outcome, Mapping) else event))
        if facts:
            yield Facts(title, facts)


def show_span(seconds: float) -> str:
    """Return a time as `show_seconds` does, and what is less than a second in milliseconds; without a rest of zeros.

    >>> show_span(0.035), show_span(0.0), show_span(3.21), show_span(1800)
    ('35 ms', '< 1 ms', '3.2 s', '30 min')
    """
    if seconds >= 0.9995:
        return ROUND.sub("", show_seconds(seconds))
    return f"{seconds * 1000:.0f} ms" if seconds >= 0.0005 else "< 1 ms"


def _facts(values: Mapping[str, Any]) -> Iterator[Fact]:
    for key, value in values.items():
        # An event's link to the line before it; an outcome may have something else that is called so, as a deploy has.
        is_link = key == LINK and "event" in values
        if is_link or key in ELSEWHERE or (key == "rows" and isinstance(value, Mapping) and _is_counted(value)):
            continue
        shown = tuple(show_value(key, value))
        if shown:
            yield Fact(LABELS.get(key, key.replace("_", " ")), shown)


def show_value(key: str, value: Any) -> Iterator[str]:
    """Yield a value's lines; none for what is empty."""
    match value:
        case None | "":
            return
        case bool():
            yield "yes" if value else "no"
        case int() | float() if key == "bytes" or key.endswith("_bytes"):
            yield f"{show_bytes(value)} ({value:,} bytes)" if value >= 1000 else show_bytes(value)
        case int() | float() if key in SPANS:
            yield show_span(value)
        case int():
            yield f"{value:,}"
        case float():
            yield f"{value:,.3f}"
        case Mapping():
            for name, one in value.items():
                inner = key if key in SPANS else str(name)
                yield f"{str(name).replace('_', ' ')}: {', '.join(show_value(inner, one)) or 'none'}"
        case list() | tuple():
            for one in value:
                yield from show_value(key, one)
        case _:
            yield str(value)


def _is_counted(rows: Mapping[str, Any]) -> bool:
    """Tell the rows of each table, then and now, from a number of rows by kind."""
    return all(isinstance(one, (list, tuple)) for one in rows.values())
