"""How a bucket is set up, asked call by call, because hardly a server knows them all."""

from __future__ import annotations

from collections.abc import Callable

from botocore.exceptions import ClientError

from opsproof.system.store.entries import BucketSettings
from opsproof.system.store.s3_connection import S3Connection
from opsproof.system.store.s3_errors import code_of, is_unknown_there, status_of
from opsproof.system.store.s3_locks import bucket_has_locks

_NONE_SET = {
    "NoSuchLifecycleConfiguration",
    "NoSuchPublicAccessBlockConfiguration",
    "ServerSideEncryptionConfigurationNotFoundError",
}
_BLOCKS = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")


def read_settings(connection: S3Connection) -> BucketSettings:
    """Return what the server tells of the bucket, one request a setting.

    Raises:
        ClientError: The store refused for another reason than that it does not know the request, or will not say.
        BotoCoreError: It did not answer.
    """
    client, bucket = connection.client, connection.bucket

    def versioning() -> bool:
        return client.get_bucket_versioning(Bucket=bucket).get("Status") == "Enabled"

    # A server that does not know a question may answer with the bucket's listing, which says nothing of it.
    def encryption() -> bool | None:
        rules = client.get_bucket_encryption(Bucket=bucket).get("ServerSideEncryptionConfiguration", {}).get("Rules")
        return None if rules is None else bool(rules)

    def lifecycle() -> bool | None:
        rules = client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules")
        return None if rules is None else any(rule["Status"] == "Enabled" for rule in rules)

    def public_access() -> bool | None:
        blocks = client.get_public_access_block(Bucket=bucket).get("PublicAccessBlockConfiguration")
        return None if blocks is None else all(blocks.get(block) is True for block in _BLOCKS)

    untold: dict[str, str] = {}

    def ask(setting: str, question: Callable[[], bool | None]) -> bool | None:
        try:
            told = question()
            if told is None:
                untold[setting] = "an answer that does not speak of it"
            return told
        except ClientError as error:
            if code_of(error) in _NONE_SET:
                return False
            if not is_unknown_there(error) and code_of(error) not in ("AccessDenied", "403"):
                raise
            untold[setting] = f"{status_of(error)} {code_of(error)} to {error.operation_name}"
            return None

    return BucketSettings(
        versioning=ask("versioning", versioning),
        encryption=ask("encryption", encryption),
        object_lock=ask("object_lock", lambda: bucket_has_locks(connection)),
        lifecycle=ask("lifecycle", lifecycle),
        public_access_blocked=ask("public_access_blocked", public_access),
        untold=untold,
        bucket=bucket,
        client=connection.place.command("").strip(),
    )
