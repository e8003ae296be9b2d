"""Which permission each request to S3 needs, for the message that says which one is missing.

Source: "Actions, resources, and condition keys for Amazon S3" of AWS's Service Authorization Reference.
"""

from __future__ import annotations

ACTIONS = {
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "CompleteMultipartUpload": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "GetBucketVersioning": "s3:GetBucketVersioning",
    "GetObject": "s3:GetObject",
    "GetObjectLegalHold": "s3:GetObjectLegalHold",
    "GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "GetObjectRetention": "s3:GetObjectRetention",
    "GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "HeadObject": "s3:GetObject",
    "ListBuckets": "s3:ListAllMyBuckets",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
    "ListObjectVersions": "s3:ListBucketVersions",
    "ListObjectsV2": "s3:ListBucket",
    "PutObject": "s3:PutObject",
    "PutObjectRetention": "s3:PutObjectRetention",
    "UploadPart": "s3:PutObject",
}
_WRITING = {"s3:PutObject", "s3:PutObjectRetention", "s3:AbortMultipartUpload"}
_DELETING = {"s3:DeleteObject", "s3:DeleteObjectVersion"}
_LISTING = {"s3:ListBucket", "s3:ListBucketMultipartUploads", "s3:ListBucketVersions"}
_ASKING = {
    "s3:GetBucketObjectLockConfiguration",
    "s3:GetBucketPublicAccessBlock",
    "s3:GetBucketVersioning",
    "s3:GetEncryptionConfiguration",
    "s3:GetLifecycleConfiguration",
}


def verb_of(action: str) -> str:
    """Return what somebody does who is allowed that, as it stands before a place in a sentence."""
    kinds = {"writing to": _WRITING, "deleting from": _DELETING, "listing": _LISTING, "asking about": _ASKING}
    return next((verb for verb, actions in kinds.items() if action in actions), "reading from")


def is_about_bucket(action: str) -> bool:
    """Tell whether the permission is given on the bucket, and not on objects in it."""
    return action in _LISTING or action in _ASKING
