"""Which backups of a store go, and why each of the others stays: pure, from what is known of them.

What goes has to be one's own, unlocked, not in use, and older than the last verified one; whatever is in doubt stays.
Backups are ordered by the time of their snapshot that their manifest records, whatever the store says of its objects.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal

from opsproof.archive.catalogue.ownership import Owner, printable
from opsproof.archive.manifest import Kind
from opsproof.errors import ConfigurationError
from opsproof.policies import Retention

Standing = Literal["verified", "failed", "unverified"]

# A manifest that is further ahead of this machine's clock than this was taken by a clock that was wrong.
CLOCKS_DIFFER_BY = timedelta(days=1)


@dataclass(frozen=True)
class Whose:
    """Whose a backup is, as its manifest says. The server's system identifier is none of it: upgrades change that."""

    environment: str
    target: str
    customer: str
    database: str

    def is_of(self, owner: Owner) -> bool:
        """Tell whether it is this owner's."""
        mine = (owner.environment, owner.target, owner.customer)
        same = (self.environment, self.target, self.customer) == mine
        return same and owner.database in (None, self.database)

    def unlike(self, owner: Owner) -> str:
        """Return whose it is, as far as it is not this owner's."""
        words = [f"{self.environment}/{self.target}"]
        if self.customer != owner.customer:
            words.append(f"customer {self.customer or 'none'}")
        if owner.database not in (None, self.database):
            words.append(f"database {self.database}")
        return printable(", ".join(words))


@dataclass(frozen=True)
class Known:
    """What is known of a backup.

    Attributes:
        id: Its name without the ending.
        taken: When its snapshot was taken, as its manifest says; None where nobody can tell.
        whose: Whose it is, as its manifest says; None where nobody can tell.
        kind: Why it was taken.
        standing: `verified`; `failed`: it was verified, and a later verification found it damaged; `unverified`:
            it never was, or is not what its manifest describes.
        lock: What keeps the store from removing it, in words (`locked until 2027-01-31`); empty: nothing does.
        use: What uses it, in words; empty: nothing does.
        problem: Why it is not recognised or not verified, in words.
        is_authentic: False where signed ones are wanted, and this was found not to be one.
    """

    id: str
    taken: datetime | None
    whose: Whose | None
    kind: Kind = "scheduled"
    standing: Standing = "verified"
    lock: str = ""
    use: str = ""
    problem: str = ""
    is_authentic: bool = True


@dataclass(frozen=True)
class Decision:
    """What becomes of a backup, and why: all reasons, in words."""

    backup: Known
    keep: bool
    reasons: tuple[str, ...]

    @property
    def why(self) -> str:
        """Return the reasons as one text."""
        return "; ".join(self.reasons)


@dataclass(frozen=True)
class Rules:
    """What is asked for: the inventory's policy, and the span of `--older-than`, which narrows it.

    With both a backup goes only if both say so. The policy alone decides where `older_than` is None; the span alone
    where the policy has no rules.
    """

    policy: Retention = field(default_factory=Retention)
    older_than: timedelta | None = None

    def require(self, command: str) -> None:
        """Refuse to clean up where nothing says what.

        Args:
            command: The cleanup's command line.

        Raises:
            ConfigurationError: There is neither a policy nor a span.
        """
        if self.policy.has_rules or self.older_than is not None:
            return
        raise ConfigurationError(
            "Nothing says which backups are kept",
            expected="a rule of `retention` in the inventory (within, last, daily, weekly, monthly, yearly),"
            " or --older-than",
            found="neither",
            kept="everything",
            hint="write `retention: {daily: 7, weekly: 4, monthly: 12}` for the target into the inventory\n"
            f"or: {command} --older-than=30d --dry-run",
        )


def decide(known: Sequence[Known], owner: Owner, rules: Rules, now: datetime) -> tuple[Decision, ...]:
    """Return what becomes of each backup, in the order in which they were given.

    Args:
        known: All that is in the store, others' as well.
        owner: Whose backups may be removed.
        rules: What is asked for.
        now: The present time.
    """
    counted = _counted(known, owner, now)
    authentic = [one for one in counted if one.is_authentic]
    last = _last_of(authentic)
    kept = _kept_by_rules(counted, rules.policy, now)
    # What nobody has signed keeps its own place, and takes none from what somebody has.
    kept |= _kept_by_rules(authentic, rules.policy, now)
    return tuple(_decide_one(one, owner, rules, now, last, kept.get(one.id, ())) for one in known)


def last_verified(known: Iterable[Known], owner: Owner, now: datetime) -> Known | None:
    """Return the newest verified backup of an owner's, of any kind; None where there is none."""
    return max((one for one in _counted(known, owner, now) if one.is_authentic), key=_order, default=None)


def relied_on(known: Iterable[Known], owner: Owner, rules: Rules, now: datetime) -> set[str]:
    """Return the ids of those that others may go for: the last verified ones, and what rules keep that count."""
    counted = [one for one in _counted(known, owner, now) if one.is_authentic]
    lasts = (_last_of(counted), max(counted, key=_order, default=None))
    by_count = _kept_by_rules(counted, replace(rules.policy, within=None), now)
    return {one.id for one in lasts if one is not None} | by_count.keys()


def _counted(known: Iterable[Known], owner: Owner, now: datetime) -> list[Known]:
    """Return an owner's verified backups."""
    own = (one for one in known if one.whose is not None and one.whose.is_of(owner))
    return [one for one in own if one.standing == "verified" and not _is_yet_to_come(one, now)]


