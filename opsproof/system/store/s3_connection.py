"""A client for one bucket: credentials, time-outs, retries, and errors turned into ours."""

from __future__ import annotations

import base64
import difflib
import os
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import parse_qs, urlsplit, urlunsplit

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, ConfigNotFound, ProfileNotFound
from botocore.utils import parse_timestamp
from isal import isal_zlib

from opsproof.errors import BucketMissing, ConfigurationError
from opsproof.system.store.entries import StoredObject
from opsproof.system.store.s3_errors import Place, bucket_missing, code_of, explain, status_of
from opsproof.target import S3StoreSettings

if TYPE_CHECKING:
    from botocore.awsrequest import AWSPreparedRequest
    from types_boto3_s3 import S3Client

CONNECT_TIMEOUT = 10
READ_TIMEOUT = 60
ATTEMPTS = 4
"""With both time-outs, what bounds a request: 4 attempts of at most 70 s, and up to 20 s of pauses."""

PARTS_AT_ONCE = 7
TOKEN = "opsproof-upload"  # noqa: S105  it names the metadata; the value is no secret either
"""The metadata by which an upload recognises the object as its own."""


class UploadStoppedError(Exception):
    """A part is not sent (again), because its upload is being given up."""


def crc32_text(value: int) -> str:
    """Return a CRC-32 as S3 writes it: big-endian, base64."""
    return base64.b64encode(value.to_bytes(4, "big")).decode()


def crc32_of(data: bytes | memoryview, before: int = 0) -> int:
    """Return the CRC-32 of `data` after bytes whose CRC-32 is `before`."""
    return int(isal_zlib.crc32(data, before))


