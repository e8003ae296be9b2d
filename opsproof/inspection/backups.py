"""Whether a target's backups are what one relies on: young enough, as big as they were, and looked at lately."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Protocol

from opsproof.errors import ProofError
from opsproof.inspection.restores.sameness import list_first

UNTOUCHED = "everything: a check only looks"
# Below that, a database is so small that a share of it says nothing.
SMALL_BYTES = 1 << 20
# A backup that is further ahead of this machine's clock than this was taken by a clock that was wrong.
CLOCKS_DIFFER_BY = timedelta(days=1)


class _Known(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def taken(self) -> datetime: ...
    @property
    def verified(self) -> datetime: ...
    @property
    def bytes(self) -> int: ...
    @property
    def database_bytes(self) -> int: ...


class _Waiting(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def written(self) -> datetime: ...
    @property
    def problem(self) -> str: ...


class Stock(Protocol):
    """What is known of a store, as far as it matters here; see `opsproof.archive.catalogue.recent.Stock`."""

    @property
    def location(self) -> str:
        """Where it is."""

    @property
    def newest(self) -> Sequence[_Known]:
        """The newest verified backups, the newest first."""

    @property
    def waiting(self) -> Sequence[_Waiting]:
        """What was never verified, the oldest first."""

    @property
    def damaged(self) -> Sequence[_Waiting]:
        """What was found damaged, the newest first."""


def check_age(stock: Stock, rpo: timedelta, now: datetime, environment: str) -> timedelta:
    """Return the age of the newest verified backup, which is not more than the RPO.

    Args:
        stock: What is in the store.
        rpo: How old it may be.
        now: The time, in UTC.
        environment: For the hint.

    Raises:
        ProofError: It is older, or of a time that is yet to come, or there is none.
    """
    newest = _newest_of(stock, environment)
    age = now - newest.taken
    if age < -CLOCKS_DIFFER_BY:
        # It would stay the newest, and young, whatever fails until then.
        raise ProofError(
            "The newest verified backup was taken at a time that is yet to come",
            expected=f"one that is not older than {_span(rpo)} (objectives: rpo)",
            found=f"{newest.location}, taken {_time(newest.taken)}; here it is {_time(now)}",
            kept=UNTOUCHED,
            hint=f"date -u   here and on the server\npytest actions/test_backup.py --env={shlex.quote(environment)}"
            f"\nmove {newest.id} elsewhere if the clock was wrong when it was taken: no restore chooses it by itself",
        )
    if age > rpo:
        beside = [
            f"{one.id}, newer, does not count: {one.problem}" for one in stock.waiting if one.written > newest.taken
        ]
        beside += [f"{one.id}, newer, was found damaged" for one in stock.damaged if one.written > newest.taken]
        raise ProofError(
            f"The newest verified backup is {_span(age)} old",
            expected=f"at most {_span(rpo)} (objectives: rpo)",
            found="\n".join([f"{newest.location}, taken {_time(newest.taken)}", *beside]),
            kept=UNTOUCHED,
            hint=f"pytest actions/test_backup.py --env={shlex.quote(environment)}   and look why none has run",
        )
    return age


def check_size(stock: Stock, fall: float, environment: str) -> float | None:
    """Return by which share the newest verified backup is smaller than the one before; None where there is none.

    Args:
        stock: What is in the store.
        fall: The share of 1 that is too much.
        environment: For the hint.

    Raises:
        ProofError: Its database, or what is stored, is smaller by more than that; or there is no backup.
    """
    newest = _newest_of(stock, environment)
    if len(stock.newest) < 2:
        return None
    before = stock.newest[1]
    pairs = {
        "the database": (before.database_bytes, newest.database_bytes),
        "what is stored": (before.bytes, newest.bytes),
    }
    falls = {what: 1 - now / then for what, (then, now) in pairs.items() if then >= SMALL_BYTES}
    too_much = {what: share for what, share in falls.items() if share > fall}
    if too_much:
        raise ProofError(
            f"The newest backup is smaller than the one before it by {max(too_much.values()):.0%}",
            expected=f"by at most {fall:.0%} (thresholds: size_fall)",
            found="\n".join(
                f"{what}: {pairs[what][0]:,} bytes in {before.id}, {pairs[what][1]:,} in {newest.id}"
                for what in too_much
            ),
            kept=UNTOUCHED,
            hint="look whether somebody has deleted rows or files; the one before it: pytest actions/test_restore.py"
            f" --env={shlex.quote(environment)} --backup={shlex.quote(before.id)} --dry-run",
        )
    return max(falls.values(), default=None)


def check_verified(stock: Stock, limit: timedelta, now: datetime, environment: str) -> timedelta:
    """Return how long ago the newest backup was read to its end, which is not longer than the limit.

    A backup reads itself back when it is taken: that is its first verification, and each that has passed since counts.

    Args:
        stock: What is in the store.
        limit: How long a backup may go unverified.
        now: The time, in UTC.
        environment: For the hint.

    Raises:
        ProofError: It is longer; or something without a manifest is older than that; or there is no backup.
    """
    newest = _newest_of(stock, environment)
    old = [one for one in stock.waiting if now - one.written > limit]
    unread = now - newest.verified
    if not old and unread <= limit:
        return unread
    command = f"pytest checks/test_backups.py --env={shlex.quote(environment)} --backup="
    found, hints = [], []
    if unread > limit:
        found.append(f"{newest.id} was last read to its end {_span(unread)} ago, at {_time(newest.verified)}")
        hints.append(f"{command}{shlex.quote(newest.id)}")
    if old:
        found.append(list_first([f"{one.location} of {_time(one.written)}: {one.problem}" for one in old]))
        hints.append(
            f"an attempt that was killed: pytest actions/test_cleanup.py --env={shlex.quote(environment)} --dry-run"
            "   says whether it goes; what that does not know for its own, remove by hand"
        )
    count = len(old) + (unread > limit)
    raise ProofError(
        f"{count} {'backup was' if count == 1 else 'backups were'} not verified for longer than {_span(limit)}",
        expected=f"each was read to its end in the last {_span(limit)} (thresholds: unverified_for)",
        found="\n".join(found),
        kept=UNTOUCHED,
        hint="\n".join(hints),
    )


def check_damage(stock: Stock, environment: str) -> int:
    """Return how many backups were found damaged and are older than the newest that is whole.

    Raises:
        ProofError: One that is newer was; or there is no backup.
    """
    newest = _newest_of(stock, environment)
    newer = [one for one in stock.damaged if one.written > newest.taken]
    if newer:
        raise ProofError(
            f"{len(newer)} {'backup' if len(newer) == 1 else 'backups'} newer than the newest whole one: found damaged",
            expected="that the newest backup can be read",
            found=list_first([one.location for one in newer]),
            kept=UNTOUCHED,
            hint=f"pytest actions/test_backup.py --env={shlex.quote(environment)}   and test the store's disks",
        )
    return len(stock.damaged)


def check_restore_time(seconds: float, rto: timedelta, when: datetime, environment: str) -> timedelta:
    """Return how long the last drill's restore took, which is not more than the RTO.

    Args:
        seconds: What it took.
        rto: What it may take.
        when: When that drill ended.
        environment: For the hint.

    Raises:
        ProofError: It took longer.
    """
    took = timedelta(seconds=seconds)
    if took > rto:
        raise ProofError(
            f"The last drill's restore took {_span(took)}",
            expected=f"at most {_span(rto)} (objectives: rto)",
            found=f"{seconds:,.0f} seconds, in the drill of {_time(when)}",
            kept=UNTOUCHED,
            hint=f"pytest actions/test_drill.py --env={shlex.quote(environment)}   shows which step takes how long",
        )
    return took


def _newest_of(stock: Stock, environment: str) -> _Known:
    if not stock.newest:
        found = [f"{one.location}: {one.problem}" for one in (*stock.waiting, *stock.damaged)]
        raise ProofError(
            "There is no verified backup",
            expected=f"one in {stock.location}",
            found=list_first(found) if found else "none",
            kept=UNTOUCHED,
            hint=f"pytest actions/test_backup.py --env={shlex.quote(environment)}",
        )
    return stock.newest[0]


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _span(span: timedelta) -> str:
    """Return a span of time as people say it.

    >>> _span(timedelta(hours=49)), _span(timedelta(minutes=61)), _span(timedelta(seconds=90))
    ('2.0 days', '1.0 hours', '1.5 minutes')
    """
    seconds = span.total_seconds()
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if abs(seconds) >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} seconds"
