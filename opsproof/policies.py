"""What an inventory asks for beyond whereabouts: how long backups are kept, what is too late, and what is too much.

Frozen values, made by `opsproof.inventory`, which validates. Times are spans (`timedelta`), shares are of 1.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdwy])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_557_600}
SPAN_FORM = "a number and s, m (minutes), h, d, w or y, as in 30d or 1.5h"


def span_of(text: str) -> timedelta:
    """Return a span of time.

    >>> span_of("30d"), span_of("90m")
    (datetime.timedelta(days=30), datetime.timedelta(seconds=5400))

    Raises:
        ValueError: It is none, or too long to count back.
    """
    shape = _SPAN.fullmatch(text.strip())
    if shape is None:
        raise ValueError(f"must be {SPAN_FORM}")
    try:
        return timedelta(seconds=float(shape[1]) * _UNITS[shape[2]])
    except OverflowError as error:
        raise ValueError("is too long") from error


@dataclass(frozen=True)
class Retention:
    """Which backups are kept; the others go when `actions/test_cleanup.py` is run.

    A backup is kept when any of the rules keeps it: it is younger than `within`; it is one of the `last` newest; or it
    is the newest of one of the last `daily` days, `weekly` ISO weeks, `monthly` months, `yearly` years (in UTC) that
    have one. Where no rule is given, none goes.

    Attributes:
        noncurrent: Also removes the older versions that a bucket with versioning keeps of what was deleted.
        safety: How long backups that were taken before a change are kept; they count for no other rule.
        parked: How long a database that a restore has put aside is kept.
        uploads: After how long an unfinished upload, or a spool, is taken for abandoned.
        logs: How long logs and journals of runs are kept on the machine that runs pytest.
    """

    within: timedelta | None = None
    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    noncurrent: bool = False
    safety: timedelta = timedelta(days=14)
    parked: timedelta = timedelta(days=7)
    uploads: timedelta = timedelta(days=2)
    logs: timedelta = timedelta(days=90)

    @property
    def has_rules(self) -> bool:
        """Tell whether anything says which backups are kept."""
        return self.within is not None or any((self.last, self.daily, self.weekly, self.monthly, self.yearly))

    @property
    def dense_for(self) -> timedelta | None:
        """Return how far back every day's backup is still there; None where that ends with the oldest one.

        What weekly, monthly and yearly rules keep has gaps that no backup ever had.
        """
        if not any((self.weekly, self.monthly, self.yearly)):
            return None
        return max(self.within or timedelta(), timedelta(days=max(1, self.daily)))


@dataclass(frozen=True)
class Artifacts:
    """What migrations leave in a database, to be cleaned up.

    `tables` are patterns (`*` and `?`) of `table` or `schema.table`; `rows` are SQL statements that delete rows.
    """

    tables: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Objectives:
    """How long a restore may take (`rto`), and how old the newest backup may be (`rpo`)."""

    rto: timedelta | None = None
    rpo: timedelta | None = None


@dataclass(frozen=True)
class ObjectLock:
    """The S3 Object Lock that every object of a backup gets."""

    mode: Literal["GOVERNANCE", "COMPLIANCE"]
    days: int


@dataclass(frozen=True)
class BucketExpectations:
    """What the bucket's own settings have to be; None is not asked about."""

    versioning: bool | None = None
    encryption: bool | None = None
    object_lock: bool | None = None
    lifecycle: bool | None = None
    public_access_blocked: bool | None = None


@dataclass(frozen=True)
class Sealing:
    """How backups are encrypted and signed.

    Attributes:
        recipients: age's public keys (`age1...`), any of which opens the backup; empty: it is not encrypted.
        identity_file: Where the private one is, for restore and verify; else the variable `OPSPROOF_AGE_IDENTITY`.
        signing_key_file: The Ed25519 private key in PEM that manifests are signed with; else the variable
            `OPSPROOF_SIGNING_KEY`.
        verify_key_file: The public one. Where it is given, a backup without its signature is refused.
    """

    recipients: tuple[str, ...] = ()
    identity_file: str | None = None
    signing_key_file: str | None = None
    verify_key_file: str | None = None


@dataclass(frozen=True)
class Thresholds:
    """What checks take for too much."""

    minimum_version: str | None = None
    connections: float = 0.8
    long_transaction: timedelta = timedelta(hours=1)
    wraparound: float = 0.5
    growth: float = 0.5
    slot_bytes: int = 5_000_000_000
    clock_skew: timedelta = timedelta(seconds=5)
    size_fall: float = 0.5
    unverified_for: timedelta = timedelta(days=7)


@dataclass(frozen=True)
class DrillSettings:
    """How a drill starts the application on its copy.

    Attributes:
        command: Of a shell on the host; `{database}`, `{filestore}` and `{port}` are filled in. Empty: nothing starts.
        health_url: The page that has to answer, with the same.
        timeout: Until when.
        window: How far back a drill looks for gaps between backups.
    """

    command: str = ""
    health_url: str = ""
    timeout: timedelta = timedelta(minutes=2)
    window: timedelta = timedelta(days=30)


@dataclass(frozen=True)
class Policies:
    """All of them, of one target. `ping_urls` are asked at an action's start, success and failure, by action's name."""

    retention: Retention = Retention()
    artifacts: Artifacts = Artifacts()
    objectives: Objectives = Objectives()
    object_lock: ObjectLock | None = None
    bucket: BucketExpectations = BucketExpectations()
    sealing: Sealing = Sealing()
    thresholds: Thresholds = Thresholds()
    drill: DrillSettings = DrillSettings()
    ping_urls: Mapping[str, str] = field(default_factory=dict, hash=False, repr=False)
