"""The policies in docs/reference/iam/ against the requests that the store makes (moto, seen through botocore)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from opsproof.errors import StoreError
from opsproof.policies import ObjectLock
from opsproof.system.store import StoredObject
from opsproof.system.store.s3 import S3Store
from opsproof.system.store.s3_actions import ACTIONS, is_about_bucket
from tests.lab.bucket import Bucket, make_bucket, use_credentials
from tests.lab.iam import FOLDER, OF_BUCKETS, OF_OBJECTS, Need, grants_of, missing_of, needs_of
from tests.lab.moto_server import S3Server, moto_server

__all__ = ["moto_server"]

LOCK = ObjectLock("GOVERNANCE", 1)
MIB = 1 << 20
ID = "app_2026-01-31_02-00-00"


def take_backup(bucket: Bucket, open_store: Callable[..., S3Store]) -> None:
    """What a backup asks of its store, and a second one that fails its verification; with a lock and without."""
    for settings in ({"object_lock": LOCK}, {}):
        store = open_store(**settings)
        store.check_readable()
        store.check_writable()
        list(store.list())
        name = f"{ID}_{len(settings)}"
        assert not store.exists(f"{name}.zip")
        with store.upload(f"{name}.zip", 9 * MIB) as upload:
            upload.write(bytes(9 * MIB))
            upload.commit()
        assert sum(map(len, store.read(f"{name}.zip"))) == 9 * MIB
        store.leftovers()
        store.put_small(f"{name}.manifest.json", b"{}")
    failed = open_store()
    with failed.upload("failed.zip", 1) as upload:
        upload.write(b"x")
        stored = upload.commit()
    failed.delete(stored)
    with failed.upload("given-up.zip", 1) as upload:
        upload.write(b"x")
    bucket.client.put_bucket_versioning(Bucket=bucket.name, VersioningConfiguration={"Status": "Suspended"})
    failed.delete(failed.put_small("failed.zip", b"x"))


def restore_backup(bucket: Bucket, open_store: Callable[..., S3Store]) -> None:
    """What a restore asks of its store, its safety backup apart."""
    read_backup(bucket, open_store)
    open_store().put_small("journals/restore_prod_2026-02-01_02-00-00.jsonl", b"{}", locked=False)


def read_backup(bucket: Bucket, open_store: Callable[..., S3Store]) -> None:
    """What whoever reads a backup asks of its store."""
    fill(bucket)
    store = open_store()
    store.check_readable()
    assert [each.name for each in store.list(ID)] == [f"{ID}.manifest.json", f"{ID}.zip"]
    store.get_small(f"{ID}.manifest.json")
    assert store.find(f"{ID}.zip")
    assert b"".join(store.read(f"{ID}.zip")) == b"x"


def verify_backup(bucket: Bucket, open_store: Callable[..., S3Store]) -> None:
    """What a verification asks of its store."""
    read_backup(bucket, open_store)
    open_store().put_small(f"{ID}.verdict_2026-02-01_02-00-00_passed.json", b"{}", locked=False)


def clean_up(bucket: Bucket, open_store: Callable[..., S3Store]) -> None:
    """What a cleanup asks of its store, in a bucket with locks."""
    fill(bucket)
    bucket.store(object_lock=LOCK).put_small("locked.zip", b"x")
    bucket.store(object_lock=LOCK).put_small("hidden.zip", b"x")
    bucket.client.delete_object(Bucket=bucket.name, Key="acme/backups/hidden.zip")
    bucket.client.create_multipart_upload(Bucket=bucket.name, Key="acme/backups/killed.zip")
    store = open_store()
    assert store.settings().object_lock
    listed = list(store.list())
    store.get_small(f"{ID}.manifest.json")
    assert store.find(f"{ID}.zip")
    assert store.lock_of(f"{ID}.zip") is None
    store.put_small("index/2026-02-01_02-00-00-abcd.json.gz", b"{}", locked=False)
    store.put_small("journals/cleanup_prod_2026-02-01_02-00-00.jsonl", b"{}", locked=False)
    gone = [StoredObject(each.name, "", each.bytes, "", each.modified, None, each.etag) for each in listed]
    assert [refusal.name for refusal in store.delete_all(gone)] == ["locked.zip"]
    store._connection.batches = False
    index = next(store.list("index/"))
    assert store.delete_all([StoredObject(index.name, "", 0, "", None)]) == ()
    for version in store.old_versions():
        with suppress(StoreError):
            store.delete_version(version)
    assert {each.name for each in store.old_versions()} == {"hidden.zip"} | {each.name for each in gone[:2]} | {
        index.name
    }
    for leftover in store.leftovers():
        store.abort_leftover(leftover)


def check_store(bucket: Bucket, open_store: Callable[..., S3Store]) -> None:
    """What the checks of a store ask."""
    store = open_store(object_lock=LOCK)
    store.check_readable()
    store.check_writable()
    assert store.settings().object_lock


def fill(bucket: Bucket) -> None:
    """Put a backup into the bucket, unseen."""
    for name in (f"{ID}.zip", f"{ID}.manifest.json"):
        bucket.store().put_small(name, b"x")


PROCEDURES = {
    "backup": take_backup,
    "restore": restore_backup,
    "verify": verify_backup,
    "cleanup": clean_up,
    "check": check_store,
}


@pytest.fixture
def bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    use_credentials(monkeypatch, moto_server)
    return make_bucket(moto_server, object_lock=True)


@pytest.mark.parametrize("policy", PROCEDURES)
def test_a_policy_grants_what_is_needed_and_nothing_else(bucket: Bucket, policy: str) -> None:
    needed: set[Need] = set()
    operations: set[str] = set()

    def record(params: dict[str, Any], model: Any, **_: object) -> None:
        operations.add(model.name)
        needed.update(needs_of(model.name, params))

    def open_store(**settings: Any) -> S3Store:
        store = bucket.store(**settings)
        store._client.meta.events.register("provide-client-params.s3", record)
        return store

    PROCEDURES[policy](bucket, open_store)
    granted = grants_of(policy)
    unused = {grant for grant in granted if not any(grant.allows(need) for need in needed)}
    assert (missing_of(needed, granted), unused) == (set(), set())
    # Each has a name for the message that says what is not allowed.
    assert operations <= set(ACTIONS)


def test_every_policy_belongs_to_a_procedure_and_stands_on_the_page() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(PROCEDURES)
    page = FOLDER.with_suffix(".md").read_text()
    assert [policy for policy in PROCEDURES if f"[{policy}.json](iam/{policy}.json)" not in page] == []


def test_the_messages_name_the_permissions_that_aws_does() -> None:
    expected = {name: f"s3:{action}" for name, action in (OF_BUCKETS | OF_OBJECTS).items()}
    assert expected | {"DeleteObjects": "s3:DeleteObject", "ListBuckets": "s3:ListAllMyBuckets"} == ACTIONS
    assert all(is_about_bucket(f"s3:{action}") for action in OF_BUCKETS.values())
    assert not any(is_about_bucket(f"s3:{action}") for action in OF_OBJECTS.values())
