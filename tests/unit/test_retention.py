"""Which backups go: by example, and held against a naive oracle over thousands of stores and policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsproof.archive.catalogue.ownership import Owner
from opsproof.archive.catalogue.retention import CLOCKS_DIFFER_BY, Decision, Known, Rules, Whose, decide, last_verified
from opsproof.errors import ConfigurationError
from opsproof.policies import Retention

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)
OWNER = Owner("prod", "erp", "acme", "shop")
MINE = Whose("prod", "erp", "acme", "shop")
DAY = timedelta(days=1)


def backup(name: str, days: float, **changes: object) -> Known:
    return replace(Known(name, NOW - days * DAY, MINE), **changes)  # type: ignore[arg-type]


def gone(known: Sequence[Known], rules: Rules, owner: Owner = OWNER) -> list[str]:
    return [one.backup.id for one in decide(known, owner, rules, NOW) if not one.keep]


def reasons(known: Sequence[Known], rules: Rules) -> dict[str, str]:
    return {one.backup.id: one.why for one in decide(known, OWNER, rules, NOW)}


def test_each_rule_keeps_what_it_names_and_says_so() -> None:
    known = [backup(f"b{days}", days) for days in (0, 0.2, 1, 2, 8, 20, 50, 400, 800)]
    rules = Rules(Retention(last=2, daily=2, weekly=2, monthly=2, yearly=2, within=timedelta(days=3)))
    assert reasons(known, rules) == {
        "b0": "the last verified backup; one of the 2 last; the newest of Wednesday 2026-11-18;"
        " the newest of week 2026-W47; the newest of November 2026; the newest of 2026; not older than 3 days",
        "b0.2": "one of the 2 last; not older than 3 days",
        "b1": "the newest of Tuesday 2026-11-17; not older than 3 days",
        "b2": "not older than 3 days",
        "b8": "the newest of week 2026-W46",
        "b20": "the newest of October 2026",
        "b50": "no rule keeps it",
        "b400": "the newest of 2025",
        "b800": "no rule keeps it",
    }


def test_what_no_rule_can_overrule_stays_and_says_why() -> None:
    known = [
        backup("last", 5),
        backup("staging", 90, whose=Whose("staging", "erp", "acme", "shop")),
        backup("customer", 90, whose=Whose("prod", "erp", "other", "shop")),
        backup("database", 90, whose=Whose("prod", "erp", "acme", "old_shop")),
        backup("strange", 90, whose=None, taken=None, standing="unverified", problem="no manifest beside it"),
        backup("locked", 90, lock="locked until 2027-01-31 00:00:00 UTC (COMPLIANCE)"),
        backup("used", 90, use="a restore of prod/erp names it"),
        backup("newer", 1, standing="unverified", problem="no manifest beside it"),
        backup("failed", 2, standing="failed", problem="verified 2026-11-17 04:00:00 UTC"),
        backup("safe", 3, kind="safety"),
        backup("before", 4, kind="before deploy"),
        backup("future", -400),
    ]
    assert reasons(known, Rules(Retention(last=1), DAY)) == {
        "last": "the last verified backup; the newest",
        "staging": "of another target: staging/erp",
        "customer": "of another target: prod/erp, customer other",
        "database": "of another target: prod/erp, database old_shop",
        "strange": "not recognised: no manifest beside it",
        "locked": "locked until 2027-01-31 00:00:00 UTC (COMPLIANCE)",
        "used": "in use: a restore of prod/erp names it",
        "newer": "unverified (no manifest beside it), and newer than the last verified one, last",
        "failed": "found to be damaged (verified 2026-11-17 04:00:00 UTC), and newer than the last verified one, last",
        "safe": "a safety backup, newer than the last scheduled one, last",
        "before": "a before-deploy backup, newer than the last scheduled one, last",
        "future": "taken at 2027-12-23 12:00:00 UTC, which is yet to come by this machine's clock",
    }


def test_a_failed_verification_makes_an_older_backup_the_last_one() -> None:
    known = [backup("new", 1, standing="failed"), backup("old", 40), backup("older", 50)]
    assert gone(known, Rules(older_than=30 * DAY)) == ["older"]
    assert last_verified(known, OWNER, NOW) == known[1]


def test_a_span_alone_removes_all_that_is_older_but_the_last() -> None:
    known = [backup("a", 100), backup("b", 60), backup("c", 40, kind="safety"), backup("d", 20), backup("e", 90)]
    assert gone(known, Rules(older_than=30 * DAY)) == ["a", "b", "c", "e"]
    assert gone([backup("a", 100), backup("b", 60)], Rules(older_than=30 * DAY)) == ["a"]


def test_a_span_beside_a_policy_only_narrows_it() -> None:
    known = [backup(f"b{days}", days) for days in (0, 1, 10, 40, 400)]
    assert gone(known, Rules(Retention(last=1, yearly=2))) == ["b1", "b10", "b40"]
    assert gone(known, Rules(Retention(last=1, yearly=2), 30 * DAY)) == ["b40"]


def test_what_was_taken_for_safety_goes_after_its_time_and_counts_for_no_rule() -> None:
    known = [
        backup("s1", 2, kind="safety"),
        backup("s20", 20, kind="safety"),
        backup("d20", 20, kind="before deploy"),
        backup("b1", 1),
        backup("b30", 30),
    ]
    assert gone(known, Rules(Retention(last=2, safety=14 * DAY))) == ["s20", "d20"]
    only = [backup("s90", 90, kind="safety"), backup("s95", 95, kind="safety")]
    assert gone(only, Rules(Retention(last=1))) == ["s95"]
    # Newer than the last verified scheduled one, it is the best there is.
    assert gone([backup("s20", 20, kind="safety"), backup("b30", 30)], Rules(Retention(last=1))) == []


def test_clocks_that_were_wrong_do_no_harm() -> None:
    """A backup dated into the future by a clock that was set back since is not `the newest` that lets all others go."""
    known = [backup("future", -2000), backup("today", 0.1), backup("yesterday", 1)]
    assert gone(known, Rules(Retention(last=1))) == ["yesterday"]


def test_a_time_without_a_zone_is_utc() -> None:
    known = [backup("new", 0), Known("old", (NOW - 40 * DAY).replace(tzinfo=None), MINE)]
    assert gone(known, Rules(older_than=39 * DAY)) == ["old"]
    assert gone(known, Rules(older_than=41 * DAY)) == []


def test_neither_policy_nor_span_is_refused_with_what_to_write() -> None:
    with pytest.raises(ConfigurationError) as caught:
        Rules().require("pytest actions/test_cleanup.py --env=prod --target=erp")
    assert "retention: {daily: 7" in caught.value.hint
    assert "--env=prod --target=erp --older-than=30d --dry-run" in caught.value.hint
    Rules(older_than=DAY).require("")
    Rules(Retention(last=1)).require("")


# -- the property: any store, any policy --------------------------------------------------------------------------

# Few moments, so that days, weeks and ties collide; some years back, some to come, around midnight and new year.
MOMENTS = st.one_of(
    st.integers(-40, 24 * 45).map(lambda hours: NOW - timedelta(hours=hours)),
    st.integers(-700, 1500).map(lambda days: NOW - timedelta(days=days)),
    st.sampled_from(
        [datetime(2025, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2026, 1, 1, tzinfo=UTC), NOW, NOW - 30 * DAY]
    ),
)
OWNERS = [
    MINE,
    Whose("staging", "erp", "acme", "shop"),
    Whose("prod", "crm", "acme", "shop"),
    Whose("prod", "erp", "", "shop"),
    Whose("prod", "erp", "acme", "shop_old"),
]
KNOWN = st.builds(
    Known,
    id=st.just(""),
    taken=st.one_of(MOMENTS, MOMENTS, MOMENTS, MOMENTS, st.none()),
    whose=st.sampled_from([*[MINE] * 6, *OWNERS[1:], None]),
    kind=st.sampled_from(["scheduled", "scheduled", "scheduled", "safety", "before deploy"]),
    standing=st.sampled_from(["verified", "verified", "verified", "verified", "failed", "unverified"]),
    lock=st.sampled_from(["", "", "", "", "", "locked until 2030-01-01"]),
    use=st.sampled_from(["", "", "", "", "", "a restore names it"]),
)
STORES = st.lists(KNOWN, max_size=24).map(
    lambda known: [replace(one, id=f"shop_{number}") for number, one in enumerate(known)]
)
SPANS = st.one_of(st.none(), st.integers(0, 24 * 400).map(lambda hours: timedelta(hours=hours)))
POLICIES = st.builds(
    Retention,
    within=SPANS,
    last=st.integers(0, 5),
    daily=st.integers(0, 8),
    weekly=st.integers(0, 5),
    monthly=st.integers(0, 5),
    yearly=st.integers(0, 3),
    safety=st.integers(0, 40).map(lambda days: timedelta(days=days)),
)
RULES = st.builds(Rules, st.one_of(POLICIES, st.just(Retention())), SPANS).filter(
    lambda rules: rules.policy.has_rules or rules.older_than is not None
)


def when(one: Known) -> datetime:
    assert one.taken is not None
    return one.taken


def naive(known: Sequence[Known], whose: Whose, rules: Rules) -> set[str]:
    """Return what goes, said once more as the rules are written for people, without regard for speed."""
    policy = rules.policy
    own = [one for one in known if one.whose == whose and one.taken is not None]
    good = [one for one in own if one.standing == "verified" and when(one) <= NOW + CLOCKS_DIFFER_BY]
    regular = [one for one in good if one.kind == "scheduled"]
    if not good:
        return set()
    last = sorted(regular or good, key=lambda one: (when(one), one.id))[-1]

    def rank(one: Known, shape: str) -> int | None:
        """How many newer periods have a backup, where it is the newest of its own; else None."""
        peers = [each for each in regular if f"{when(each):{shape}}" == f"{when(one):{shape}}"]
        if any((when(each), each.id) > (when(one), one.id) for each in peers):
            return None
        mine = f"{when(one):{shape}}"
        return len({f"{when(each):{shape}}" for each in regular if f"{when(each):{shape}}" > mine})

    def is_kept(one: Known) -> bool:
        newer = sum((when(each), each.id) > (when(one), one.id) for each in regular)
        if newer < policy.last or (policy.within is not None and when(one) >= NOW - policy.within):
            return True
        periods = (("%Y%m%d", policy.daily), ("%G%V", policy.weekly), ("%Y%m", policy.monthly), ("%Y", policy.yearly))
        ranks = [(rank(one, shape), count) for shape, count in periods]
        return any(place is not None and place < count for place, count in ranks)

    going = set()
    for one in own:
        if one.lock or one.use or when(one) >= when(last):
            continue
        if rules.older_than is not None and not when(one) < NOW - rules.older_than:
            continue
        if one.standing == "verified" and policy.has_rules:
            if one.kind == "scheduled" and is_kept(one):
                continue
            if one.kind != "scheduled" and not when(one) < NOW - policy.safety:
                continue
        going.add(one.id)
    return going


def left_of(known: Sequence[Known], decisions: Sequence[Decision]) -> list[Known]:
    return [one for one, decision in zip(known, decisions, strict=True) if decision.keep]


@settings(max_examples=2000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STORES, RULES)
def test_what_goes_is_what_should_and_never_the_last_one(known: list[Known], rules: Rules) -> None:
    decisions = decide(known, OWNER, rules, NOW)
    going = {one.backup.id for one in decisions if not one.keep}
    assert going == naive(known, MINE, rules)
    assert [one.backup for one in decisions] == known
    assert all(one.reasons and all(one.reasons) for one in decisions)

    # The last verified one, by any reckoning, and whatever is newer.
    last = last_verified(known, OWNER, NOW)
    if last is None:
        assert not going
    else:
        assert last.id not in going
        assert all(when(one) < when(last) for one in known if one.id in going)
    assert all(one.whose == MINE and not one.lock and not one.use for one in known if one.id in going)

    # A second run finds nothing more to do, and the same last one.
    left = left_of(known, decisions)
    assert all(one.keep for one in decide(left, OWNER, rules, NOW))
    assert last_verified(left, OWNER, NOW) == last


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(STORES, RULES, st.permutations(range(24)))
def test_neither_others_nor_the_order_of_the_listing_change_what_goes(
    known: list[Known], rules: Rules, order: list[int]
) -> None:
    going = set(gone(known, rules))
    assert set(gone([one for one in known if one.whose == MINE], rules)) == going
    assert set(gone([known[at] for at in order if at < len(known)], rules)) == going
    for whose in OWNERS[1:]:
        other = Owner(whose.environment, whose.target, whose.customer, whose.database)
        theirs = set(gone(known, rules, other))
        assert theirs == naive(known, whose, rules)
        assert not theirs & {one.id for one in known if one.whose != whose}
