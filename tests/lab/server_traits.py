"""What S3 servers do, one question each: asked of every server that the lab has, for the table in docs/.

A question returns the few words that stand in the table. What this tool needs of every server it requires itself, by
raising; what servers differ in it only tells.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError

from opsproof.errors import StoreDenied, StoreError
from opsproof.policies import ObjectLock
from opsproof.system.store import StoredObject
from opsproof.system.store.s3_errors import code_of
from tests.lab.bucket import Bucket, make_bucket, use_credentials
from tests.lab.fault_proxy import Fault, running_proxy

MIB = 1 << 20
LOCK = ObjectLock("COMPLIANCE", 30)
WRONG_CRC = "AAAAAA=="
WRONG_MD5 = "AAAAAAAAAAAAAAAAAAAAAA=="


@dataclass(frozen=True)
class Question:
    """A row of the table, and how its answer is found."""

    title: str
    ask: Callable[[Bucket], str]


def said(request: Callable[..., Any], **arguments: Any) -> str:
    """Return `taken`, or with which code the request is refused."""
    try:
        request(**arguments)
    except ClientError as error:
        return f"refused ({code_of(error)})"
    return "taken"


def lockable(bucket: Bucket) -> Bucket | None:
    """Return a bucket with Object Lock on the same server, or None where there is no such thing."""
    try:
        locking = make_bucket(bucket.server, object_lock=True)
        locking.client.get_object_lock_configuration(Bucket=locking.name)
    except ClientError:
        return None
    return locking


def parts_come_back(bucket: Bucket) -> str:
    store, size = bucket.store(), 40 * MIB
    data = os.urandom(size)
    with store.upload("app.zip", size) as upload:
        upload.write(data)
        (running,) = store.leftovers()
        stored = upload.commit()
    same = b"".join(store.read("app.zip")) == data
    left = store.leftovers()
    (listed,) = store.list()
    if listed.etag != stored.etag:
        raise AssertionError(f"{listed=} {stored=}")
    if not same or running.name != "app.zip" or left or stored.bytes != size:
        raise AssertionError(f"{same=} {running=} {left=} {stored=}")
    return "yes"


def nothing_is_overwritten(bucket: Bucket) -> str:
    store = bucket.store()
    store.put_small("app.zip", b"first")
    with pytest.raises(StoreError, match="nothing is ever overwritten"):
        store.put_small("app.zip", b"second")
    if store.get_small("app.zip") != b"first":
        raise AssertionError("overwritten")
    return "yes"


def whole_checksum(bucket: Bucket) -> str:
    with bucket.store().upload("app.zip", 9 * MIB) as upload:
        upload.write(bytes(9 * MIB))
        stored = upload.commit()
    return "yes" if stored.checksum else "no: read back instead"


def wrong_part_crc(bucket: Bucket) -> str:
    place: dict[str, Any] = {"Bucket": bucket.name, "Key": "parts"}
    begun = bucket.client.create_multipart_upload(**place, ChecksumAlgorithm="CRC32", ChecksumType="FULL_OBJECT")
    part = place | {"UploadId": begun["UploadId"], "PartNumber": 1, "Body": b"x"}
    return said(bucket.client.upload_part, **part, ChecksumCRC32=WRONG_CRC)


def wrong_part_md5(bucket: Bucket) -> str:
    place: dict[str, Any] = {"Bucket": bucket.name, "Key": "parts"}
    begun = bucket.client.create_multipart_upload(**place)
    part = place | {"UploadId": begun["UploadId"], "PartNumber": 1, "Body": b"x"}
    return said(bucket.client.upload_part, **part, ContentMD5=WRONG_MD5)


def wrong_object_crc(bucket: Bucket) -> str:
    return said(bucket.client.put_object, Bucket=bucket.name, Key="k", Body=b"x", ChecksumCRC32=WRONG_CRC)


def if_none_match(bucket: Bucket) -> str:
    put = {"Bucket": bucket.name, "Key": "k", "Body": b"x", "IfNoneMatch": "*"}
    free, taken = said(bucket.client.put_object, **put), said(bucket.client.put_object, **put)
    return taken if free == "taken" else f"{free} even of a free name"


def if_none_match_of_parts(bucket: Bucket) -> str:
    client = bucket.client
    place: dict[str, Any] = {"Bucket": bucket.name, "Key": "k"}
    client.put_object(**place, Body=b"x")
    upload = place | {"UploadId": client.create_multipart_upload(**place)["UploadId"]}
    sent = client.upload_part(**upload, PartNumber=1, Body=b"x")
    parts = {"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]}
    return said(client.complete_multipart_upload, **upload, MultipartUpload=parts, IfNoneMatch="*")


def if_match(bucket: Bucket) -> str:
    bucket.client.put_object(Bucket=bucket.name, Key="k", Body=b"x")
    return said(bucket.client.get_object, Bucket=bucket.name, Key="k", IfMatch='"0123456789abcdef0123456789abcdef"')


def credentials(bucket: Bucket, **wrong: str) -> str:
    with pytest.MonkeyPatch.context() as patch:
        use_credentials(patch, replace(bucket.server, **wrong))
        try:
            bucket.store().check_readable()
        except StoreDenied:
            return "refused"
        return "taken"


def wrong_secret(bucket: Bucket) -> str:
    return credentials(bucket, secret_key="planted-and-wrong")


def unknown_key(bucket: Bucket) -> str:
    return credentials(bucket, access_key="planted-and-wrong")


def batches(bucket: Bucket) -> str:
    store = bucket.store()
    stored = [store.put_small(f"n{number}", b"x") for number in range(3)]
    if store.delete_all([*stored, StoredObject("gone", "", 0, "", None)]) or bucket.keys():
        raise AssertionError(f"left: {bucket.keys()}")
    return "no: one by one" if store._connection.batches is False else "yes"


def refused_batches(bucket: Bucket) -> str:
    with running_proxy(bucket.server.url) as proxy:
        store = bucket.store(proxy.url)
        stored = [store.put_small(f"n{number}", b"x") for number in range(3)]
        proxy.inject(Fault("answer", method="POST", query="^delete", status=501, code="NotImplemented"))
        if store.delete_all(stored) or bucket.keys():
            raise AssertionError(f"left: {bucket.keys()}")
    return "yes"


def versions(bucket: Bucket) -> str:
    bucket.enable_versioning()
    store = bucket.store()
    for body in (b"old", b"newer"):
        bucket.client.put_object(Bucket=bucket.name, Key="acme/backups/app.zip", Body=body)
    bucket.client.delete_object(Bucket=bucket.name, Key="acme/backups/app.zip")
    old = list(store.old_versions())
    for each in old:
        store.delete_version(each)
    (marker,) = store.old_versions()
    store.delete_version(marker)
    if sorted(each.bytes for each in old) != [3, 5] or not marker.is_delete_marker or bucket.versions():
        raise AssertionError(f"{old=} {marker=} {bucket.versions()=}")
    return "yes"


def locked_upload(bucket: Bucket) -> str:
    locking = lockable(bucket)
    if locking is None:
        with pytest.raises(StoreError, match="has no Object Lock"):
            bucket.store(object_lock=LOCK).check_writable()
        return "no: said before the dump"
    store = locking.store(object_lock=LOCK)
    store.check_writable()
    with store.upload("app.zip", 9 * MIB) as upload:
        upload.write(bytes(9 * MIB))
        stored = upload.commit()
    lock = store.lock_of("app.zip")
    if lock is None or lock.mode != LOCK.mode or store.lock_of("other") is not None:
        raise AssertionError(f"{lock=}")
    refusals = store.delete_all([replace(stored, version_id=None)]) + store.delete_all([stored])
    if len(refusals) != 2 or locking.keys() != ["acme/backups/app.zip"]:
        raise AssertionError(f"{refusals=} {locking.versions()=}")
    with pytest.raises(StoreError, match="is locked and cannot be deleted"):
        store.delete(stored)
    return "yes"


def lock_of_parts(bucket: Bucket) -> str:
    locking = lockable(bucket)
    if locking is None:
        return "no"
    client = locking.client
    place: dict[str, Any] = {"Bucket": locking.name, "Key": "k"}
    until: dict[str, Any] = {
        "ObjectLockMode": "COMPLIANCE",
        "ObjectLockRetainUntilDate": datetime.now(UTC) + timedelta(days=1),
    }
    upload = place | {"UploadId": client.create_multipart_upload(**place, **until)["UploadId"]}
    sent = client.upload_part(**upload, PartNumber=1, Body=b"x")
    client.complete_multipart_upload(**upload, MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": sent["ETag"]}]})
    return "yes" if "ObjectLockMode" in client.head_object(**place) else "no: set right after"


def plain_delete_of_locked(bucket: Bucket) -> str:
    locking = lockable(bucket)
    if locking is None:
        return "-"
    locking.store(object_lock=LOCK).put_small("app.zip", b"x")
    locking.client.delete_object(Bucket=locking.name, Key="acme/backups/app.zip")
    return "yes: never sent" if not locking.keys() else "no"


def settings(bucket: Bucket) -> str:
    told = bucket.store().settings()
    return ", ".join(sorted(told.untold)).replace("_", " ") or "none"


QUESTIONS = (
    Question("A bundle in parts (40 MiB) comes back byte for byte", parts_come_back),
    Question("A taken name is never overwritten", nothing_is_overwritten),
    Question("The server verifies one CRC-32 of the whole object", whole_checksum),
    Question("A part with a wrong CRC-32", wrong_part_crc),
    Question("A part with a wrong MD5", wrong_part_md5),
    Question("An object with a wrong CRC-32", wrong_object_crc),
    Question("`If-None-Match: *` on a taken name", if_none_match),
    Question("the same when parts are completed", if_none_match_of_parts),
    Question("`If-Match` of another ETag, reading", if_match),
    Question("A wrong secret", wrong_secret),
    Question("An unknown access key", unknown_key),
    Question("Many objects are deleted by one request", batches),
    Question("Where that is refused, they go one by one", refused_batches),
    Question("Old versions are listed and removed", versions),
    Question("Object Lock: set, shown, and kept by this tool", locked_upload),
    Question("Object Lock is taken with an upload of parts", lock_of_parts),
    Question("A plain deletion hides a locked object", plain_delete_of_locked),
    Question("Settings of the bucket that it does not tell", settings),
)
