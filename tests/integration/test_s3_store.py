"""The S3 store against moto's server: what it stores, lists and deletes."""

from __future__ import annotations

import hashlib
import os
import time
from typing import Any

import pytest

from opsproof.errors import (
    StoreError,
)
from opsproof.system.store import s3_connection
from opsproof.system.store.s3 import S3Store
from tests.lab.bucket import Bucket, make_bucket, use_credentials
from tests.lab.fault_proxy import running_proxy
from tests.lab.moto_buckets import bucket, moto_server
from tests.lab.moto_server import running_moto
from tests.lab.taken_names import require_faster_one_kept, require_taken_name_refused

__all__ = ["bucket", "moto_server"]

MIB = 1 << 20


@pytest.fixture
def store(bucket: Bucket) -> S3Store:
    return bucket.store()


@pytest.mark.parametrize("size", [0, 1, 8 * MIB, 20 * MIB + 7], ids=["empty", "a byte", "a whole part", "parts"])
def test_a_committed_upload_is_what_was_written(store: S3Store, bucket: Bucket, size: int) -> None:
    data = os.urandom(size)
    with store.upload("app.zip", size) as upload:
        for start in range(0, size, 3_000_000):
            upload.write(memoryview(data)[start : start + 3_000_000])
        assert bucket.keys() == []
        stored = upload.commit()
    assert b"".join(store.read("app.zip")) == data
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert (stored.bytes, upload.bytes_written) == (size, size)
    assert stored.location == f"s3://{bucket.name}/acme/backups/app.zip"
    assert stored.modified is not None
    assert abs(stored.modified.timestamp() - time.time()) < 60
    assert stored.checksum == f"crc32:{s3_connection.crc32_text(s3_connection.crc32_of(data))}"
    assert bucket.keys() == ["acme/backups/app.zip"]
    assert bucket.unfinished() == []


def test_the_part_size_follows_from_the_expected_size(store: S3Store) -> None:
    with store.upload("small", 0) as small, store.upload("large", 900 << 30) as large:
        assert (small._part_size, small._at_once) == (8 * MIB, 7)
        assert large._part_size * 9_000 >= 900 << 30
        assert large._at_once == 1


def test_the_buffer_may_be_reused_after_a_write(store: S3Store) -> None:
    buffer = bytearray(b"a" * 9 * MIB)
    with store.upload("app.zip", 18 * MIB) as upload:
        upload.write(memoryview(buffer))
        buffer[:] = b"b" * 9 * MIB
        upload.write(memoryview(buffer))
        upload.commit()
    assert store.get_small("app.zip") == b"a" * 9 * MIB + b"b" * 9 * MIB


def test_leaving_without_a_commit_leaves_nothing(store: S3Store, bucket: Bucket) -> None:
    with store.upload("app.zip", 20 * MIB) as upload:
        upload.write(bytes(20 * MIB))
        assert bucket.unfinished() == ["acme/backups/app.zip"]
    assert bucket.is_empty()
    with pytest.raises(KeyboardInterrupt), store.upload("app.zip", 20 * MIB) as upload:
        upload.write(bytes(20 * MIB))
        raise KeyboardInterrupt
    assert bucket.is_empty()
    with pytest.raises(StoreError, match="given up before"):
        upload.write(b"more")


@pytest.mark.parametrize("request_name", ["create_multipart_upload", "complete_multipart_upload"])
def test_an_interrupt_when_the_server_has_done_its_work_leaves_nothing(
    store: S3Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, request_name: str
) -> None:
    real = getattr(store._client, request_name)

    def then_interrupt(**arguments: Any) -> None:
        real(**arguments)
        raise KeyboardInterrupt

    monkeypatch.setattr(store._client, request_name, then_interrupt)
    with pytest.raises(KeyboardInterrupt), store.upload("app.zip", 9 * MIB) as upload:
        upload.write(bytes(9 * MIB))
        upload.commit()
    assert bucket.is_empty()


def test_a_taken_name_is_refused_before_anything_is_sent(store: S3Store, bucket: Bucket) -> None:
    require_taken_name_refused(store)
    assert bucket.unfinished() == []


