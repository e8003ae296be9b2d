"""What the verifications of a stored backup came to: a small object beside its manifest for each, told by its name.

`{id}.verdict_YYYY-MM-DD_HH-MM-SS_{passed|failed|error|skipped}.json`, in UTC: a listing alone says what the latest one
was. `failed` is the backup's fault and `error` is not: the store did not answer, there was no room, no server. So only
`passed` and `failed` say anything of the backup, and the later of those two counts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from opsproof.archive.manifest import STAMP, Author
from opsproof.errors import ArchiveError, ObjectExists
from opsproof.system.store import Store

Verdict = Literal["passed", "failed", "error", "skipped"]

INFIX = ".verdict_"
_NAME = re.compile(
    r"(?P<id>.+)\.verdict_(?P<when>\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)_(?P<verdict>"
    + "|".join(get_args(Verdict))
    + r")\.json"
)
# What is said of the backup itself outranks what is said of the attempt; of one second's two, the worse.
_RANK: dict[Verdict, int] = {"failed": 3, "passed": 2, "error": 1, "skipped": 0}
FORMAT = "opsproof-verdict"
TRIES = 5


class VerdictFinding(BaseModel):
    """One thing that was wrong, as the errors of opsproof say it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    summary: str
    expected: str = ""
    found: str = ""


class VerdictRecord(BaseModel):
    """A verification.

    `checks` are what was looked at and found right, a sentence each; `unverified` is what nobody could look at;
    `seconds` is how long it took, `when` when it ended, in UTC; `deep` says that a server has loaded it.
    """

    # A newer opsproof may write more: what an older one does not know, it passes over.
    model_config = ConfigDict(frozen=True, extra="ignore")

    format: Literal["opsproof-verdict"] = "opsproof-verdict"
    opsproof_version: str
    id: str
    verdict: Verdict
    when: datetime
    seconds: float
    deep: bool
    bytes: int
    author: Author
    checks: tuple[str, ...] = ()
    findings: tuple[VerdictFinding, ...] = ()
    unverified: tuple[str, ...] = ()


def verdict_name(backup: str, when: datetime, verdict: Verdict) -> str:
    """Return the name of a verdict's object.

    Args:
        backup: The backup's id.
        when: When the verification ended.
        verdict: What it came to.

    >>> verdict_name("shop_2026-01-31_02-00-00", datetime(2026, 2, 1, 4, 30, tzinfo=UTC), "passed")
    'shop_2026-01-31_02-00-00.verdict_2026-02-01_04-30-00_passed.json'
    """
    return f"{backup}{INFIX}{when.astimezone(UTC).strftime(STAMP)}_{verdict}.json"


def parse_verdict(name: str) -> tuple[str, datetime, Verdict] | None:
    """Return whose verdict an object is, of when, and which; None where it is none."""
    shape = _NAME.fullmatch(name)
    if shape is None:
        return None
    try:
        when = datetime.strptime(shape["when"], STAMP).replace(tzinfo=UTC)
    except ValueError:  # a 13th month
        return None
    verdict: Verdict = next(one for one in _RANK if one == shape["verdict"])
    return shape["id"], when, verdict


def latest_verdicts(names: Iterable[str]) -> dict[str, tuple[datetime, Verdict]]:
    """Return the verdict that counts of each backup that has one, by its id.

    It is the latest `passed` or `failed`; where there is neither, the latest of the others.

    Args:
        names: Of a listing: everything else in it is passed over.
    """
    latest: dict[str, tuple[datetime, Verdict]] = {}
    for name in names:
        found = parse_verdict(name)
        if found is None:
            continue
        backup, when, verdict = found
        before = latest.get(backup)
        if before is None or _weight(when, verdict) > _weight(*before):
            latest[backup] = when, verdict
    return latest


def failed_backups(names: Iterable[str]) -> dict[str, datetime]:
    """Return the backups of a listing that count as unverified, by their ids, and when it was found out."""
    return {backup: when for backup, (when, verdict) in latest_verdicts(names).items() if verdict == "failed"}


def record_verdict(store: Store, record: VerdictRecord) -> str:
    """Put a verdict beside its backup; return the object's name.

    It gets a time after that of every verdict that is there, lest one that a wrong clock has dated into the future
    outrank all that follow.

    Raises:
        StoreError: The store refused.
    """
    found = [parse_verdict(one.name) for one in store.list(record.id + INFIX)]
    moments = [one[1] for one in found if one is not None and one[0] == record.id]
    when = max([record.when.astimezone(UTC), *(moment + timedelta(seconds=1) for moment in moments)])
    data = verdict_to_json(record)
    for attempt in range(TRIES):
        # Two that verify the same backup at once may end within one second.
        name = verdict_name(record.id, when + timedelta(seconds=attempt), record.verdict)
        with suppress(ObjectExists):
            # With a lock of its own it would outlast the backup that it is about.
            store.put_small(name, data, locked=False)
            return name
    raise ObjectExists(
        f"The verdict on {record.id} finds no free name",
        expected=f"{name}, or one of the {TRIES} seconds before it",
        found="all of them taken",
        kept="the verdicts that are there",
        hint="run it again",
    )


def verdict_to_json(record: VerdictRecord) -> bytes:
    """Return a verdict as people can read it, too."""
    return (json.dumps(record.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n").encode(
        "utf-8", "surrogateescape"
    )


def read_verdict(data: bytes, name: str) -> VerdictRecord:
    """Read a verdict.

    Raises:
        ArchiveError: It is none.
    """
    try:
        return VerdictRecord.model_validate_json(data)
    except ValidationError as error:
        raise ArchiveError(
            f"{name} is not the verdict of a verification",
            expected=f"JSON of format {FORMAT!r}",
            found=str(error),
            kept="nothing was changed",
        ) from error


def _weight(when: datetime, verdict: Verdict) -> tuple[bool, datetime, int]:
    return verdict in ("passed", "failed"), when, _RANK[verdict]
