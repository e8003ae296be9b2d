"""Object Lock: what is uploaded gets it, and what has it is neither deleted nor hidden (moto)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

from opsproof.errors import StoreDenied, StoreError
from opsproof.policies import ObjectLock
from opsproof.system.store import Lock, Refusal
from tests.lab.bucket import Bucket
from tests.lab.moto_buckets import bucket, locking, moto_server
from tests.lab.refusing import listed, refuse

__all__ = ["bucket", "locking", "moto_server"]

MONTH = ObjectLock("COMPLIANCE", 30)
MIB = 1 << 20


def test_what_is_uploaded_is_locked_for_as_long_as_the_inventory_says(locking: Bucket) -> None:
    store, started = locking.store(object_lock=MONTH), datetime.now(UTC)
    store.check_writable()
    with store.upload("app.zip", 9 * MIB) as upload:
        upload.write(bytes(9 * MIB))
        upload.commit()
    store.put_small("app.manifest.json", b"{}")
    store.put_small("index.json", b"{}", locked=False)
    for name in ("app.zip", "app.manifest.json"):
        lock = store.lock_of(name)
        assert lock is not None
        assert lock.until is not None
        assert abs(lock.until - started - timedelta(days=30)) < timedelta(minutes=1)
        assert (lock.mode, lock.legal_hold) == ("COMPLIANCE", False)
    assert store.lock_of("index.json") is None
    assert store.lock_of("missing.zip") is None


def test_a_bucket_without_object_lock_is_said_before_anything_is_dumped(bucket: Bucket) -> None:
    bucket.enable_versioning()
    with pytest.raises(StoreError, match="has no Object Lock, and the inventory asks for it") as caught:
        bucket.store(object_lock=MONTH).check_writable()
    assert f"put-object-lock-configuration --bucket {bucket.name}" in caught.value.hint
    assert caught.value.kept == "nothing was sent"


@pytest.mark.parametrize(
    ("operation", "method", "action"),
    [
        ("GetObjectLockConfiguration", "get_object_lock_configuration", "s3:GetBucketObjectLockConfiguration"),
        ("GetObjectRetention", "get_object_retention", "s3:GetObjectRetention"),
    ],
)
def test_who_may_not_read_locks_is_told_before_anything_is_dumped(
    locking: Bucket, monkeypatch: pytest.MonkeyPatch, operation: str, method: str, action: str
) -> None:
    store = locking.store(object_lock=MONTH)
    refuse(store, monkeypatch, operation, method)
    with pytest.raises(StoreDenied, match=f"{action} is not allowed"):
        store.check_writable()
    assert locking.is_empty()


def test_an_upload_that_did_not_get_its_lock_is_no_backup(locking: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    store = locking.store(object_lock=MONTH)
    monkeypatch.setattr(store._connection, "creating", lambda **_: {})
    monkeypatch.setattr(store._client, "put_object_retention", lambda **_: {})
    with pytest.raises(StoreError, match="was stored without the lock"):
        store.put_small("app.json", b"{}")
    with pytest.raises(StoreError, match="was stored without the lock"), store.upload("app.zip", 1) as upload:
        upload.write(b"x")
        upload.commit()
    assert locking.versions() == []


def test_a_locked_object_is_left_and_not_hidden(locking: Bucket) -> None:
    store = locking.store(object_lock=MONTH)
    stored = store.put_small("app.zip", b"x")
    store.put_small("free.zip", b"x", locked=False)
    without_version = next(each for each in listed(store) if each.name == "app.zip")
    for each in (stored, without_version):
        with pytest.raises(StoreError, match=r"app\.zip is locked and cannot be deleted") as caught:
            store.delete(each)
        assert "COMPLIANCE" in caught.value.found
        (refusal,) = store.delete_all([each])
        assert refusal.name == "app.zip"
        assert refusal.reason.startswith("locked until ")
    (refusal,) = store.delete_all(listed(store))
    assert refusal.name == "app.zip"
    assert locking.keys() == ["acme/backups/app.zip"]


def test_a_clock_that_is_ahead_ends_no_lock(locking: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    store = locking.store(object_lock=MONTH)
    store.put_small("app.zip", b"x")

    class Ahead(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + timedelta(days=365)

    monkeypatch.setattr("opsproof.system.store.s3_locks.datetime", Ahead)
    assert store.lock_of("app.zip") is not None


def test_a_legal_hold_keeps_as_a_lock_does(locking: Bucket) -> None:
    store = locking.store()
    store.put_small("app.zip", b"x")
    locking.client.put_object_legal_hold(Bucket=locking.name, Key="acme/backups/app.zip", LegalHold={"Status": "ON"})
    assert store.lock_of("app.zip") == Lock(None, "", legal_hold=True)
    assert store.delete_all(listed(store)) == (Refusal("app.zip", "under a legal hold"),)
    assert locking.keys() == ["acme/backups/app.zip"]


def test_where_locks_may_not_be_read_nothing_is_deleted(locking: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    locking.store(object_lock=MONTH).put_small("app.zip", b"x")
    store = locking.store()
    refuse(store, monkeypatch, "GetObjectLockConfiguration", "get_object_lock_configuration")
    refuse(store, monkeypatch, "GetObjectRetention", "get_object_retention")
    for refused in (lambda: store.lock_of("app.zip"), lambda: store.delete_all(listed(store))):
        with pytest.raises(StoreDenied, match="s3:GetObjectRetention is not allowed"):
            refused()
    assert locking.keys() == ["acme/backups/app.zip"]


def test_an_upload_that_fails_when_it_is_locked_already_says_what_stays(
    locking: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = locking.store(object_lock=MONTH)

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught, store.upload("app.zip", 1) as upload:
        upload.write(b"x")
        monkeypatch.setattr("opsproof.system.store.s3_commit.Commit._of_reply", interrupt)
        real = store._connection.find
        monkeypatch.setattr(store._connection, "find", lambda name, token=None: real(name, token) if locked() else None)

        def locked() -> bool:
            """Lock the object as soon as it is there, and hide it from the commit itself."""
            if locking.keys():
                locking.client.put_object_retention(
                    Bucket=locking.name,
                    Key="acme/backups/app.zip",
                    Retention={"Mode": "COMPLIANCE", "RetainUntilDate": datetime.now(UTC) + timedelta(days=1)},
                )
            return upload._finished

        upload.commit()
    notes = " ".join(getattr(caught.value, "__notes__", ()))
    assert f"s3://{locking.name}/acme/backups/app.zip stays in the store" in notes
    assert "abort-multipart-upload" not in notes