class S3Connection:
    """One bucket and prefix, and the client that reaches it. It may be used by several threads.

    Attributes:
        place: What messages name.
        client: boto3's client; `ExpectedBucketOwner` is added to each of its requests about the bucket.
        bucket: The bucket's name.
        object_lock: The lock that what is uploaded gets, or None.
        checksums: Whether the server takes CRC-32 of whole objects; None until a first upload found out.
        batches: Whether it deletes many objects by one request; None until a first one found out.
        has_locks: Whether the bucket has Object Lock; None until it was asked.
        locks_shown: Which parts of an object's lock these credentials may read, as far as was found out.
        stopped: Ids of uploads of which no part is to be sent any more.
    """

    def __init__(self, settings: S3StoreSettings, prefix: str) -> None:
        self.bucket = settings.bucket
        self.place = Place(settings.bucket, prefix, settings.region, _without_user(settings.endpoint_url))
        self.object_lock = settings.object_lock
        self.checksums: bool | None = None
        self.batches: bool | None = None
        self.has_locks: bool | None = None
        self.locks_shown: set[str] = set()
        self._creation = _creation(settings)
        self.stopped: set[str] = set()
        self._owner = settings.expected_bucket_owner
        self.client, self._session = _client(settings)
        events = self.client.meta.events
        events.register("provide-client-params.s3", self._name_the_owner)
        events.register("before-send.s3.UploadPart", self._refuse_stopped)
        events.register_first("needs-retry.s3.HeadBucket", _end_redirection)

    def secrets(self) -> tuple[str, ...]:
        """Return the secret key and the session token that requests are signed with, wherever boto3 found them.

        Raises:
            BotoCoreError: A source of credentials was found, but failed.
        """
        credentials = self._session.get_credentials()
        if credentials is None:
            return ()
        frozen = credentials.get_frozen_credentials()
        return tuple(text for text in (frozen.secret_key, frozen.token) if text)

    def key(self, name: str) -> str:
        """Return the object's key."""
        return self.place.prefix + name

    def name(self, key: str) -> str:
        """Return the name of a key that is under the prefix."""
        return key[len(self.place.prefix) :]

    def creating(self, *, locked: bool = True) -> dict[str, Any]:
        """Return the arguments of a request that creates an object now: encryption, storage class, and its lock."""
        if self.object_lock is None or not locked:
            return dict(self._creation)
        until = datetime.now(UTC) + timedelta(days=self.object_lock.days)
        lock = {"ObjectLockMode": self.object_lock.mode, "ObjectLockRetainUntilDate": until}
        return self._creation | lock

    def proof_of(self, crc: int) -> dict[str, Any]:
        """Return the arguments by which a request says the CRC-32 of its body."""
        # A locked object is taken only where the header that names the algorithm, or a Content-MD5, comes with it.
        named = {"ChecksumAlgorithm": "CRC32"} if self.object_lock else {}
        return {"ChecksumCRC32": crc32_text(crc), **named}

    @contextmanager
    def translating(self, name: str = "") -> Iterator[None]:
        """Turn botocore's errors into ours; `name` is the object that the requests are about."""
        try:
            yield
        except (ClientError, BotoCoreError, OSError) as error:
            ours = explain(error, self.place, name)
            if isinstance(ours, BucketMissing):
                ours = bucket_missing(self.place, self._nearest_buckets())
            raise ours from error

    def find(self, name: str, token: str | None = None) -> StoredObject | None:
        """Return what is stored under the name, or None; with a token, only what carries it.

        Raises:
            ClientError: The store answered, but neither with the object nor with its absence.
            BotoCoreError: It did not answer.
        """
        try:
            head = self.client.head_object(Bucket=self.bucket, Key=self.key(name), ChecksumMode="ENABLED")
        except ClientError as error:
            if status_of(error) == 404 or code_of(error) in ("NoSuchKey", "404"):
                return None
            raise
        if token is not None and head["Metadata"].get(TOKEN) != token:
            return None
        whole = "ChecksumCRC32" in head and head.get("ChecksumType") == "FULL_OBJECT"
        return StoredObject(
            name,
            self.place.url(name),
            head["ContentLength"],
            "",
            head["LastModified"].astimezone(UTC),
            _version(head.get("VersionId")),
            head["ETag"],
            f"crc32:{head['ChecksumCRC32']}" if whole else None,
        )

    def delete(self, stored: StoredObject) -> None:
        """Delete this version; without one, what is under the key, which only hides it where versions are kept.

        Raises:
            ClientError: The store refused.
            BotoCoreError: It did not answer.
        """
        version: dict[str, Any] = {"VersionId": stored.version_id} if stored.version_id else {}
        self.client.delete_object(Bucket=self.bucket, Key=self.key(stored.name), **version)

    def unfinished(self, prefix: str) -> Iterator[tuple[str, str, datetime]]:
        """Yield name, upload id and beginning of every unfinished upload whose key begins with `prefix`.

        Raises:
            ClientError: The store refused.
            BotoCoreError: It did not answer.
        """
        pages = self.client.get_paginator("list_multipart_uploads")
        for page in pages.paginate(Bucket=self.bucket, Prefix=prefix):
            for each in page.get("Uploads", ()):
                # Not every server heeds the prefix.
                if each["Key"].startswith(prefix):
                    yield self.name(each["Key"]), each["UploadId"], each["Initiated"].astimezone(UTC)

    def abort(self, name: str, upload_id: str) -> None:
        """Give an unfinished upload up; one that is gone already is no error.

        Raises:
            ClientError: The store refused.
            BotoCoreError: It did not answer.
        """
        try:
            self.client.abort_multipart_upload(Bucket=self.bucket, Key=self.key(name), UploadId=upload_id)
        except ClientError as error:
            # Swift says NoSuchKey.
            if code_of(error) not in ("NoSuchUpload", "NoSuchKey", "404"):
                raise

    def _nearest_buckets(self) -> tuple[str, ...]:
        with suppress(ClientError, BotoCoreError):
            names = [each["Name"] for each in self.client.list_buckets()["Buckets"] if "Name" in each]
            return tuple(difflib.get_close_matches(self.bucket, names))
        return ()

    def _name_the_owner(self, params: MutableMapping[str, Any], **_: object) -> None:
        if self._owner and "Bucket" in params:
            params.setdefault("ExpectedBucketOwner", self._owner)

    def _refuse_stopped(self, request: AWSPreparedRequest, **_: object) -> None:
        # botocore repeats a failed part by itself; once the upload is given up, that only costs time.
        if self.stopped and self.stopped.intersection(parse_qs(urlsplit(request.url).query).get("uploadId", ())):
            raise UploadStoppedError


