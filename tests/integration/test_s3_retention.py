"""What keeps an S3 bucket in order: deletions of many, and old versions (moto)."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from opsproof.errors import StoreError, StoreUnreachable
from opsproof.policies import ObjectLock
from opsproof.system.store import StoredObject
from tests.lab.bucket import Bucket
from tests.lab.fault_proxy import Fault, running_proxy
from tests.lab.moto_buckets import bucket, locking, moto_server
from tests.lab.refusing import listed

__all__ = ["bucket", "locking", "moto_server"]

MONTH = ObjectLock("COMPLIANCE", 30)


def test_a_thousand_objects_go_in_one_request(bucket: Bucket) -> None:
    names = [f"n{number}" for number in range(1002)]
    with running_proxy(bucket.server.url) as proxy:
        store = bucket.store(proxy.url)
        kept, gone = store.put_small("kept", b"x"), store.put_small(names[0], b"x")
        before = len(proxy.requests)
        assert store.delete_all([gone, *(StoredObject(name, "", 0, "", None) for name in names[1:])]) == ()
        requests = proxy.requests[before:]
    assert [each.query for each in requests if each.method == "POST"] == ["delete", "delete"]
    assert [each.query for each in requests if each.query and each.method != "POST"] == ["object-lock"]
    assert bucket.keys() == [f"acme/backups/{kept.name}"]


@pytest.mark.parametrize("code", ["NotImplemented", "MalformedXML", "InvalidRequest", "MissingContentMD5"])
def test_where_the_batch_is_refused_they_go_one_by_one(bucket: Bucket, code: str) -> None:
    with running_proxy(bucket.server.url) as proxy:
        store = bucket.store(proxy.url)
        for number in range(12):
            store.put_small(f"n{number}", b"x")
        fault = proxy.inject(Fault("answer", method="POST", query="^delete", status=400, code=code))
        assert store.delete_all([*listed(store), StoredObject("gone", "", 0, "", None)]) == ()
        assert bucket.is_empty()
        assert store.delete_all([StoredObject("gone", "", 0, "", None)]) == ()
    assert fault.struck == 1


def test_one_by_one_what_is_another_object_by_now_is_left(bucket: Bucket) -> None:
    store = bucket.store()
    stored = store.put_small("app.zip", b"mine")
    store.delete(stored)
    store.put_small("app.zip", b"not mine")
    store._connection.batches = False
    (refusal,) = store.delete_all([stored])
    assert "is not the object that was to be deleted" in refusal.reason
    assert store.get_small("app.zip") == b"not mine"


def test_a_store_that_does_not_answer_is_no_list_of_refusals(bucket: Bucket) -> None:
    with running_proxy(bucket.server.url) as proxy:
        store = bucket.store(proxy.url)
        stored = store.put_small("app.zip", b"x")
        proxy.inject(Fault("cut-request", method="POST"))
        with pytest.raises(StoreUnreachable):
            store.delete_all([stored])
    assert bucket.keys() == ["acme/backups/app.zip"]


def test_old_versions_are_listed_and_removed_and_the_present_ones_are_not(bucket: Bucket) -> None:
    store = bucket.store()
    bucket.enable_versioning()
    for body in (b"one", b"three", b"fifteen"):
        bucket.client.put_object(Bucket=bucket.name, Key="acme/backups/a.zip", Body=body)
    bucket.client.put_object(Bucket=bucket.name, Key="acme/backups/b.zip", Body=b"gone")
    bucket.client.put_object(Bucket=bucket.name, Key="other/backups/a.zip", Body=b"x")
    bucket.client.put_object(Bucket=bucket.name, Key="other/backups/a.zip", Body=b"y")
    bucket.client.delete_object(Bucket=bucket.name, Key="acme/backups/b.zip")
    old = list(store.old_versions())
    assert sorted((each.name, each.bytes, each.is_delete_marker) for each in old) == [
        ("a.zip", 3, False),
        ("a.zip", 5, False),
        ("b.zip", 4, False),
    ]
    assert [each.name for each in store.old_versions("b")] == ["b.zip"]
    for each in old:
        store.delete_version(each)
        store.delete_version(each)
    # The marker of what is gone hides nothing any more.
    (marker,) = store.old_versions()
    assert (marker.name, marker.is_delete_marker) == ("b.zip", True)
    store.delete_version(marker)
    assert list(store.old_versions()) == []
    assert store.get_small("a.zip") == b"fifteen"
    assert bucket.versions() == ["acme/backups/a.zip", "other/backups/a.zip", "other/backups/a.zip"]


def test_versions_of_one_name_in_two_pages_belong_together(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A marker that ends a page hides what begins the next one: without it, that would be back."""
    now = datetime.now(UTC)

    def entry(version: str, *, is_latest: bool) -> dict[str, object]:
        shared = {"Key": "acme/backups/a.zip", "LastModified": now, "Size": 1}
        return {**shared, "VersionId": version, "IsLatest": is_latest}

    pages = [
        {"DeleteMarkers": [entry("marker", is_latest=True)]},
        {"Versions": [entry("old", is_latest=False)]},
    ]
    store = bucket.store()
    monkeypatch.setattr(store._client, "get_paginator", lambda _: SimpleNamespace(paginate=lambda **_: pages))
    assert [each.version_id for each in store.old_versions()] == ["old"]


def test_a_locked_old_version_is_refused(locking: Bucket) -> None:
    store = locking.store(object_lock=MONTH)
    store.put_small("app.zip", b"x")
    locking.client.delete_object(Bucket=locking.name, Key="acme/backups/app.zip")
    (old,) = store.old_versions()
    with pytest.raises(StoreError, match="is locked and cannot be deleted"):
        store.delete_version(old)
    assert list(store.old_versions()) == [old]


def test_a_bucket_without_versioning_has_no_old_versions(bucket: Bucket) -> None:
    bucket.store().put_small("app.zip", b"x")
    assert list(bucket.store().old_versions()) == []
