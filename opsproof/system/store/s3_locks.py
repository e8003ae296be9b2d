"""S3 Object Lock: whether a bucket has it, what is locked until when, and what is said of that."""

from __future__ import annotations

import secrets
import shlex
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any

from botocore.exceptions import ClientError

from opsproof.errors import StoreError
from opsproof.system.store.contract import PROBE
from opsproof.system.store.entries import Lock
from opsproof.system.store.s3_connection import S3Connection
from opsproof.system.store.s3_errors import code_of, is_unknown_there, status_of

_NO_CONFIGURATION = {"ObjectLockConfigurationNotFoundError", "ObjectLockConfigurationNotFound"}
_NONE = {"NoSuchKey", "404", "NoSuchObjectLockConfiguration", "InvalidRequest"}
"""How servers say that there is no such object, that it has no lock, and that the bucket has none."""
SLACK = timedelta(days=1)
"""An upload may take that long: its lock counts from its beginning."""


class LockedError(StoreError):
    """Object Lock keeps something from being deleted."""


def bucket_has_locks(connection: S3Connection) -> bool:
    """Tell whether objects of the bucket can be locked; the answer is kept.

    Raises:
        ClientError: The server would not tell.
        BotoCoreError: It did not answer.
    """
    if connection.has_locks is None:
        try:
            told = connection.client.get_object_lock_configuration(Bucket=connection.bucket)
        except ClientError as error:
            if code_of(error) not in _NO_CONFIGURATION and not is_unknown_there(error):
                raise
            connection.has_locks = False
        else:
            connection.has_locks = told.get("ObjectLockConfiguration", {}).get("ObjectLockEnabled") == "Enabled"
    return connection.has_locks


def lock_of(connection: S3Connection, name: str, version_id: str | None = None) -> Lock | None:
    """Return what keeps the object from being deleted, or None.

    Raises:
        ClientError: The server would not tell.
        BotoCoreError: It did not answer.
    """
    try:
        if not bucket_has_locks(connection):
            return None
    except ClientError as error:
        if status_of(error) != 403:
            raise
        # Who may not ask about the bucket may be allowed to ask about the object.
    _require_readable(connection, holds=True)
    return _lock_shown(connection, name, version_id)


def locked(connection: S3Connection, name: str, lock: Lock) -> LockedError:
    """Return the error of an object that was to be deleted and is locked."""
    place = connection.place
    return LockedError(
        f"{name} is locked and cannot be deleted",
        expected=f"{place.url(name)} without a lock",
        found=str(lock),
        kept=f"{place.url(name)} stays in the store as it is",
        hint=place.command(f"s3api get-object-retention --bucket {place.bucket} --key {_word(connection, name)}")
        + "   then delete it when that has passed",
    )


def require_lockable(connection: S3Connection) -> None:
    """Make sure that what is uploaded can get the lock that the settings ask for, and that this can be verified.

    Raises:
        StoreError: The bucket has no Object Lock.
        ClientError: The server would not tell.
        BotoCoreError: It did not answer.
    """
    asked, place = connection.object_lock, connection.place
    if asked is None:
        return
    if not bucket_has_locks(connection):
        raise StoreError(
            f"the bucket {place.bucket} has no Object Lock, and the inventory asks for it",
            expected=f"Object Lock on s3://{place.bucket}, for {asked.days} days of {asked.mode}",
            found=f"{place.server} knows of no Object Lock configuration of this bucket",
            kept="nothing was sent",
            hint=place.command(
                f"s3api put-object-lock-configuration --bucket {place.bucket}"
                " --object-lock-configuration ObjectLockEnabled=Enabled"
            )
            + "   (with versioning on), or take object_lock out of the inventory",
        )
    # Whose credentials may not read locks is told now, and not when a dump has been uploaded.
    _require_readable(connection, holds=False)


def secure_lock(connection: S3Connection, name: str, version_id: str | None) -> None:
    """Make sure that what was uploaded has the lock that the settings ask for.

    Some servers take the lock with an upload of one request, but not with one of parts: there it is set afterwards.

    Raises:
        StoreError: It has not, and cannot get it.
        ClientError: The server would not tell, or would not lock.
        BotoCoreError: It did not answer.
    """
    asked, place = connection.object_lock, connection.place
    if asked is None:
        return
    now = datetime.now(UTC)
    for may_set in (True, False):
        found = _lock_shown(connection, name, version_id)
        if found and found.mode == asked.mode and found.until and found.until > now + timedelta(asked.days) - SLACK:
            return
        if may_set:
            connection.client.put_object_retention(
                **_object(connection, name, version_id),
                Retention={"Mode": asked.mode, "RetainUntilDate": now + timedelta(asked.days)},
            )
    raise StoreError(
        f"{name} was stored without the lock that the inventory asks for",
        expected=f"{place.url(name)} locked for {asked.days} days ({asked.mode})",
        found=str(found or "no lock"),
        kept="it is removed again, if it can be",
        hint=place.command(f"s3api get-object-lock-configuration --bucket {place.bucket}"),
    )


def _lock_shown(connection: S3Connection, name: str, version_id: str | None) -> Lock | None:
    """Return what a HEAD shows; it hides from whoever may not read locks that there is one."""
    try:
        head = connection.client.head_object(**_object(connection, name, version_id))
    except ClientError as error:
        # Of a delete marker a server says that the method is not allowed.
        if status_of(error) in (404, 405):
            return None
        raise
    hold = head.get("ObjectLockLegalHoldStatus") == "ON"
    until = head.get("ObjectLockRetainUntilDate")
    if until is None or until <= _time_there(head["ResponseMetadata"]["HTTPHeaders"]):
        return Lock(None, "", legal_hold=True) if hold else None
    return Lock(until.astimezone(UTC), head.get("ObjectLockMode", ""), hold)


def _time_there(headers: Mapping[str, str]) -> datetime:
    """Return the server's time: by a clock of this machine that is ahead, a lock would have ended."""
    with suppress(KeyError, ValueError):
        return parsedate_to_datetime(headers["date"]).astimezone(UTC)
    return datetime.now(UTC)


def _require_readable(connection: S3Connection, *, holds: bool) -> None:
    """Make sure, once, that locks are shown to these credentials: a request about no object is denied, or finds none.

    Raises:
        ClientError: They are not.
        BotoCoreError: The server did not answer.
    """
    absent = _object(connection, f"{PROBE}-{secrets.token_hex(8)}", None)
    questions: dict[str, Callable[..., object]] = {"retention": connection.client.get_object_retention}
    if holds:
        questions["legal hold"] = connection.client.get_object_legal_hold
    for what, ask in questions.items():
        if what in connection.locks_shown:
            continue
        try:
            ask(**absent)
        except ClientError as error:
            if code_of(error) not in _NONE and not is_unknown_there(error):
                raise
        connection.locks_shown.add(what)


def _object(connection: S3Connection, name: str, version_id: str | None) -> Any:
    version = {"VersionId": version_id} if version_id else {}
    return {"Bucket": connection.bucket, "Key": connection.key(name), **version}


def _word(connection: S3Connection, name: str) -> str:
    return shlex.quote(connection.key(name))
