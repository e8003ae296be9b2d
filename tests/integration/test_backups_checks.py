"""What checks say of a store: each is shown failing by a store in which exactly that is wrong."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from opsproof.archive.catalogue.recent import Stock, take_stock
from opsproof.archive.catalogue.verdict import Verdict, verdict_name
from opsproof.archive.manifest import to_json
from opsproof.archive.names import sidecar_name
from opsproof.errors import ProofError
from opsproof.inspection.backups import check_age, check_damage, check_restore_time, check_size, check_verified
from opsproof.system.store import Store
from opsproof.target import Target
from tests.lab.manifests import TAKEN, database_record
from tests.lab.targets import folder, put_object, sidecar_for, store, target, written

__all__ = ["folder", "store", "target"]

DAY = timedelta(days=1)
NOW = TAKEN + 3 * DAY
MEGABYTES = 2 << 20


def put(store: Store, day: float, *, size: int = 8_000_000, data: bytes = b"content", **changes: Any) -> str:
    """Store a backup that was verified when it was taken, and whose database had this size."""
    taken = TAKEN + day * DAY
    sidecar = sidecar_for(data, day, **{"database": "acme", **changes})
    record = database_record(name="acme", bytes=size)
    manifest = sidecar.manifest.model_copy(update={"database": record})
    sidecar = sidecar.model_copy(update={"verified": taken, "manifest": manifest})
    put_object(store, sidecar.name, data)
    store.put_small(sidecar_name(sidecar.id), to_json(sidecar))
    written(store, sidecar.name, taken)
    return sidecar.id


def judge(store: Store, backup: str, verdict: Verdict, day: float) -> None:
    store.put_small(verdict_name(backup, TAKEN + day * DAY, verdict), b"{}")


def complaint(raised: pytest.ExceptionInfo[ProofError]) -> ProofError:
    """Return the error, which says all that a person needs."""
    error = raised.value
    assert all((error.expected, error.found, error.hint))
    assert error.kept == "everything: a check only looks"
    assert "pytest " in error.hint
    return error


def require_sound(stock: Stock) -> None:
    """Check that nothing is wrong with it."""
    check_age(stock, 2 * DAY, NOW, "prod")
    check_size(stock, 0.5, "prod")
    check_verified(stock, 2 * DAY, NOW, "prod")
    check_damage(stock, "prod")


def test_a_store_as_it_must_be(target: Target, store: Store) -> None:
    put(store, 1)
    newest = put(store, 2)
    put(store, 2.5, kind="safety")
    put(store, 2.6, environment="staging")
    stock = take_stock(target, store)
    assert stock.newest[0].id == newest
    assert check_age(stock, 2 * DAY, NOW, "prod") == DAY
    assert check_size(stock, 0.5, "prod") == 0
    assert check_verified(stock, 2 * DAY, NOW, "prod") == DAY
    assert check_damage(stock, "prod") == 0


def test_one_of_a_time_that_is_yet_to_come_is_not_young_for_ever(target: Target, store: Store) -> None:
    put(store, 1)
    ahead = put(store, 400)
    with pytest.raises(ProofError, match="a time that is yet to come") as raised:
        check_age(take_stock(target, store), 26 * DAY / 24, NOW, "prod")
    assert ahead in complaint(raised).found
    # Two clocks may differ by a little.
    check_age(take_stock(target, store), 26 * DAY / 24, NOW + 397 * DAY - DAY / 24, "prod")


def test_of_many_only_the_newest_sidecars_are_read(
    target: Target, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(40):
        put(store, day)
    read, real = [], store.get_small

    def counting(name: str) -> bytes:
        read.append(name)
        return real(name)

    monkeypatch.setattr(store, "get_small", counting)
    assert len(take_stock(target, store).newest) == 2
    assert len(read) == 8


def test_the_newest_is_too_old(target: Target, store: Store) -> None:
    newest = put(store, 0.5)
    attempt = TAKEN + 2 * DAY
    name = f"acme_{attempt:%Y-%m-%d_%H-%M-%S}.zip"
    put_object(store, name, b"half")
    written(store, name, attempt)
    with pytest.raises(ProofError, match=r"The newest verified backup is 2\.5 days old") as raised:
        check_age(take_stock(target, store), 26 * DAY / 24, NOW, "prod")
    error = complaint(raised)
    assert "at most 1.1 days" in error.expected
    assert f"{store.location}{newest}.zip, taken 2024-03-05 13:02:03 UTC" in error.found
    assert f"{name.removesuffix('.zip')}, newer, does not count: no manifest beside it" in error.found


@pytest.mark.parametrize("check", [check_age, check_verified])
def test_there_is_none(target: Target, store: Store, check: Any) -> None:
    backup = put(store, 2)
    judge(store, backup, "failed", 2.5)
    with pytest.raises(ProofError, match="There is no verified backup") as raised:
        check(take_stock(target, store), DAY, NOW, "prod")
    assert raised.value.found.startswith(f"{store.location}{backup}.zip: its verification has failed, at ")
    assert complaint(raised).hint == "pytest actions/test_backup.py --env=prod"


def test_the_database_has_shrunk(target: Target, store: Store) -> None:
    before = put(store, 1, size=10_000_000)
    newest = put(store, 2, size=4_000_000)
    stock = take_stock(target, store)
    with pytest.raises(ProofError, match="smaller than the one before it by 60%") as raised:
        check_size(stock, 0.5, "prod")
    error = complaint(raised)
    assert error.expected == "by at most 50% (thresholds: size_fall)"
    assert error.found == f"the database: 10,000,000 bytes in {before}, 4,000,000 in {newest}"
    assert f"--backup={before} --dry-run" in error.hint
    assert check_size(stock, 0.61, "prod") == pytest.approx(0.6)


def test_what_is_stored_has_shrunk(target: Target, store: Store) -> None:
    put(store, 1, data=b"x" * MEGABYTES)
    put(store, 2, data=b"x")
    with pytest.raises(ProofError, match="by 100%") as raised:
        check_size(take_stock(target, store), 0.5, "prod")
    assert complaint(raised).found.startswith("what is stored: 2,097,152 bytes")


def test_a_lone_backup_has_nothing_to_be_compared_with(target: Target, store: Store) -> None:
    put(store, 2)
    assert check_size(take_stock(target, store), 0.5, "prod") is None


def test_the_newest_was_not_read_for_long_until_a_verification_passes(target: Target, store: Store) -> None:
    newest = put(store, 0)
    judge(store, newest, "error", 2.9)
    with pytest.raises(ProofError, match=r"1 backup was not verified for longer than 2\.0 days") as raised:
        check_verified(take_stock(target, store), 2 * DAY, NOW, "prod")
    error = complaint(raised)
    assert f"{newest} was last read to its end 3.0 days ago" in error.found
    assert error.hint == f"pytest checks/test_backups.py --env=prod --backup={newest}"
    judge(store, newest, "passed", 2.5)
    assert check_verified(take_stock(target, store), 2 * DAY, NOW, "prod") < DAY


def test_something_without_a_manifest_lies_there_for_long(target: Target, store: Store) -> None:
    put(store, 2)
    put_object(store, "acme_2024-03-05_01-02-03.zip", b"half")
    put_object(store, "another_2024-03-05_01-02-03.zip", b"half")
    with pytest.raises(ProofError, match="1 backup was not verified") as raised:
        check_verified(take_stock(target, store), 2 * DAY, NOW, "prod")
    error = complaint(raised)
    assert (
        error.found == f"{store.location}acme_2024-03-05_01-02-03.zip of 2024-03-05 01:02:03 UTC: no manifest beside it"
    )
    assert "actions/test_cleanup.py" in error.hint


def test_the_newest_was_found_damaged(target: Target, store: Store) -> None:
    put(store, 1)
    damaged = put(store, 2)
    judge(store, damaged, "failed", 2.5)
    stock = take_stock(target, store)
    with pytest.raises(ProofError, match="1 backup newer than the newest whole one: found damaged") as raised:
        check_damage(stock, "prod")
    assert complaint(raised).found == f"{store.location}{damaged}.zip"
    put(store, 2.6)
    assert check_damage(take_stock(target, store), "prod") == 1
    require_sound(take_stock(target, store))


def test_the_last_drill_took_too_long() -> None:
    assert check_restore_time(1800, timedelta(hours=1), NOW, "prod") == timedelta(minutes=30)
    with pytest.raises(ProofError, match=r"The last drill's restore took 2\.0 hours") as raised:
        check_restore_time(7200, timedelta(hours=1), NOW, "prod")
    assert complaint(raised).expected == "at most 1.0 hours (objectives: rto)"