@pytest.mark.parametrize("asked_before", [True, False], ids=["seen by HEAD", "seen by the condition alone"])
def test_a_name_taken_meanwhile_is_not_overwritten(
    store: S3Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch, asked_before: bool
) -> None:
    def do_not_ask() -> None:
        monkeypatch.setattr("opsproof.system.store.s3_commit.Commit.refuse_if_taken", lambda self: None)

    require_faster_one_kept(store, bytes(9 * MIB), (lambda: None) if asked_before else do_not_ask)
    assert bucket.unfinished() == []


def test_delete_removes_its_own_object_only(store: S3Store) -> None:
    stored = store.put_small("app.zip", b"mine")
    store.delete(stored)
    assert not store.exists("app.zip")
    store.delete(stored)
    store.put_small("app.zip", b"not mine")
    with pytest.raises(StoreError, match="is not the object that was to be deleted"):
        store.delete(stored)
    assert store.get_small("app.zip") == b"not mine"


def test_with_versions_delete_removes_the_very_version(store: S3Store, bucket: Bucket) -> None:
    bucket.enable_versioning()
    with store.upload("app.zip", 4) as upload:
        upload.write(b"mine")
        mine = upload.commit()
    assert mine.version_id
    newer = bucket.client.put_object(Bucket=bucket.name, Key="acme/backups/app.zip", Body=b"newer")
    store.delete(mine)
    left = bucket.client.list_object_versions(Bucket=bucket.name)
    assert [each["VersionId"] for each in left["Versions"]] == [newer["VersionId"]]
    assert "DeleteMarkers" not in left


def test_the_listing_has_all_pages_and_nothing_of_other_customers(monkeypatch: pytest.MonkeyPatch) -> None:
    with running_moto(MOTO_S3_DEFAULT_MAX_KEYS="3") as server:
        use_credentials(monkeypatch, server)
        bucket = make_bucket(server)
        bucket.store(customer="acme2").put_small("other.zip", b"x")
        bucket.client.put_object(Bucket=bucket.name, Key="acme/backups/", Body=b"")
        names = [f"a{number}.zip" for number in range(8)]
        store = bucket.store()
        for name in [*names, "b.zip"]:
            store.put_small(name, b"four")
        assert bucket.client.list_objects_v2(Bucket=bucket.name)["IsTruncated"]
        assert [each.name for each in store.list()] == [*names, "b.zip"]
        (b,) = store.list("b")
    assert (b.name, b.bytes) == ("b.zip", 4)
    assert b.modified.utcoffset() is not None


def test_unfinished_uploads_of_killed_runs_are_found_and_aborted(store: S3Store, bucket: Bucket) -> None:
    for key in ("acme/backups/app.zip", "other/backups/app.zip"):
        bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)
    (leftover,) = store.leftovers()
    assert (leftover.name, leftover.in_doubt) == ("app.zip", True)
    assert leftover.started.utcoffset() is not None
    store.abort_leftover(leftover)
    assert bucket.unfinished() == ["other/backups/app.zip"]


def test_checks_pass_and_leave_nothing(store: S3Store, bucket: Bucket) -> None:
    store.check_writable()
    store.check_readable()
    assert store.free_bytes() is None
    assert bucket.is_empty()


def test_options_go_with_every_request_that_takes_them(bucket: Bucket) -> None:
    with running_proxy(bucket.server.url) as proxy:
        store = bucket.store(
            proxy.url,
            prefix="dumps/",
            encryption="aws:kms",
            kms_key_id="alias/backups",
            storage_class="STANDARD_IA",
            expected_bucket_owner="123456789012",
        )
        store.check_writable()
        store.check_readable()
        with store.upload("app.zip", 1) as upload:
            upload.write(b"x")
            upload.commit()
        store.delete(store.put_small("app.json", b"{}"))
        assert [each.name for each in store.list()] == ["app.zip"]
        assert store.leftovers() == ()
        requests = proxy.requests
    assert {each.headers.get("x-amz-expected-bucket-owner") for each in requests} == {"123456789012"}
    created = [each.headers for each in requests if "uploads" in each.query and each.method == "POST"]
    created += [each.headers for each in requests if each.path.endswith("app.json") and each.method == "PUT"]
    assert len(created) == 3
    for headers in created:
        assert headers["x-amz-server-side-encryption"] == "aws:kms"
        assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/backups"
        assert headers["x-amz-storage-class"] == "STANDARD_IA"
    assert bucket.keys() == ["dumps/acme/backups/app.zip"]