def _decide_one(
    one: Known, owner: Owner, rules: Rules, now: datetime, last: Known | None, kept_by: Sequence[str]
) -> Decision:
    stays = list(_reasons_to_stay(one, owner, now, last))
    if not stays:
        # Only what might go is held against the rules: of anything else they have nothing to say.
        stays += _rules_that_keep(one, rules, now, kept_by)
    elif one is last or (one.whose is not None and one.whose.is_of(owner)):
        stays += kept_by
    if stays:
        return Decision(one, True, tuple(stays))
    return Decision(one, False, tuple(_reasons_to_go(one, rules)))


def _reasons_to_stay(one: Known, owner: Owner, now: datetime, last: Known | None) -> Iterator[str]:
    """Yield what no rule can overrule."""
    if one.whose is None:
        yield f"not recognised: {one.problem}" if one.problem else "not recognised"
        return
    if not one.whose.is_of(owner):
        yield f"of another target: {one.whose.unlike(owner)}"
        return
    if one.lock:
        yield one.lock
    if one.use:
        yield f"in use: {one.use}"
    if one.taken is None:
        yield "nobody can tell when it was taken"
    elif _is_yet_to_come(one, now):
        yield f"taken at {_shown(one.taken)}, which is yet to come by this machine's clock"
    elif last is None:
        yield f"{_standing(one)}, and there is no verified backup"
    elif one.id == last.id:
        yield "the last verified backup"
    elif _utc(one.taken) >= _taken(last) and _standing(one) == "verified" and one.kind != "scheduled":
        yield f"a {_kind(one)} backup, newer than the last scheduled one, {last.id}"
    elif _utc(one.taken) >= _taken(last):
        yield f"{_standing(one)}, and newer than the last verified one, {last.id}"


def _rules_that_keep(one: Known, rules: Rules, now: datetime, kept_by: Sequence[str]) -> Iterator[str]:
    age = now - _taken(one)
    if rules.older_than is not None and age <= rules.older_than:
        yield f"not older than {show_span(rules.older_than)}"
    if not rules.policy.has_rules or one.standing != "verified":
        return
    if one.kind != "scheduled" and age <= rules.policy.safety:
        yield f"a {_kind(one)} backup, not older than {show_span(rules.policy.safety)}"
    yield from kept_by


def _reasons_to_go(one: Known, rules: Rules) -> Iterator[str]:
    if one.standing != "verified":
        yield f"{_standing(one)}, and older than the last verified one"
    elif one.kind != "scheduled" and rules.policy.has_rules:
        yield f"a {_kind(one)} backup older than {show_span(rules.policy.safety)}"
    elif rules.policy.has_rules:
        yield "no rule keeps it"
    if rules.older_than is not None:
        yield f"older than {show_span(rules.older_than)}"


def _kept_by_rules(counted: Collection[Known], policy: Retention, now: datetime) -> dict[str, list[str]]:
    """Return the reasons of the rules by the ids of those that they keep."""
    newest_first = sorted((one for one in counted if one.kind == "scheduled"), key=_order, reverse=True)
    kept: defaultdict[str, list[str]] = defaultdict(list)
    for one in newest_first[: policy.last]:
        kept[one.id].append("the newest" if policy.last == 1 else f"one of the {policy.last} last")
    for count, bucket_of, words in (
        (policy.daily, lambda taken: taken.date(), "{:%A %Y-%m-%d}"),
        (policy.weekly, lambda taken: taken.isocalendar()[:2], "week {:%G-W%V}"),
        (policy.monthly, lambda taken: (taken.year, taken.month), "{:%B %Y}"),
        (policy.yearly, lambda taken: taken.year, "{:%Y}"),
    ):
        for one in _newest_of_each(newest_first, bucket_of, count):
            kept[one.id].append(f"the newest of {words.format(_taken(one))}")
    if policy.within is not None:
        for one in newest_first:
            if now - _taken(one) <= policy.within:
                kept[one.id].append(f"not older than {show_span(policy.within)}")
    return kept


def _newest_of_each(
    newest_first: Sequence[Known], bucket_of: Callable[[datetime], Hashable], count: int
) -> Iterator[Known]:
    seen: set[Hashable] = set()
    for one in newest_first:
        if len(seen) >= count:
            return
        bucket = bucket_of(_taken(one))
        if bucket not in seen:
            seen.add(bucket)
            yield one


def _last_of(counted: Collection[Known]) -> Known | None:
    """Return the backup that nothing before may do without: the newest that is not for safety only, if there is one."""
    scheduled = [one for one in counted if one.kind == "scheduled"]
    return max(scheduled or counted, key=_order, default=None)


def _is_yet_to_come(one: Known, now: datetime) -> bool:
    return one.taken is None or _utc(one.taken) - now > CLOCKS_DIFFER_BY


def _order(one: Known) -> tuple[datetime, str]:
    return _taken(one), one.id


def _taken(one: Known) -> datetime:
    return _utc(one.taken or datetime.min.replace(tzinfo=UTC))


def _utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _standing(one: Known) -> str:
    if one.standing == "verified":
        return "verified" if one.is_authentic else "without the signature that the inventory wants"
    what = "found to be damaged" if one.standing == "failed" else "unverified"
    return f"{what} ({one.problem})" if one.problem else what


def _kind(one: Known) -> str:
    return "safety" if one.kind == "safety" else "before-deploy"


def _shown(moment: datetime) -> str:
    return f"{_utc(moment):%Y-%m-%d %H:%M:%S} UTC"


def show_span(span: timedelta) -> str:
    """Return a span in the largest unit that it is a whole number of.

    >>> show_span(timedelta(days=30)), show_span(timedelta(hours=36)), show_span(timedelta(minutes=1.5))
    ('30 days', '36 hours', '90 seconds')
    """
    seconds = span.total_seconds()
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds and seconds % size == 0:
            count = int(seconds // size)
            return f"{count:,} {unit}{'s' if count != 1 else ''}"
    return f"{seconds:,.0f} seconds"
