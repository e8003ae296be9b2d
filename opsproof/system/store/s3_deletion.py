"""Deleting from a bucket: one object or many, never one that is locked, and none that nobody meant."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from opsproof.errors import BucketMissing, StoreError, StoreUnreachable
from opsproof.system.store.contract import checked_name
from opsproof.system.store.entries import Refusal, StoredObject
from opsproof.system.store.s3_connection import S3Connection
from opsproof.system.store.s3_errors import REFUSALS, code_of, status_of
from opsproof.system.store.s3_locks import LockedError, bucket_has_locks, lock_of, locked

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import ErrorTypeDef, ObjectIdentifierTypeDef

_T = TypeVar("_T")
_log = logging.getLogger(__name__)

BATCH = 1000
"""As many objects as S3 takes in one request."""
AT_ONCE = 8
_GONE = {"NoSuchKey", "NoSuchVersion", "404"}
_NO_BATCHES = REFUSALS | {"AccessDenied", "BadDigest", "InvalidDigest", "MethodNotAllowed", "MissingContentMD5", "405"}
"""How servers refuse a whole batch: single deletions then succeed, or tell the reason of each."""


def delete_object(connection: S3Connection, stored: StoredObject) -> None:
    """Delete this version; in a bucket without versions, the object if it is still this one.

    Raises:
        StoreError: It is locked, or another by now.
        ClientError: The store refused.
        BotoCoreError: It did not answer.
    """
    checked_name(stored.name)
    if stored.version_id is None:
        present = connection.find(stored.name)
        if present is None:
            return
        if stored.etag is not None and present.etag != stored.etag:
            raise StoreError(
                f"{stored.name} is not the object that was to be deleted",
                expected=f"{stored.location} with ETag {stored.etag}",
                found=f"ETag {present.etag}",
                kept="it was left as it is",
                hint=connection.place.command(f"s3 ls {stored.location}"),
            )
        # Such a deletion succeeds even so: it only hides what is locked.
        if present.version_id is not None and (lock := lock_of(connection, stored.name)):
            raise locked(connection, stored.name, lock)
    delete_version(connection, stored)


def delete_version(connection: S3Connection, stored: StoredObject) -> None:
    """Delete without asking what is there; where the store refuses because of a lock, say so.

    Raises:
        LockedError: It is locked.
        ClientError: The store refused.
        BotoCoreError: It did not answer.
    """
    try:
        connection.delete(stored)
    except ClientError as error:
        if code_of(error) in _GONE:
            return
        if status_of(error) == 403:
            lock = None
            with suppress(ClientError, BotoCoreError):
                lock = lock_of(connection, stored.name, stored.version_id)
            if lock:
                raise locked(connection, stored.name, lock) from error
        raise


def delete_objects(connection: S3Connection, objects: Sequence[StoredObject]) -> tuple[Refusal, ...]:
    """Delete many: see `Store.delete_all`.

    Raises:
        StoreError: The store does not answer, or it is no place to delete from.
        ClientError: The store refused.
        BotoCoreError: It did not answer.
    """
    for each in objects:
        checked_name(each.name)
    free, refusals = _unlocked(connection, objects)
    while free:
        batch, free = free[:BATCH], free[BATCH:]
        refusals += _delete_batch(connection, batch)
    return tuple(refusals)


def _unlocked(connection: S3Connection, objects: Sequence[StoredObject]) -> tuple[list[StoredObject], list[Refusal]]:
    """Tell those that a deletion without a version would merely hide from all others.

    A version that is named needs no asking: there the server itself refuses.
    """
    hideable = [each for each in objects if each.version_id is None]
    with suppress(ClientError):
        if not hideable or not bucket_has_locks(connection):
            return list(objects), []
    found = _each(lambda each: lock_of(connection, each.name), hideable)
    locks = {each.name: lock for each, lock in zip(hideable, found, strict=True) if lock}
    kept = [Refusal(name, str(lock)) for name, lock in locks.items()]
    return [each for each in objects if each.version_id is not None or each.name not in locks], kept


def _delete_batch(connection: S3Connection, batch: list[StoredObject]) -> list[Refusal]:
    if connection.batches is False:
        return _delete_singly(connection, batch)
    try:
        reply = connection.client.delete_objects(
            Bucket=connection.bucket,
            Delete={"Objects": [_identifier(connection, each) for each in batch], "Quiet": True},
        )
    except ClientError as error:
        if code_of(error) not in _NO_BATCHES:
            raise
        _log.info("%s refuses to delete in batches: %s", connection.place.server, error)
        connection.batches = False
        return _delete_singly(connection, batch)
    # Each that was refused is tried by itself, which is what tells why.
    refused = {(each.get("Key"), each.get("VersionId") or None) for each in _failures(reply.get("Errors", ()))}
    again = [each for each in batch if _is_among(connection, each, refused)]
    return _delete_singly(connection, again)


def _is_among(connection: S3Connection, stored: StoredObject, refused: set[tuple[str | None, str | None]]) -> bool:
    key = connection.key(stored.name)
    # Not every server repeats the version.
    return (key, stored.version_id) in refused or (key, None) in refused


def _failures(errors: Iterable[ErrorTypeDef]) -> Iterable[ErrorTypeDef]:
    return (each for each in errors if each.get("Code") not in _GONE)


def _identifier(connection: S3Connection, stored: StoredObject) -> ObjectIdentifierTypeDef:
    identifier: ObjectIdentifierTypeDef = {"Key": connection.key(stored.name)}
    if stored.version_id:
        identifier["VersionId"] = stored.version_id
    return identifier


def _delete_singly(connection: S3Connection, objects: list[StoredObject]) -> list[Refusal]:
    def delete(stored: StoredObject) -> Refusal | None:
        try:
            with connection.translating(stored.name):
                delete_object(connection, stored)
        except (StoreUnreachable, BucketMissing):
            raise
        except LockedError as error:
            return Refusal(stored.name, error.found)
        except StoreError as error:
            return Refusal(stored.name, f"{error.summary}: {error.found}")
        return None

    return [refusal for refusal in _each(delete, objects) if refusal]


def _each(work: Callable[[StoredObject], _T], objects: Sequence[StoredObject]) -> list[_T]:
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="s3-delete") as pool:
        futures = [pool.submit(work, each) for each in objects]
        try:
            return [each.result() for each in futures]
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
