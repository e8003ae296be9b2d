"""A bucket of one test's own, with a client that goes straight to the server."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.config import Config

from opsproof.system.store import open_store
from opsproof.system.store.s3 import S3Store
from opsproof.target import S3StoreSettings, Target
from tests.lab.moto_server import S3Server
from tests.lab.targets import target_of

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


@dataclass(frozen=True)
class Bucket:
    """A bucket, and what is in it as the server itself sees it."""

    name: str
    server: S3Server
    client: S3Client

    def store(self, url: str = "", customer: str = "acme", **settings: Any) -> S3Store:
        """Return the customer's store, by way of `url` where that is given."""
        settings = {"bucket": self.name, "region": "us-east-1", "endpoint_url": url or self.server.url} | settings
        store = open_store(S3StoreSettings(**settings), customer)
        assert isinstance(store, S3Store)
        return store

    def keys(self) -> list[str]:
        """Return the keys of all objects but the journals of runs."""
        keys = [each["Key"] for each in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())]
        return [key for key in keys if "/journals/" not in key]

    def journals(self) -> dict[str, bytes]:
        """Return the journals of runs that are in the bucket, by name."""
        keys = [each["Key"] for each in self.client.list_objects_v2(Bucket=self.name).get("Contents", ())]
        return {
            key.rpartition("/")[2]: self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
            for key in keys
            if "/journals/" in key
        }

    def unfinished(self) -> list[str]:
        """Return the keys of all unfinished uploads."""
        uploads = self.client.list_multipart_uploads(Bucket=self.name).get("Uploads", ())
        return [each["Key"] for each in uploads]

    def versions(self) -> list[str]:
        """Return the keys of all versions, each as often as it has some, and then those of all delete markers."""
        page = self.client.list_object_versions(Bucket=self.name)
        return [each["Key"] for kind in (page.get("Versions", ()), page.get("DeleteMarkers", ())) for each in kind]

    def enable_versioning(self) -> None:
        """Let the bucket keep old versions."""
        self.client.put_bucket_versioning(Bucket=self.name, VersioningConfiguration={"Status": "Enabled"})

    def is_empty(self) -> bool:
        """Tell whether there is neither an object nor an unfinished upload."""
        return not self.keys() and not self.unfinished()


def make_bucket(server: S3Server, *, object_lock: bool = False) -> Bucket:
    """Make a bucket under a name that no other test has; one with Object Lock has versioning, too."""
    client = boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name=server.region,
        aws_access_key_id=server.access_key,
        aws_secret_access_key=server.secret_key,
        config=Config(s3={"addressing_style": "path"}),
    )
    name = f"backups-{secrets.token_hex(6)}"
    client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=object_lock)
    return Bucket(name, server, client)


def use_credentials(monkeypatch: pytest.MonkeyPatch, server: S3Server) -> None:
    """Let boto3's chain find the server's credentials and nothing of this machine's user."""
    for variable in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(variable, raising=False)
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, "/nonexistent")
    for variable, value in server.variables.items():
        monkeypatch.setenv(variable, value)


def target_in(bucket: Bucket, url: str = "", name: str = "") -> Target:
    """Return the target that `manifest_of` describes a backup of, with this bucket or one of another name."""
    settings = S3StoreSettings(name or bucket.name, bucket.server.region, endpoint_url=url or bucket.server.url)
    return target_of(settings)
