"""A cleanup of a store that is killed at any moment leaves nothing that is taken for a backup, and the next ends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsproof.archive.catalogue.index import write_index
from opsproof.archive.catalogue.retention import Rules
from opsproof.archive.catalogue.verdict import verdict_name
from opsproof.archive.names import sidecar_name
from opsproof.archive.sealing.signature import load_signer
from opsproof.errors import ProofError
from opsproof.journal import Journal
from opsproof.policies import Policies, Retention, Sealing
from opsproof.procedures.cleanup.removal import Removed, remove_backups
from opsproof.procedures.cleanup.shelf import renew_index, require_readable
from opsproof.procedures.cleanup.stocktaking import Stock, take_stock
from opsproof.system.store import Lock, Refusal, Store, StoredObject
from opsproof.system.store.directory import DirectoryStore
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, Target
from tests.lab.bundles import write_bundle
from tests.lab.sealing import new_signing_key
from tests.lab.stocks import put_backup

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)
DAY = timedelta(days=1)
RULES = Rules(Retention(last=2))


class Killed(BaseException):
    """What ends a run between two calls of the system."""


class Mortal(DirectoryStore):
    """A store whose user is killed after a number of deletions, of which one call may be many."""

    def __init__(self, folder: Path, deletions: int = 10**9) -> None:
        super().__init__(folder)
        self.left = deletions

    def delete(self, stored: StoredObject) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1
        super().delete(stored)


def target_of(folder: Path, name: str = "shop", environment: str = "prod") -> Target:
    return Target(name, environment, DatabaseAddress("shop"), DirectoryStoreSettings(folder), "")


def stock_of(store: Store, folder: Path, environment: str = "prod") -> Stock:
    return take_stock(target_of(folder, environment=environment), store, RULES, {}, NOW)


def clean(store: Store, folder: Path) -> Removed:
    """Do what the procedure does: an index first, so that nothing half removed is a stranger, then the removal."""
    stock = stock_of(store, folder)
    if stock.going and stock.contents.read:
        write_index(store, stock.contents.lines.values(), NOW)
    removed = remove_backups(store, stock.going, Journal(None), check_locks=False)
    renew_index(store, stock_of(store, folder).contents)
    return removed


def fill(folder: Path) -> list[str]:
    store = DirectoryStore(folder)
    ids = [put_backup(store, NOW - days * DAY) for days in range(6)]
    put_backup(store, NOW - 9 * DAY, environment="staging")
    store.put_small(verdict_name(ids[4], NOW, "passed"), b"{}")
    store.put_small(f"{ids[4]}.manifest.sig", b"signed")
    return ids


def names(folder: Path) -> set[str]:
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {name for name in found if not name.startswith("index/")}


def test_killed_after_any_deletion_the_next_run_comes_to_the_same_end(tmp_path: Path) -> None:
    fill(tmp_path / "whole")
    clean(Mortal(tmp_path / "whole"), tmp_path / "whole")
    end = names(tmp_path / "whole")
    assert len(end) == 6  # two of ours, one of staging's
    for deletions in range(40):
        folder = tmp_path / str(deletions)
        fill(folder)
        try:
            clean(Mortal(folder, deletions), folder)
        except Killed:
            was_killed = True
        else:
            was_killed = False
        there = names(folder)
        assert end <= there
        manifests = {name for name in there if name.endswith(".manifest.json")}
        assert {name.replace(".manifest.json", ".zip") for name in manifests} <= there
        clean(Mortal(folder), folder)
        assert names(folder) == end, deletions
        assert len(list((folder / "index").iterdir())) == 1
        if not was_killed:
            break
    assert deletions >= 10
    assert not was_killed


class Locking(DirectoryStore):
    """A folder with locks, as a bucket may have them; `change` is done when a lock is asked for."""

    locked: Sequence[str] = ()

    def lock_of(self, name: str) -> Lock | None:
        return Lock(NOW + DAY, "COMPLIANCE", legal_hold=False) if name in self.locked else None

    def delete_all(self, objects: Sequence[StoredObject]) -> tuple[Refusal, ...]:
        refused = [Refusal(one.name, "locked") for one in objects if one.name in self.locked]
        return (*refused, *super().delete_all([one for one in objects if one.name not in self.locked]))


def test_what_was_locked_or_changed_since_the_plan_stays_whole_and_is_told(tmp_path: Path) -> None:
    ids = fill(tmp_path)
    store = Locking(tmp_path)
    going = stock_of(store, tmp_path).going
    assert [one.known.id for one in going] == [ids[5], ids[4], ids[3], ids[2]]
    store.locked = (f"{ids[2]}.zip", sidecar_name(ids[3]))
    changed = tmp_path / sidecar_name(ids[4])
    changed.write_bytes(changed.read_bytes().replace(b'"kind": "scheduled"', b'"kind": "safety"'))
    removed = remove_backups(store, going, Journal(None), check_locks=True)
    assert removed.backups == [ids[5]]
    assert sorted(removed.left) == sorted(
        [
            f"{ids[2]}: locked until 2026-11-19 12:00:00 UTC (COMPLIANCE)",
            f"{ids[3]}: locked until 2026-11-19 12:00:00 UTC (COMPLIANCE)",
            f"{ids[4]}: its manifest is another one by now",
        ]
    )
    for one in ids[:5]:
        assert {f"{one}.zip", sidecar_name(one)} <= names(tmp_path)


def test_what_the_store_refuses_of_a_manifest_keeps_its_backup(tmp_path: Path) -> None:
    ids = fill(tmp_path)
    store = Locking(tmp_path)
    going = stock_of(store, tmp_path).going
    store.locked = (sidecar_name(ids[3]),)
    removed = remove_backups(store, going, Journal(None), check_locks=False)
    assert (removed.left, removed.refused) == ([], [f"{sidecar_name(ids[3])}: locked"])
    assert f"{ids[3]}.zip" in names(tmp_path)
    assert sorted(removed.backups) == sorted([ids[2], ids[4], ids[5]])


def test_a_bundle_without_a_manifest_goes_only_if_it_says_itself_whose_it_is(tmp_path: Path) -> None:
    """Two environments may share a prefix, and a name does not tell them apart."""
    store = DirectoryStore(tmp_path)
    put_backup(store, NOW)
    named = write_bundle(tmp_path / "own.zip")  # of prod/erp, customer acme-corp, database acme, in 2024
    (tmp_path / "own.zip").rename(tmp_path / named.name)
    (tmp_path / "acme_2024-03-06_01-02-03.zip").write_bytes((tmp_path / named.name).read_bytes())
    (tmp_path / "acme_2024-03-07_01-02-03.zip").write_bytes(b"PK cut")

    def going(environment: str) -> list[str]:
        address = DatabaseAddress("acme")
        target = Target("erp", environment, address, DirectoryStoreSettings(tmp_path), "acme-corp")
        put_backup(store, NOW - (environment == "prod") * DAY, database="acme", environment=environment,
                   target="erp", customer="acme-corp")  # fmt: skip
        return [one.bundle.name for one in take_stock(target, store, RULES, {}, NOW).going if one.bundle]

    assert going("staging") == []
    assert going("prod") == [named.name]


def test_a_last_backup_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    ids = fill(tmp_path)
    store = DirectoryStore(tmp_path)
    last = next(one for one in stock_of(store, tmp_path).holdings if one.known.id == ids[0])
    require_readable(store, last, "")
    (tmp_path / f"{ids[0]}.zip").write_bytes(b"")
    with pytest.raises(ProofError, match="cannot be read"):
        require_readable(store, last, "")


def test_a_bundle_of_another_size_than_its_manifest_says_is_unverified(tmp_path: Path) -> None:
    ids = fill(tmp_path)
    (tmp_path / f"{ids[0]}.zip").write_bytes(b"cut")
    stock = stock_of(DirectoryStore(tmp_path), tmp_path)
    assert stock.last is not None
    assert stock.last.id == ids[1]
    assert {one.known.id for one in stock.going} == set(ids[3:])


def test_a_verdict_that_outlived_its_backup_goes_by_itself(tmp_path: Path) -> None:
    ids = fill(tmp_path)
    store = Locking(tmp_path)
    verdict = verdict_name(ids[4], NOW, "passed")
    store.locked = (verdict,)
    removed = remove_backups(store, stock_of(store, tmp_path).going, Journal(None), check_locks=True)
    assert (removed.left, removed.refused) == ([f"{verdict}: locked"], [])
    assert ids[4] in removed.backups
    assert [one.name for one in stock_of(store, tmp_path).lone] == [verdict]
    assert "remove 1 verdicts and signatures of backups that are gone" in list(stock_of(store, tmp_path).plan())


def test_what_somebody_has_deleted_by_mistake_is_not_taken_for_the_rest_of_a_cleanup(tmp_path: Path) -> None:
    """In a bucket with versions the old versions of the one are its last copy; those of the other go."""
    ids = fill(tmp_path)
    store = DirectoryStore(tmp_path)
    write_index(store, stock_of(store, tmp_path).contents.lines.values(), NOW)
    for one in (ids[0], ids[5]):
        (tmp_path / f"{one}.zip").unlink()
        (tmp_path / sidecar_name(one)).unlink()
    stock = stock_of(store, tmp_path)
    assert set(stock.contents.gone) == {ids[0], ids[5]}
    assert stock.gone_for_good(RULES, NOW) == {ids[5]}


def test_what_nobody_has_signed_takes_no_signed_backups_place(tmp_path: Path) -> None:
    key, folder = new_signing_key(tmp_path), tmp_path / "backups"
    sealing = Sealing(signing_key_file=str(key.private), verify_key_file=str(key.public))
    signer = load_signer(sealing, {})
    assert signer is not None
    store, target = DirectoryStore(folder), replace(target_of(folder), policies=Policies(sealing=sealing))
    ids = [put_backup(store, NOW - days * DAY) for days in range(6)]
    for one in ids[:4]:
        store.put_small(f"{one}.manifest.sig", signer.sign((folder / sidecar_name(one)).read_bytes()))
    forged = [put_backup(store, NOW - hours * DAY / 24 + DAY / 2) for hours in range(3)]
    stock = take_stock(target, store, RULES, {}, NOW)
    assert stock.last is not None
    assert stock.last.id == ids[0]
    # What is newer than the last verified one stays, and what is older goes by the rules, signed or not.
    assert {one.known.id for one in stock.going} == {*ids[2:]}
    assert {one.known.id for one in stock.own_staying} == {*ids[:2], *forged}
    assert stock.contents.read == 9
    for one in ids[:4]:
        (folder / f"{one}.manifest.sig").unlink()
    assert take_stock(target, store, RULES, {}, NOW).going == []


def test_another_targets_cleanup_does_not_forget_what_a_killed_one_has_half_removed(tmp_path: Path) -> None:
    ids = fill(tmp_path)
    with pytest.raises(Killed):
        clean(Mortal(tmp_path, 2), tmp_path)
    store = DirectoryStore(tmp_path)
    halves = [one for one in ids if not (tmp_path / sidecar_name(one)).exists()]
    assert halves == ids[4:]
    for _ in range(2):
        staging = stock_of(store, tmp_path, "staging")
        assert staging.going == []
        renew_index(store, staging.contents)
        put_backup(store, NOW - DAY * len(list(tmp_path.iterdir())), environment="staging")
    assert {one.known.id for one in stock_of(store, tmp_path).going} == set(ids[2:])
