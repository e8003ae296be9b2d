"""A bucket and prefix as a store."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    IncompleteReadError,
    ReadTimeoutError,
    ResponseStreamingError,
)

from opsproof.errors import StoreError
from opsproof.system.store.contract import PROBE, READ_SIZE, checked_customer, checked_name
from opsproof.system.store.entries import BucketSettings, Leftover, Listing, Lock, OldVersion, Refusal, StoredObject
from opsproof.system.store.s3_commit import Commit
from opsproof.system.store.s3_connection import TOKEN, S3Connection, crc32_of, crc32_text
from opsproof.system.store.s3_deletion import delete_object, delete_objects, delete_version
from opsproof.system.store.s3_errors import code_of
from opsproof.system.store.s3_locks import LockedError, lock_of, require_lockable
from opsproof.system.store.s3_settings import read_settings
from opsproof.system.store.s3_upload import S3Upload
from opsproof.system.store.s3_versions import old_versions
from opsproof.target import S3StoreSettings

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import GetObjectOutputTypeDef

RESUMPTIONS = 5
"""How often in a row a reading may break without a single byte in between."""

_BROKEN = (ConnectionClosedError, IncompleteReadError, ReadTimeoutError, ResponseStreamingError, OSError)


def open_s3_store(settings: S3StoreSettings, customer: str) -> S3Store:
    """Return the store of a customer in a bucket; nothing is contacted.

    Raises:
        ConfigurationError: A profile or a credentials file that the settings name is not there.
    """
    folder = f"{customer}/backups/" if checked_customer(customer) else "backups/"
    return S3Store(S3Connection(settings, settings.prefix.lstrip("/") + folder))


class S3Store:
    """See `Store`."""

    def __init__(self, connection: S3Connection) -> None:
        self._connection = connection
        self._client = connection.client

    @property
    def location(self) -> str:
        """Return `s3://bucket/prefix/`."""
        return self._connection.place.url()

    def secrets(self) -> tuple[str, ...]:
        """Return the secret key and the session token, wherever boto3 found them."""
        with self._connection.translating():
            return self._connection.secrets()

    def check_writable(self) -> None:
        """Begin a multipart upload under the prefix and abort it, which stores nothing, and so nothing locked."""
        with self._connection.translating():
            require_lockable(self._connection)
        S3Upload(self._connection, f"{PROBE}-{secrets.token_hex(8)}", 0).abort()

    def check_readable(self) -> None:
        """List one object, and ask for one that is not there: without s3:GetObject that is refused, not missing."""
        connection = self._connection
        with connection.translating():
            self._client.list_objects_v2(Bucket=connection.bucket, Prefix=connection.place.prefix, MaxKeys=1)
            try:
                absent = f"{PROBE}-{secrets.token_hex(8)}"
                self._client.get_object(Bucket=connection.bucket, Key=connection.key(absent))
            except ClientError as error:
                if code_of(error) not in ("NoSuchKey", "404"):
                    raise

    def upload(self, name: str, expected_bytes: int) -> S3Upload:
        """Begin a multipart upload, whose part size follows from `expected_bytes`."""
        checked_name(name)
        with self._connection.translating(name):
            Commit(self._connection, name, "", 0, "", None).refuse_if_taken()
        return S3Upload(self._connection, name, expected_bytes)

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the object, taken up again where the connection breaks.

        Raises:
            StoreError: It ends early, was replaced meanwhile, or does not match the checksum that the store keeps.
        """
        checked_name(name)
        with self._connection.translating(name):
            reply = self._get(name, 0, None)
        size, etag, crc, position, broken = reply["ContentLength"], reply["ETag"], 0, 0, 0
        kept = reply.get("ChecksumCRC32") if reply.get("ChecksumType") == "FULL_OBJECT" else None
        body = reply["Body"]
        try:
            while position < size:
                try:
                    piece = body.read(min(READ_SIZE, size - position))
                    if not piece:
                        raise IncompleteReadError(actual_bytes=position, expected_bytes=size)
                except _BROKEN as error:
                    broken += 1
                    with self._connection.translating(name):
                        if broken > RESUMPTIONS:
                            raise error
                        body.close()
                        body = self._get(name, position, etag)["Body"]
                    continue
                broken = 0
                position += len(piece)
                crc = crc32_of(piece, crc)
                yield piece
        finally:
            body.close()
        if kept is not None and kept != crc32_text(crc):
            raise StoreError(
                f"what the store sends as {name} does not match the checksum that it keeps",
                expected=f"crc32:{kept}",
                found=f"crc32:{crc32_text(crc)} over {position:,} bytes",
                kept="nothing was changed",
                hint="read it again; if it stays so, the stored copy is damaged: take a new backup",
            )

    def put_small(self, name: str, data: bytes, *, locked: bool = True) -> StoredObject:
        """Write a small object in one request."""
        checked_name(name)
        connection, token = self._connection, secrets.token_hex(16)
        crc = crc32_text(crc32_of(data)) if connection.checksums is not False else None
        commit = Commit(connection, name, token, len(data), hashlib.sha256(data).hexdigest(), crc, locked)

        def request(arguments: dict[str, Any]) -> Mapping[str, Any]:
            return self._client.put_object(
                Bucket=connection.bucket,
                Key=connection.key(name),
                Body=data,
                Metadata={TOKEN: token},
                **connection.creating(locked=locked),
                **arguments,
            )

        md5 = base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
        proofs: tuple[dict[str, Any], ...] = ({"ContentMD5": md5},)
        if crc:
            proofs = (connection.proof_of(crc32_of(data)), *proofs)
        with connection.translating(name):
            try:
                return commit.send(request, proofs)
            except BaseException as error:
                try:
                    commit.take_back()
                except LockedError as failure:
                    error.add_note(str(failure))
                except (ClientError, BotoCoreError) as failure:
                    error.add_note(f"whether {connection.place.url(name)} exists is not known: {failure}")
                raise

    def get_small(self, name: str) -> bytes:
        """Return a small object."""
        return b"".join(self.read(name))

    def list(self, prefix: str = "") -> Iterator[Listing]:
        """Yield the objects, a thousand a request."""
        connection = self._connection
        with connection.translating():
            pages = self._client.get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=connection.bucket, Prefix=connection.place.prefix + prefix):
                for each in page.get("Contents", ()):
                    name = connection.name(each["Key"])
                    # Some consoles make an empty object to show a folder.
                    if name and not name.endswith("/"):
                        yield Listing(name, each["Size"], each["LastModified"].astimezone(UTC), each.get("ETag"))

    def find(self, name: str) -> StoredObject | None:
        """Return the object's entry, or None."""
        with self._connection.translating(name):
            return self._connection.find(checked_name(name))

    def exists(self, name: str) -> bool:
        """Tell whether there is an object of that name."""
        return self.find(name) is not None

    def delete(self, stored: StoredObject) -> None:
        """Delete this version; in a bucket without versions, the object if it is still this one."""
        with self._connection.translating(stored.name):
            delete_object(self._connection, stored)

    def delete_all(self, objects: Sequence[StoredObject]) -> tuple[Refusal, ...]:
        """Delete them, a thousand a request where the server takes that.

        A batch compares no ETags. In a bucket with Object Lock each object without a version id is asked for its lock.
        """
        with self._connection.translating():
            return delete_objects(self._connection, objects)

    def lock_of(self, name: str) -> Lock | None:
        """Return the retention and the legal hold of the object; in a bucket without Object Lock nothing is asked."""
        with self._connection.translating(name):
            return lock_of(self._connection, checked_name(name))

    def old_versions(self, prefix: str = "") -> Iterator[OldVersion]:
        """Yield them, a thousand a request."""
        with self._connection.translating():
            yield from old_versions(self._connection, prefix)

    def delete_version(self, version: OldVersion) -> None:
        """Delete that version; where it is locked, the server refuses."""
        with self._connection.translating(version.name):
            name = checked_name(version.name)
            location = self._connection.place.url(name)
            stored = StoredObject(name, location, version.bytes, "", version.modified, version.version_id)
            delete_version(self._connection, stored)

    def settings(self) -> BucketSettings:
        """Return what the server tells, five requests."""
        with self._connection.translating():
            return read_settings(self._connection)

    def free_bytes(self) -> int | None:
        """Return None: a bucket knows no limit."""
        return None

    def leftovers(self) -> tuple[Leftover, ...]:
        """Return the unfinished uploads under the prefix, those that are still being written among them."""
        place = self._connection.place
        with self._connection.translating():
            return tuple(
                Leftover(name, place.url(name), started, upload_id, in_doubt=True)
                for name, upload_id, started in self._connection.unfinished(place.prefix)
            )

    def abort_leftover(self, leftover: Leftover) -> None:
        """Give an unfinished upload up."""
        with self._connection.translating(leftover.name):
            self._connection.abort(leftover.name, leftover.handle)

    def _get(self, name: str, start: int, etag: str | None) -> GetObjectOutputTypeDef:
        """Ask for the object from byte `start` on, and for no other than the one of that ETag."""
        arguments: dict[str, Any] = {"Range": f"bytes={start}-"} if start else {"ChecksumMode": "ENABLED"}
        if etag is not None:
            arguments["IfMatch"] = etag
        return self._client.get_object(Bucket=self._connection.bucket, Key=self._connection.key(name), **arguments)
