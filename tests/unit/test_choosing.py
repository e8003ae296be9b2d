"""The latest backup in a folder: one's own, verified, and the newest by the time of its snapshot."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.catalogue.listing import READ_AT_ONCE
from opsproof.errors import StoreError
from opsproof.system.store import Store
from opsproof.target import Target
from tests.lab.manifests import TAKEN
from tests.lab.targets import (
    folder,
    latest,
    put_backup,
    put_object,
    store,
    target,
    written,
)

__all__ = ["folder", "store", "target"]


def test_latest_is_the_newest_by_the_time_of_its_snapshot(target: Target, store: Store) -> None:
    put_backup(store, 2, data=b"the newest")
    put_backup(store, 1)
    newest_id = put_backup(store, 3, data=b"newer still")
    put_backup(store, 0)
    choice = latest(target, store)
    assert choice.id == newest_id
    assert choice.name == f"{newest_id}.zip"
    assert choice.location == f"{store.location}{newest_id}.zip"
    assert choice.path == Path(choice.location)
    assert choice.bytes == len(b"newer still")
    assert choice.sidecar is not None
    assert choice.sidecar.manifest.taken == TAKEN + timedelta(days=3)
    assert choice.why.startswith("the newest verified backup of prod/erp, ")


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (timedelta(hours=7, minutes=5), "7 hours old"),
        (timedelta(hours=1, minutes=5), "1 hour old"),
        (timedelta(days=3, minutes=5), "3 days old"),
        (timedelta(minutes=2, seconds=5), "2 minutes old"),
        (timedelta(seconds=1), "less than a minute old"),
        (-timedelta(days=1), "yet to come by this machine's clock"),
    ],
)
def test_why_says_how_old_it_is(target: Target, store: Store, age: timedelta, said: str) -> None:
    put_backup(store, (datetime.now(UTC) - age - TAKEN) / timedelta(days=1))
    assert latest(target, store).why.endswith(said)


def test_of_hundreds_only_the_newest_are_read(target: Target, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    real = store.get_small

    def counting(name: str) -> bytes:
        read.append(name)
        return real(name)

    for day in range(120):
        name = put_backup(store, day)
        written(store, f"{name}.zip", TAKEN + timedelta(days=day))
    monkeypatch.setattr(store, "get_small", counting)
    assert latest(target, store).id == name
    assert len(read) == READ_AT_ONCE


def test_an_own_backup_behind_hundreds_of_others_is_found(target: Target, store: Store) -> None:
    own = put_backup(store, 0)
    for day in range(1, 130):
        put_backup(store, day, environment="staging")
    assert latest(target, store).id == own


@pytest.mark.parametrize("order", [1, -1], ids=["as taken", "backwards"])
def test_wrong_times_of_the_files_do_not_hide_the_newest(target: Target, store: Store, order: int) -> None:
    """A folder that was copied about has any times; the snapshot's time in the name counts, too."""
    names = [put_backup(store, day) for day in range(30)]
    for number, name in enumerate(names):
        written(store, f"{name}.zip", TAKEN - timedelta(days=1000) + order * timedelta(days=number))
    assert latest(target, store).id == names[-1]


def test_a_name_that_says_nothing_does_not_hide_the_newest(target: Target, store: Store) -> None:
    for day in range(30):
        name = put_backup(store, day)
        written(store, f"{name}.zip", TAKEN + timedelta(days=day))
    for path in Path(store.location).glob(f"{name}.*"):
        path.rename(path.with_name(path.name.replace(name, "before-the-move")))
    assert latest(target, store).id == "before-the-move"


def test_a_server_whose_clock_is_ahead_does_not_hide_the_newest(target: Target, store: Store) -> None:
    for number in range(20):
        name = put_backup(store, number / 24)
        written(store, f"{name}.zip", TAKEN + timedelta(hours=number))
    ahead = put_backup(store, 1, id="named-by-hand")
    written(store, f"{ahead}.zip", TAKEN + timedelta(hours=1))
    assert latest(target, store).id == ahead


def test_what_was_taken_by_a_clock_that_was_wrong_is_not_the_newest_for_years(target: Target, store: Store) -> None:
    """All that was backed up since would be passed over, without a word, until that time has come."""
    now = (datetime.now(UTC) - TAKEN) / timedelta(days=1)
    ahead = put_backup(store, now + 400)
    with pytest.raises(StoreError) as caught:
        latest(target, store)
    assert "yet to come by this machine's clock" in caught.value.found
    assert f"--backup={ahead}" in caught.value.hint
    own = put_backup(store, now - 1)
    assert latest(target, store).id == own
    assert choose_backup(target, store, ahead, None).id == ahead


def test_a_name_with_a_month_that_is_none_is_no_error(target: Target, store: Store) -> None:
    put_object(store, "acme_2024-13-99_01-02-03.zip", b"x")
    put_object(store, "acme_9999-12-31_23-59-59.zip", b"x")
    own = put_backup(store, 0)
    assert latest(target, store).id == own


def test_at_is_the_newest_not_after_that_time(target: Target, store: Store) -> None:
    names = [put_backup(store, day) for day in range(5)]
    choice = latest(target, store, TAKEN + timedelta(days=2, hours=23))
    assert choice.id == names[2]
    assert "not after 2024-03-08 00:02:03 UTC" in choice.why


def test_at_to_the_second_takes_the_backup_that_a_listing_shows_with_that_time(target: Target, store: Store) -> None:
    name = put_backup(store, 0)
    assert TAKEN.microsecond
    assert latest(target, store, TAKEN.replace(microsecond=0)).id == name
    with pytest.raises(StoreError, match="not after 2024-03-05 01:02:02 UTC was found"):
        latest(target, store, TAKEN.replace(microsecond=0) - timedelta(seconds=1))


def test_unverified_ones_are_passed_over_and_the_newer_is_named(target: Target, store: Store) -> None:
    put_backup(store, 0, verified=False)
    own = put_backup(store, 1)
    newer = put_backup(store, 2, verified=False)
    now = datetime.now(UTC)
    written(store, f"{newer}.zip", now)
    choice = latest(target, store)
    assert choice.id == own
    assert choice.why.endswith(f"({newer} is newer, but does not count: no manifest beside it)")


def test_of_two_of_the_same_second_the_second_is_the_newer(target: Target, store: Store) -> None:
    own = put_backup(store)
    assert TAKEN.microsecond, "which names do not tell"
    put_object(store, f"{own}_2.zip", b"content")
    assert latest(target, store).why.endswith(f"({own}_2 is newer, but does not count: no manifest beside it)")


def test_an_older_unverified_one_is_not_worth_a_word(target: Target, store: Store) -> None:
    put_backup(store, 0, verified=False)
    put_backup(store, 1)
    assert "does not count" not in latest(target, store).why


def test_a_bundle_of_another_size_than_its_manifest_says_is_passed_over(target: Target, store: Store) -> None:
    own, cut = put_backup(store, 0), put_backup(store, 1)
    Path(store.location, f"{cut}.zip").write_bytes(b"conten")
    assert latest(target, store).id == own


def test_latest_is_never_a_safety_backup(target: Target, store: Store) -> None:
    own = put_backup(store, 0, kind="before deploy")
    safety = put_backup(store, 1, kind="safety")
    assert latest(target, store).id == own
    named = choose_backup(target, store, safety, None)
    assert named.id == safety
    assert named.why.startswith("named by its id: a safety backup of prod/erp, ")
