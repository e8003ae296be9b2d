"""AWS's permissions: which a request needs, and which the policies in docs/ grant."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).parents[2] / "docs/reference/iam"

# From "Actions, resources, and condition keys for Amazon S3" in AWS's Service Authorization Reference.
OF_BUCKETS = {
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "GetLifecycleConfiguration",
    "GetBucketVersioning": "GetBucketVersioning",
    "GetObjectLockConfiguration": "GetBucketObjectLockConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectVersions": "ListBucketVersions",
    "ListObjectsV2": "ListBucket",
}
OF_OBJECTS = {
    "AbortMultipartUpload": "AbortMultipartUpload",
    "CompleteMultipartUpload": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "DeleteObject": "DeleteObject",
    "GetObject": "GetObject",
    "GetObjectLegalHold": "GetObjectLegalHold",
    "GetObjectRetention": "GetObjectRetention",
    "HeadObject": "GetObject",
    "PutObject": "PutObject",
    "PutObjectRetention": "PutObjectRetention",
    "UploadPart": "PutObject",
}
OF_VERSIONS = {"GetObject": "GetObjectVersion", "DeleteObject": "DeleteObjectVersion"}


class Need(NamedTuple):
    """A permission, and on what."""

    action: str
    resource: str


def needs_of(operation: str, params: dict[str, Any]) -> Iterator[Need]:
    """Yield the permissions that one request needs."""
    bucket = "arn:aws:s3:::my-backups"
    if operation in OF_BUCKETS:
        yield Need(f"s3:{OF_BUCKETS[operation]}", bucket)
        return
    if operation == "DeleteObjects":
        for each in params["Delete"]["Objects"]:
            yield from needs_of("DeleteObject", each)
        return
    resource = f"{bucket}/{params['Key']}"
    action = OF_OBJECTS[operation]
    yield Need(f"s3:{OF_VERSIONS.get(action, action) if params.get('VersionId') else action}", resource)
    if "ObjectLockMode" in params:
        yield Need("s3:PutObjectRetention", resource)
        # Without it, a HEAD hides the lock of what was just uploaded.
        yield Need("s3:GetObjectRetention", resource)


class Grant(NamedTuple):
    """What one statement of a policy allows."""

    action: str
    resource: str

    def allows(self, need: Need) -> bool:
        """Tell whether that is enough for `need`."""
        return self.action == need.action and fnmatchcase(need.resource, self.resource)


def grants_of(policy: str) -> set[Grant]:
    """Return what one of the policies allows."""
    document = json.loads((FOLDER / f"{policy}.json").read_text())
    assert document["Version"] == "2012-10-17"
    assert {each["Effect"] for each in document["Statement"]} == {"Allow"}
    return {Grant(action, each["Resource"]) for each in document["Statement"] for action in each["Action"]}


def missing_of(needed: Iterable[Need], granted: Iterable[Grant]) -> set[Need]:
    """Return what is needed and not granted."""
    known = tuple(granted)
    return {need for need in needed if not any(grant.allows(need) for grant in known)}
