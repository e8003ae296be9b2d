"""Verdicts: told by a listing alone, the worse of two, and nothing that a wrong clock could hide."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opsproof.archive.catalogue.choosing import choose_backup, choose_backup_at
from opsproof.archive.catalogue.verdict import (
    Verdict,
    VerdictRecord,
    failed_backups,
    latest_verdicts,
    parse_verdict,
    read_verdict,
    record_verdict,
    verdict_name,
    verdict_to_json,
)
from opsproof.archive.manifest import Author
from opsproof.errors import ArchiveError, StoreError
from opsproof.system.store import Listing, Store
from opsproof.target import Target
from tests.lab.targets import folder, latest, put_backup, store, target

__all__ = ["folder", "store", "target"]

NOON = datetime(2026, 2, 1, 12, tzinfo=UTC)


def record(backup: str, verdict: Verdict = "failed", when: datetime = NOON) -> VerdictRecord:
    author = Author(user="ana", machine="runner-1", job=None, commit=None)
    return VerdictRecord(
        opsproof_version="1", id=backup, verdict=verdict, when=when, seconds=1.5, deep=False, bytes=7, author=author
    )


def put_verdict(store: Store, backup: str, verdict: Verdict, when: datetime = NOON) -> None:
    store.put_small(verdict_name(backup, when, verdict), verdict_to_json(record(backup, verdict, when)))


@given(
    backup=st.text("ab._-0", min_size=1),
    when=st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001  hypothesis wants them without
    verdict=st.sampled_from(["passed", "failed", "error", "skipped"]),
)
def test_a_name_says_what_was_put_into_it(backup: str, when: datetime, verdict: Verdict) -> None:
    moment = when.replace(microsecond=0, tzinfo=UTC)
    elsewhere = moment.astimezone(timezone(timedelta(hours=3)))
    assert parse_verdict(verdict_name(backup, elsewhere, verdict)) == (backup, moment, verdict)


@pytest.mark.parametrize(
    "name",
    [
        "a.zip", "a.manifest.json", "a.verdict_2026-02-01_12-00-00_passed.json.part", ".verdict_passed.json",
        "a.verdict_2026-13-01_12-00-00_passed.json", "a.verdict_2026-02-01_12-00-00_good.json",
    ],
)  # fmt: skip
def test_anything_else_is_no_verdict(name: str) -> None:
    assert parse_verdict(name) is None
    assert latest_verdicts([name]) == {}


@pytest.mark.parametrize(
    ("verdicts", "counts"),
    [
        ([("passed", 0), ("failed", 1)], ("failed", 1)),
        ([("failed", 0), ("passed", 1)], ("passed", 1)),
        ([("failed", 0), ("error", 1), ("skipped", 2)], ("failed", 0)),
        ([("passed", 1), ("failed", 1)], ("failed", 1)),
        ([("error", 0), ("skipped", 5)], ("skipped", 5)),
    ],
)
def test_the_later_of_passed_and_failed_counts(verdicts: list[tuple[Verdict, int]], counts: tuple[str, int]) -> None:
    names = [verdict_name("a", NOON + timedelta(hours=hours), verdict) for verdict, hours in verdicts]
    expected = {"a": (NOON + timedelta(hours=counts[1]), counts[0])}
    assert latest_verdicts(names) == expected
    assert latest_verdicts(reversed([*names, "a.zip", "a.manifest.json"])) == expected
    assert list(failed_backups(names)) == (["a"] if counts[0] == "failed" else [])


def test_a_record_comes_back_as_it_was_and_nothing_else_is_one() -> None:
    one = record("a")
    assert read_verdict(verdict_to_json(one), "x") == one
    with pytest.raises(ArchiveError, match="x is not the verdict of a verification"):
        read_verdict(b'{"format": "other"}', "x")


def test_a_new_verdict_outranks_one_that_a_wrong_clock_has_dated_into_the_future(store: Store) -> None:
    put_verdict(store, "a", "passed", NOON + timedelta(days=9999))
    name = record_verdict(store, record("a", "failed"))
    assert parse_verdict(name) == ("a", NOON + timedelta(days=9999, seconds=1), "failed")
    assert list(failed_backups(one.name for one in store.list())) == ["a"]
    assert record_verdict(store, record("b")) == verdict_name("b", NOON, "failed")


def test_what_has_failed_is_not_chosen_and_costs_no_more_requests(
    target: Target, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, newer = put_backup(store, 1), put_backup(store, 2)
    asked: list[str] = []
    real_list, real_get = store.list, store.get_small

    def counting_list(prefix: str = "") -> Iterator[Listing]:
        asked.append("list")
        return real_list(prefix)

    def counting_get(name: str) -> bytes:
        asked.append(name)
        return real_get(name)

    monkeypatch.setattr(store, "list", counting_list)
    monkeypatch.setattr(store, "get_small", counting_get)
    assert latest(target, store).id == newer
    before = len(asked)
    put_verdict(store, newer, "failed")
    asked.clear()
    choice = latest(target, store)
    assert choice.id == older
    assert len(asked) == before - 1
    assert f"({newer} is newer, but does not count: its verification has failed, at 2026-02-01 12:00:00" in choice.why
    at_heads = choose_backup_at(target, store, ("4b1f0c7a2d10",), 15)
    assert at_heads is not None
    assert at_heads.id == older
    put_verdict(store, newer, "passed", NOON + timedelta(hours=1))
    assert latest(target, store).id == newer


def test_where_all_have_failed_the_error_says_so_and_what_to_type(target: Target, store: Store) -> None:
    backup = put_backup(store, 1)
    put_verdict(store, backup, "failed")
    with pytest.raises(StoreError, match="No verified backup of prod/erp was found") as raised:
        latest(target, store)
    assert f"1 found damaged: {backup} (its verification has failed" in raised.value.found
    assert f"pytest checks/test_backups.py --env=prod --backup={backup}   verifies it again" in raised.value.hint
    assert f"{store.location}{backup}.zip   takes {backup} as it is, unverified" in raised.value.hint


def test_by_its_id_it_is_refused_and_by_its_place_it_is_taken_with_a_word(target: Target, store: Store) -> None:
    backup = put_backup(store, 1)
    put_verdict(store, backup, "failed")
    with pytest.raises(StoreError, match=f"{backup} was found damaged, so it counts for nothing"):
        choose_backup(target, store, backup, None)
    choice = choose_backup(target, store, str(Path(store.location, f"{backup}.zip")), None)
    assert choice.why.startswith("named by its place (its verification has failed, at 2026-02-01 12:00:00 UTC)")
    assert choice.sidecar is not None
