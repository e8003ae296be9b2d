"""What a folder says where a bucket would speak of locks, versions and settings, and the deletion of many files."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opsproof.errors import ProofError, StoreError
from opsproof.inspection.bucket import check_bucket, require_bucket
from opsproof.policies import BucketExpectations
from opsproof.system.store import OldVersion, Store, StoredObject, open_store
from opsproof.target import DirectoryStoreSettings


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(DirectoryStoreSettings(tmp_path / "backups"), "acme")


def test_a_listing_tells_one_content_from_another(store: Store) -> None:
    stored = store.put_small("app.zip", b"one")
    (first,) = store.list()
    assert first.etag == stored.etag
    store.delete(stored)
    store.put_small("app.zip", b"two")
    (second,) = store.list()
    assert second.etag not in (None, first.etag)


def test_many_files_go_and_what_is_another_one_by_now_stays(store: Store) -> None:
    kept = store.put_small("kept.zip", b"x")
    mine = store.put_small("app.zip", b"x")
    others = [store.put_small(f"n{number}.zip", b"x") for number in range(3)]
    gone = StoredObject("gone.zip", "", 0, "", None)
    (refusal,) = store.delete_all([*others, gone, replace(mine, etag="another")])
    assert refusal.name == "app.zip"
    assert refusal.reason.startswith("app.zip is not the file that was to be removed: another file")
    assert [each.name for each in store.list()] == ["app.zip", kept.name]
    assert store.delete_all([]) == ()


def test_a_folder_has_neither_locks_nor_versions_nor_settings(store: Store) -> None:
    store.put_small("app.zip", b"x", locked=True)
    assert store.lock_of("app.zip") is None
    assert list(store.old_versions()) == []
    assert store.settings() is None
    with pytest.raises(StoreError, match="keeps no old versions"):
        store.delete_version(OldVersion("app.zip", "1", 1, datetime.now(UTC), is_delete_marker=False))
    with pytest.raises(StoreError, match="cannot be the name"):
        store.lock_of("../app.zip")
    assert store.exists("app.zip")


def test_a_folder_is_not_what_asks_for_a_bucket(store: Store) -> None:
    assert check_bucket(store, BucketExpectations()) == []
    assert require_bucket(store, BucketExpectations()) == ()
    with pytest.raises(ProofError, match="is not set up as the inventory asks") as caught:
        require_bucket(store, BucketExpectations(versioning=True))
    assert caught.value.expected == f"versioning of {store.location}: on"
    assert "the store is a folder" in caught.value.found
