"""What earlier drills came to, read from the journals beside the backups: nothing else keeps it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from opsproof.archive.names import SEALED
from opsproof.archive.sealing.agekeys import load_identities
from opsproof.archive.sealing.seal import unseal
from opsproof.archive.sealing.signature import is_signed, load_verify_key
from opsproof.chain import SIGNATURE, verify_chain
from opsproof.errors import ArchiveError, StoreDenied, StoreError, StoreUnreachable
from opsproof.policies import Sealing
from opsproof.system.store import Store
from opsproof.target import Target

FOLDER, ENDING = "journals/", ".jsonl"
MOST = 20
MOST_BYTES = 64 << 20
STAMP = r"(?P<stamp>\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_(?P<number>\d+))?"


@dataclass(frozen=True)
class PastDrill:
    """A drill that has ended.

    Attributes:
        time: When, as its journal says it.
        verdict: passed, failed, or broken where it could not be carried out.
        rto: How long the restore took, in seconds; None where it was not measured.
        rpo_age: How old the newest verified backup was then, in seconds.
        backup: Which one was rehearsed.
        journal: The name of its journal.
    """

    time: str
    verdict: str
    rto: float | None
    rpo_age: float | None
    backup: str
    journal: str

    @property
    def ended(self) -> datetime:
        """Return when it ended."""
        return datetime.fromisoformat(self.time)


@dataclass(frozen=True)
class History:
    """Earlier drills, the oldest first, and the journals that do not count, each with the reason."""

    drills: tuple[PastDrill, ...]
    faults: tuple[str, ...]


def read_drills(store: Store, target: Target, most: int = MOST) -> History:
    """Return the last drills of a target.

    A journal whose lines do not follow one another does not count; nor does one that nobody has signed, where the
    inventory has the public key.

    Args:
        store: The target's.
        target: Whose.
        most: So many at most.

    Raises:
        StoreError: The store cannot be read.
        ConfigurationError: The public key, or the private one that opens encrypted journals, cannot be read.
    """
    shape = re.compile(
        rf"{FOLDER}drill_{re.escape(target.environment)}_{STAMP}{re.escape(ENDING)}(?:{re.escape(SEALED)})?"
    )
    named = []
    for one in store.list(f"{FOLDER}drill_{target.environment}_"):
        match = shape.fullmatch(one.name)
        if match and one.bytes <= MOST_BYTES:
            named.append((match["stamp"], int(match["number"] or 1), one.name))
    drills: list[PastDrill] = []
    faults: list[str] = []
    for _, _, name in sorted(named, reverse=True):
        data = store.get_small(name)
        if name.endswith(SEALED):
            try:
                data = unseal(data, load_identities(target.policies.sealing), store.location + name)
            except ArchiveError as error:
                faults.append(f"{name}: {error.summary}")
                continue
        fault = _fault_of(store, name.removesuffix(SEALED), data, target.policies.sealing)
        if fault:
            faults.append(f"{name}: {fault}")
            continue
        found = _drill_in(data, target, name)
        # The same one under another name is a copy that somebody has made.
        if found is not None and all(found.time != one.time for one in drills):
            drills.append(found)
        if len(drills) >= most:
            break
    return History(tuple(sorted(drills, key=lambda one: one.ended)), tuple(faults))


def _fault_of(store: Store, name: str, data: bytes, sealing: Sealing) -> str:
    """Return why a journal does not count; empty where it does."""
    faults = verify_chain(data).faults
    if faults:
        return faults[0]
    key = load_verify_key(sealing)
    if key is None:
        return ""
    try:
        signature = store.get_small(name + SIGNATURE)
    except (StoreDenied, StoreUnreachable):
        raise
    except StoreError:
        return "it is not signed"
    return "" if is_signed(data, signature, key) else "its signature is wrong"


def _drill_in(data: bytes, target: Target, name: str) -> PastDrill | None:
    """Return the last drill of a target that a journal tells of."""
    found, is_spoilt = None, False
    for event in _events(data):
        if event.get("event") == "run begins" and event.get("environment") != target.environment:
            return None
        if event.get("target") != target.name:
            continue
        if event.get("event") == "drill finished":
            found = event
        # A step after it: what was left could not be removed, or something live has changed.
        is_spoilt |= event.get("event") == "step" and event.get("outcome") == "failed"
    outcome = found.get("outcome") if found else None
    if found is None or not isinstance(outcome, Mapping) or not _is_time(found.get("time")):
        return None
    return PastDrill(
        time=found["time"],
        verdict=_verdict(outcome, is_spoilt=is_spoilt),
        rto=_seconds(outcome.get("rto"), "measured"),
        rpo_age=_seconds(outcome.get("rpo"), "age"),
        backup=str(outcome.get("backup", "")),
        journal=name.removeprefix(FOLDER),
    )


def _verdict(outcome: Mapping[str, Any], *, is_spoilt: bool) -> str:
    answers = {outcome.get("restore"), outcome.get("validation")}
    if answers == {"passed"}:
        return "failed" if is_spoilt else "passed"
    return "failed" if "failed" in answers and "broken" not in answers else "broken"


def _events(data: bytes) -> Iterator[Mapping[str, Any]]:
    for line in data.splitlines():
        event = json.loads(line)  # `verify_chain` has read each
        yield event


def _seconds(measured: object, key: str) -> float | None:
    value = measured.get(key) if isinstance(measured, Mapping) else None
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False