def _end_redirection(response: tuple[Any, Any] | None, **_: object) -> None:
    """Stop botocore from asking for a bucket's region by a request that is itself redirected, without an end.

    Where a web server answers every request with a redirection (to https, say), it recurses until Python gives up.
    """
    if response is not None and response[0].status_code in (301, 307, 400):
        headers = response[1].get("ResponseMetadata", {}).get("HTTPHeaders", {})
        if "x-amz-bucket-region" not in headers:
            raise ClientError(response[1], "HeadBucket")


def _version(text: str | None) -> str | None:
    # A bucket whose versioning was suspended calls the one that it overwrites "null".
    return text if text and text != "null" else None


def _creation(settings: S3StoreSettings) -> dict[str, Any]:
    given = {
        "ServerSideEncryption": settings.encryption,
        "SSEKMSKeyId": settings.kms_key_id,
        "StorageClass": settings.storage_class,
    }
    return {name: value for name, value in given.items() if value}


def _without_user(endpoint: str | None) -> str | None:
    if not endpoint:
        return None
    parts = urlsplit(endpoint)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _client(settings: S3StoreSettings) -> tuple[S3Client, boto3.session.Session]:
    styles: dict[bool | None, Literal["auto", "path", "virtual"]] = {
        None: "auto",
        True: "path",
        False: "virtual",
    }
    config = Config(
        connect_timeout=CONNECT_TIMEOUT,
        read_timeout=READ_TIMEOUT,
        retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
        max_pool_connections=PARTS_AT_ONCE + 3,
        # Checksums are named request by request, so that a server that refuses them can be done without.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": styles[settings.path_style]},
    )
    try:
        core = botocore.session.Session(profile=settings.profile)
        # botocore's own takes longer for the times of a listing than for all the rest of it.
        core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_time)
        if settings.credentials_file:
            core.set_config_variable("credentials_file", str(_credentials_file(settings.credentials_file)))
        session = boto3.session.Session(botocore_session=core, region_name=settings.region)
        return session.client("s3", endpoint_url=settings.endpoint_url, config=config), session
    except ProfileNotFound as error:
        profile = settings.profile or os.environ.get("AWS_PROFILE") or "default"
        raise ConfigurationError(
            f"there is no AWS profile {profile}",
            expected=f"[{profile}] in the AWS credentials or config file",
            found=", ".join(sorted(core.available_profiles)) or "no profile at all",
            hint=f"aws configure --profile {profile}",
        ) from error
    except (ValueError, ConfigNotFound, BotoCoreError) as error:
        raise ConfigurationError(
            f"the S3 store of bucket {settings.bucket} cannot be set up as configured",
            expected="an endpoint such as https://s3.example.org and a region such as eu-central-1",
            found=str(error),
            hint=f"export S3_ENDPOINT_URL=https://...   (it is {_without_user(settings.endpoint_url)})",
        ) from error


def _credentials_file(name: str) -> Path:
    path = Path(name).expanduser()
    if path.is_file():
        return path
    # botocore takes a missing file for an empty one, and the error would speak of missing credentials.
    raise ConfigurationError(
        "the credentials file of the store is not there",
        expected=f"a file {path}",
        found="no such file",
        hint=f"ls -la {path.parent}",
    )


def _parse_time(text: Any) -> datetime:
    """Return a time that a server has sent; one that is not ISO 8601, as in a header, is left to botocore."""
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return parse_timestamp(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
