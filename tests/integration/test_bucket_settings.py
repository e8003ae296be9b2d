"""The bucket's own settings, held against what the inventory asks for (moto)."""

from __future__ import annotations

import secrets
from typing import Any

import pytest

from opsproof.errors import ProofError, StoreError
from opsproof.inspection.bucket import check_bucket, require_bucket
from opsproof.policies import BucketExpectations
from tests.lab.bucket import Bucket
from tests.lab.moto_buckets import bucket, locking, moto_server
from tests.lab.refusing import refuse

__all__ = ["bucket", "locking", "moto_server"]


ALL = BucketExpectations(versioning=True, encryption=True, object_lock=True, lifecycle=True, public_access_blocked=True)


def set_up(bucket: Bucket) -> None:
    client, name = bucket.client, bucket.name
    client.put_bucket_encryption(
        Bucket=name,
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    rule: Any = {
        "ID": "uploads",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7},
    }
    client.put_bucket_lifecycle_configuration(Bucket=name, LifecycleConfiguration={"Rules": [rule]})
    blocks = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    client.put_public_access_block(
        Bucket=name,
        PublicAccessBlockConfiguration=dict.fromkeys(blocks, True),  # type: ignore[arg-type]
    )


def test_a_bucket_that_is_set_up_as_asked_passes(locking: Bucket) -> None:
    set_up(locking)
    assert check_bucket(locking.store(), ALL) == []
    assert require_bucket(locking.store(), ALL) == ()


def test_each_setting_that_is_not_as_asked_is_named_with_its_command(bucket: Bucket) -> None:
    findings = check_bucket(bucket.store(), ALL)
    assert [one.subject.partition(" of ")[0] for one in findings] == [
        "versioning",
        "encryption at rest",
        "Object Lock",
        "a lifecycle",
        "a block",
    ]
    for finding in findings:
        assert finding.blocks
        assert finding.expected == "on"
        assert finding.found.startswith("off, says Get")
        assert finding.hint.startswith(f"aws --endpoint-url {bucket.server.url} --region us-east-1 s3api put-")
        assert f" --bucket {bucket.name} " in finding.hint
    with pytest.raises(ProofError, match="is not set up as the inventory asks") as caught:
        require_bucket(bucket.store(), ALL)
    assert caught.value.found.count("\n") == 4
    (last,) = require_bucket(bucket.store(), BucketExpectations(False, False, False, False, None))
    assert (last.expected, last.blocks) == ("not asked about", False)


def test_what_a_server_does_not_tell_fails_only_where_it_is_asked_for(
    locking: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = locking.store()
    refuse(store, monkeypatch, "GetPublicAccessBlock", "get_public_access_block", "NotImplemented")
    refuse(store, monkeypatch, "GetBucketEncryption", "get_bucket_encryption")
    monkeypatch.setattr(store._client, "get_bucket_lifecycle_configuration", lambda **_: {})
    settings = store.settings()
    assert (settings.versioning, settings.object_lock) == (True, True)
    assert (settings.encryption, settings.lifecycle, settings.public_access_blocked) == (None, None, None)
    found = {one.subject.partition(" of ")[0]: one.found for one in check_bucket(store, ALL)}
    assert found == {
        "encryption at rest": "not told by this server (403 AccessDenied to GetBucketEncryption)",
        "a lifecycle": "not told by this server (an answer that does not speak of it)",
        "a block": "not told by this server (400 NotImplemented to GetPublicAccessBlock)",
    }
    assert not [one for one in require_bucket(store, BucketExpectations()) if one.blocks]


def test_settings_of_a_bucket_that_is_not_there_are_no_findings(bucket: Bucket) -> None:
    with pytest.raises(StoreError, match="there is no bucket"):
        bucket.store(bucket=f"absent-{secrets.token_hex(4)}").settings()
