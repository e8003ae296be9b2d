"""Where no backup can be chosen, what is there instead is told; and never is an older one taken in silence."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.names import sidecar_name
from opsproof.errors import StoreDenied, StoreError, StoreUnreachable
from opsproof.system.store import Store, open_store
from opsproof.system.store.directory import DirectoryStore
from opsproof.target import DirectoryStoreSettings, Target
from tests.lab.manifests import TAKEN
from tests.lab.targets import (
    CUSTOMER,
    folder,
    latest,
    put_backup,
    store,
    target,
    target_of,
)

__all__ = ["folder", "store", "target"]


def test_what_is_there_instead_is_told_with_what_to_type(target: Target, store: Store) -> None:
    for day in range(3):
        other = put_backup(store, day, environment="staging")
    safety = put_backup(store, 5, kind="safety")
    unverified = put_backup(store, 6, verified=False)
    later = put_backup(store, 8)
    put_backup(store, 9)
    gone = put_backup(store, 10)
    Path(store.location, f"{gone}.zip").unlink()
    with pytest.raises(StoreError, match="No verified backup of prod/erp not after 2024-03-12") as caught:
        latest(target, store, TAKEN + timedelta(days=7))
    error = caught.value
    assert error.expected.endswith(f"in {store.location} (folder {store.location[:-19]}, customer acme-corp)")
    assert error.found.splitlines() == [
        f"2 taken after 2024-03-12 01:02:03 UTC, the oldest {later}",
        f"1 taken for safety: {safety}",
        f"3 of staging/erp, the newest {other}",
        f"1 never verified: {unverified} (no manifest beside it)",
        "1 manifests without their backups",
    ]
    assert error.hint.splitlines() == [
        f"--backup={later}",
        f"--backup={safety}   takes that safety backup",
        "--from=staging/erp",
        f"--backup={store.location}{unverified}.zip   takes {unverified} as it is, unverified",
        "check backup_dir and the customer name",
    ]
    for line in error.hint.splitlines()[:2]:
        wanted = line.split()[0].removeprefix("--backup=")
        assert choose_backup(target, store, wanted, None).id == wanted


def test_an_empty_place_is_told_with_the_customers_beside_it(target: Target, store: Store, folder: Path) -> None:
    with pytest.raises(StoreError) as caught:
        latest(target, store)
    assert caught.value.found == f"there is no folder {store.location}"
    put_backup(open_store(target.store, "acme-corporation"), customer="acme-corporation")
    (folder / "lost+found").mkdir()
    Path(store.location).mkdir(parents=True)
    with pytest.raises(StoreError) as caught:
        latest(target, store)
    assert caught.value.found.splitlines() == [
        f"nothing at all under {store.location}",
        "folders of customers beside it: acme-corporation",
    ]


@pytest.mark.parametrize("error", [StoreDenied("refused"), StoreUnreachable("silent"), StoreError("broken")])
@pytest.mark.parametrize("wanted", ["latest", "id"])
def test_no_older_backup_is_taken_where_a_newer_cannot_be_looked_at(
    target: Target, store: Store, monkeypatch: pytest.MonkeyPatch, error: StoreError, wanted: str
) -> None:
    put_backup(store, 0)
    newer = put_backup(store, 1)
    real = store.get_small

    def failing(name: str) -> bytes:
        if name == sidecar_name(newer):
            raise error
        return real(name)

    monkeypatch.setattr(store, "get_small", failing)
    with pytest.raises(StoreError) as caught:
        choose_backup(target, store, newer if wanted == "id" else wanted, None)
    assert caught.value is error
    assert ("check backup_dir" in error.hint) == isinstance(error, StoreDenied)


def test_a_backup_that_is_removed_meanwhile_is_passed_over(
    target: Target, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, removed = put_backup(store, 0), put_backup(store, 1)
    real = DirectoryStore.get_small

    def removing(self: DirectoryStore, name: str) -> bytes:
        if name == sidecar_name(removed):
            Path(store.location, name).unlink()
        return real(self, name)

    monkeypatch.setattr(DirectoryStore, "get_small", removing)
    assert latest(target, store).id == own


def test_a_folder_that_may_not_be_listed_says_so(target: Target, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put_backup(store, 0)

    def refused(*_: object, onerror: object = None) -> object:
        raise PermissionError(13, "Permission denied", store.location)

    monkeypatch.setattr("opsproof.system.store.directory.os.walk", refused)
    with pytest.raises(StoreDenied, match="may not list") as caught:
        latest(target, store)
    assert "to look for backups of prod/erp in" in caught.value.expected


def test_a_customer_less_folder_holds_its_backups_itself(tmp_path: Path) -> None:
    target = target_of(DirectoryStoreSettings(tmp_path), customer="")
    store = open_store(target.store, "")
    put_backup(store, customer=CUSTOMER)
    with pytest.raises(StoreError) as caught:
        latest(target, store)
    assert caught.value.found.startswith("1 of prod/erp, customer acme-corp: acme_")
    own = put_backup(store, 1, customer="")
    assert latest(target, store).id == own
