"""The one request that makes an object visible: under conditions, and with its outcome found out if in doubt."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from opsproof.errors import StoreError
from opsproof.system.store.contract import name_taken
from opsproof.system.store.entries import StoredObject
from opsproof.system.store.s3_connection import S3Connection
from opsproof.system.store.s3_deletion import delete_version
from opsproof.system.store.s3_errors import REFUSALS, code_of, status_of
from opsproof.system.store.s3_locks import secure_lock

_log = logging.getLogger(__name__)

_TAKEN = {"PreconditionFailed", "ConditionalRequestConflict", "412"}
_DONE_BEFORE = {*_TAKEN, "NoSuchUpload"}


@dataclass(frozen=True)
class Commit:
    """An object that is about to become visible.

    Attributes:
        connection: Where.
        name: Under which name.
        token: What its metadata carry, to tell it from another's.
        bytes: Its size.
        sha256: Hex digest of it.
        checksum: Its CRC-32 in base64, where the server is to verify that; else None.
        locked: Whether it has to have the lock that the settings ask for.
    """

    connection: S3Connection
    name: str
    token: str
    bytes: int
    sha256: str
    checksum: str | None
    locked: bool = True

    def send(
        self, request: Callable[[dict[str, Any]], Mapping[str, Any]], proofs: tuple[dict[str, Any], ...]
    ) -> StoredObject:
        """Make the request under the strictest conditions that the server knows.

        Args:
            request: Sends it with these further arguments, and returns the reply.
            proofs: Checksum arguments, the strictest first; each next one for a server that refuses those before.

        Raises:
            ObjectExists: The name is taken.
            StoreError: What is stored is not what was sent, or lacks the lock that it has to have.
            ClientError: The store refused.
            BotoCoreError: It did not answer.
        """
        stored = self._climb_down(request, proofs)
        if self.locked:
            secure_lock(self.connection, self.name, stored.version_id)
        return stored

    def take_back(self) -> None:
        """Delete the object if it appeared, and only then.

        Raises:
            LockedError: It did, and is locked.
            ClientError: The store refused.
            BotoCoreError: It did not answer.
        """
        if ours := self.connection.find(self.name, self.token):
            delete_version(self.connection, ours)

    def refuse_if_taken(self) -> None:
        """Raise if the name is taken.

        A server that does not know the condition may ignore it without a word, so this is asked as well.
        """
        try:
            found = self.connection.find(self.name)
        except ClientError as error:
            # Credentials that may only write cannot look; then the condition alone must do. Expired ones are answered
            # with 400 and no reason here, but with a reason by the request that follows.
            if status_of(error) not in (400, 403):
                raise
            return
        if found is not None:
            raise name_taken(self.name, found.location)

    def _climb_down(
        self, request: Callable[[dict[str, Any]], Mapping[str, Any]], proofs: tuple[dict[str, Any], ...]
    ) -> StoredObject:
        condition = {"IfNoneMatch": "*"}
        *ladder, last = [condition | proof for proof in proofs] + list(proofs)
        for arguments in ladder:
            try:
                return self._attempt(request, arguments)
            except ClientError as error:
                if code_of(error) not in REFUSALS:
                    raise
                _log.info("%s refuses %s: %s", self.connection.place.server, sorted(arguments), error)
        return self._attempt(request, last)

    def _attempt(
        self, request: Callable[[dict[str, Any]], Mapping[str, Any]], arguments: dict[str, Any]
    ) -> StoredObject:
        self.refuse_if_taken()
        try:
            reply = request(arguments)
        except ClientError as error:
            # botocore repeats a request whose answer was lost; the repeated one then meets the first one's work.
            if code_of(error) in _DONE_BEFORE and (ours := self._find_ours()):
                return ours
            if code_of(error) in _TAKEN:
                raise name_taken(self.name, self.connection.place.url(self.name)) from error
            raise
        return self._find_ours() or self._of_reply(reply)

    def _find_ours(self) -> StoredObject | None:
        """Return what is stored, checked; None where nothing of ours is, or looking is not allowed."""
        try:
            found = self.connection.find(self.name, self.token)
        except (ClientError, BotoCoreError) as error:
            _log.info("%s cannot be looked at: %s", self.connection.place.url(self.name), error)
            return None
        if found is None:
            return None
        known = found.checksum is not None and self.checksum is not None
        if found.bytes != self.bytes or (known and found.checksum != f"crc32:{self.checksum}"):
            raise StoreError(
                f"what the store keeps as {self.name} is not what was sent",
                expected=f"{self.bytes:,} bytes, crc32:{self.checksum}",
                found=f"{found.bytes:,} bytes, {found.checksum}",
                kept="it was deleted again",
                hint="run it again; if it comes back, report it to whoever runs " + self.connection.place.server,
            )
        return replace(found, sha256=self.sha256)

    def _of_reply(self, reply: Mapping[str, Any]) -> StoredObject:
        version = reply.get("VersionId")
        return StoredObject(
            self.name,
            self.connection.place.url(self.name),
            self.bytes,
            self.sha256,
            None,
            version if version != "null" else None,
            reply.get("ETag"),
        )
