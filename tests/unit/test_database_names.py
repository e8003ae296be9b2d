"""Names of side and parked databases: 63 bytes at most, whole characters, never equal for two databases."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from opsproof.system.postgres.databases import OURS, parked_name, side_name

MOMENT = datetime(2026, 1, 31, 2, 3, 4, 567, tzinfo=UTC)
LONG = ("x" * 63, "ä" * 31, "日本" * 10 + "abc", "a" + "€" * 20, "x" * 42 + "é", "😀" * 15)


def test_a_short_name_is_kept_whole() -> None:
    assert side_name("prod", MOMENT) == "prod__side_20260131020304"
    assert parked_name("prod", MOMENT) == "prod__before_20260131020304"


def test_the_moment_is_told_in_utc() -> None:
    there = MOMENT.astimezone(timezone(timedelta(hours=9)))
    assert side_name("prod", there) == side_name("prod", MOMENT)


@pytest.mark.parametrize("name", LONG)
def test_a_long_name_is_cut_between_characters(name: str) -> None:
    for made in (side_name(name, MOMENT), parked_name(name, MOMENT)):
        assert len(made.encode()) <= 63
        kept = made.split("__")[0].rpartition("_")[0]
        assert kept
        assert name.startswith(kept)
        assert made.endswith("_20260131020304")


@pytest.mark.parametrize(("make", "room"), [(side_name, 42), (parked_name, 40)])
def test_a_name_is_cut_only_where_it_must_be(make: object, room: int) -> None:
    assert callable(make)
    assert make("x" * room, MOMENT) == "x" * room + make("", MOMENT)
    assert len(make("x" * (room + 1), MOMENT)) == 63
    assert make("x" * (room + 1), MOMENT).startswith("x" * (room - 9) + "_")


def test_two_long_names_with_one_beginning_stay_two() -> None:
    one, other = "x" * 62 + "a", "x" * 62 + "b"
    assert side_name(one, MOMENT) != side_name(other, MOMENT)
    assert parked_name(one, MOMENT) != parked_name(other, MOMENT)


@pytest.mark.parametrize("name", ["prod", "two\nlines", *LONG])
def test_our_names_are_known_again_and_others_are_not(name: str) -> None:
    assert OURS.fullmatch(side_name(name, MOMENT))
    assert OURS.fullmatch(parked_name(name, MOMENT))
    assert not OURS.fullmatch(name)
    assert not OURS.fullmatch(side_name(name, MOMENT) + "x")
