"""One object on its way into S3: parts sent as they fill, a conditional completion, and nothing left on failure."""

from __future__ import annotations

import base64
import hashlib
import io
import logging
import secrets
import shlex
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from opsproof.errors import StoreError
from opsproof.system.store.entries import StoredObject
from opsproof.system.store.s3_commit import Commit
from opsproof.system.store.s3_connection import (
    PARTS_AT_ONCE,
    TOKEN,
    S3Connection,
    crc32_of,
    crc32_text,
)
from opsproof.system.store.s3_errors import REFUSALS, code_of
from opsproof.system.store.s3_locks import LockedError

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import CompletedPartTypeDef

_log = logging.getLogger(__name__)

SMALLEST_PART = 8 << 20
BUFFERS = 64 << 20
"""Bytes that parts in flight and the one being filled may hold together, unless a single part is larger."""
MOST_PARTS = 10_000
PLANNED_PARTS = 9_000


class S3Upload:
    """See `Upload`. The object becomes visible with the completion of its multipart upload, and not before."""

    def __init__(self, connection: S3Connection, name: str, expected_bytes: int) -> None:
        self._connection, self._name = connection, name
        self._client = connection.client
        self._token = secrets.token_hex(16)
        self._part_size = max(SMALLEST_PART, -(-expected_bytes // PLANNED_PARTS))
        self._at_once = max(1, min(PARTS_AT_ONCE, BUFFERS // self._part_size - 1))
        self._hash = hashlib.sha256()
        self._crc = 0
        self._written = 0
        self._numbered = 0
        self._part = io.BytesIO()
        self._sent: list[CompletedPartTypeDef] = []
        self._pending: set[Future[CompletedPartTypeDef]] = set()
        self._finished = False
        self._commit: Commit | None = None
        self._checksums = connection.checksums is not False
        with connection.translating(name):
            self._upload_id = self._begin()
        self._pool = ThreadPoolExecutor(self._at_once, thread_name_prefix="s3-part")

    @property
    def bytes_written(self) -> int:
        """Return how many bytes `write` has taken."""
        return self._written

    def write(self, data: bytes | memoryview) -> None:
        """Fill parts and send those that are full; waits while as many as may be are in flight."""
        self._must_be_open()
        view = memoryview(data).cast("B")
        try:
            self._hash.update(view)
            self._crc = crc32_of(view, self._crc)
            self._written += len(view)
            while view:
                room = self._part_size - self._part.tell()
                self._part.write(view[:room])
                view = view[room:]
                if self._part.tell() == self._part_size:
                    self._dispatch()
        except BaseException as error:
            self._give_up(error)
            raise

    def commit(self) -> StoredObject:
        """Send the rest and complete the upload, unless the name is taken."""
        self._must_be_open()
        try:
            if self._part.tell() or not self._numbered:
                self._dispatch()
            while self._pending:
                self._collect()
            with self._connection.translating(self._name):
                stored = self._complete()
        except BaseException as error:
            self._give_up(error)
            raise
        self._finished = True
        self._pool.shutdown()
        return stored

    def stop(self) -> None:
        """Send no further part, and none again."""
        self._connection.stopped.add(self._upload_id)

    def abort(self) -> None:
        """Stop sending, give the upload up, and delete the object should it have appeared after all."""
        if self._finished:
            return
        self._finished = True
        self.stop()
        try:
            # A part that arrives after the abortion would stay, so those in flight are waited for.
            self._pool.shutdown(wait=True, cancel_futures=True)
            with self._connection.translating(self._name):
                # First the object: a server may hold it together by what the abortion removes.
                if self._commit is not None:
                    self._commit.take_back()
                self._connection.abort(self._name, self._upload_id)
                if self._commit is not None:
                    self._commit.take_back()
        except LockedError:
            # Its multipart upload is complete, so there is nothing else to give up.
            raise
        except StoreError as error:
            place = self._connection.place
            error.kept = f"what was sent for {place.url(self._name)} may still be there, unfinished"
            error.hint = place.command(
                f"s3api abort-multipart-upload --bucket {place.bucket}"
                f" --key {shlex.quote(place.prefix + self._name)} --upload-id {shlex.quote(self._upload_id)}"
            )
            raise
        finally:
            self._connection.stopped.discard(self._upload_id)

    def _begin(self) -> str:
        """Create the multipart upload.

        An answer that is lost, or a signal before it comes, would leave an upload whose id nobody knows; so what is
        unfinished under this very key is compared before and after. Keys carry a time and a database's name: nobody
        else begins one in between.
        """
        before = self._unfinished()
        arguments: dict[str, Any] = self._connection.creating()
        if self._checksums:
            arguments |= {"ChecksumAlgorithm": "CRC32", "ChecksumType": "FULL_OBJECT"}
        try:
            reply = self._client.create_multipart_upload(
                Bucket=self._connection.bucket,
                Key=self._connection.key(self._name),
                Metadata={TOKEN: self._token},
                **arguments,
            )
        except ClientError as error:
            self._sweep(before)
            if self._checksums and code_of(error) in REFUSALS:
                self._do_without_checksums(error)
                return self._begin()
            raise
        except BaseException:
            self._sweep(before)
            raise
        if reply["ResponseMetadata"].get("RetryAttempts"):
            self._sweep(before, reply["UploadId"])
        return reply["UploadId"]

    def _unfinished(self) -> set[str] | None:
        key = self._connection.key(self._name)
        try:
            return {each for name, each, _ in self._connection.unfinished(key) if name == self._name}
        except (ClientError, BotoCoreError) as error:
            _log.debug("unfinished uploads cannot be listed: %s", error)
            return None

    def _sweep(self, before: set[str] | None, ours: str | None = None) -> None:
        """Give up uploads of this key that have appeared since `before` and are not `ours`."""
        after = self._unfinished()
        if before is None or after is None:
            return
        for upload_id in after - before - {ours}:
            try:
                self._connection.abort(self._name, upload_id)
            except (ClientError, BotoCoreError) as error:
                _log.warning("an unfinished upload of %s stays behind: %s", self._name, error)

    def _dispatch(self) -> None:
        """Send the part that was filled: the first at once, to learn what the server takes; others in threads."""
        while len(self._pending) >= self._at_once:
            self._collect()
        if self._numbered == MOST_PARTS:
            raise StoreError(
                f"{self._name} is larger than its upload was planned for",
                expected=f"at most {MOST_PARTS * self._part_size:,} bytes, by the size that was expected",
                found=f"{self._written:,} bytes and more",
                kept="nothing new is in the store",
                hint="pg_dump, or the filestore, grew while it was read: run it again",
            )
        self._numbered += 1
        part, self._part = self._part, io.BytesIO()
        if self._numbered == 1:
            with self._connection.translating(self._name):
                self._sent.append(self._send_first(part))
        else:
            self._pending.add(self._pool.submit(self._send, self._numbered, part))

    def _collect(self) -> None:
        done, self._pending = wait(self._pending, return_when=FIRST_COMPLETED)
        with self._connection.translating(self._name):
            self._sent.extend(each.result() for each in done)

    def _send_first(self, part: io.BytesIO) -> CompletedPartTypeDef:
        try:
            sent = self._send(1, part)
        except ClientError as error:
            if not self._checksums or code_of(error) not in REFUSALS:
                raise
            self._do_without_checksums(error)
            self._connection.abort(self._name, self._upload_id)
            self._upload_id = self._begin()
            sent = self._send(1, part)
        self._connection.checksums = self._checksums
        return sent

    def _do_without_checksums(self, error: ClientError) -> None:
        _log.info("%s takes no CRC-32 (%s): parts carry an MD5 instead", self._connection.place.server, code_of(error))
        self._checksums = False

    def _send(self, number: int, part: io.BytesIO) -> CompletedPartTypeDef:
        with part.getbuffer() as content:
            if self._checksums:
                proof = self._connection.proof_of(crc32_of(content))
            else:
                md5 = hashlib.md5(content, usedforsecurity=False)
                proof = {"ContentMD5": base64.b64encode(md5.digest()).decode()}
        part.seek(0)
        # A file and not bytes: http.client then sends in blocks, each with the time-out to itself, and a slow line
        # may take longer than that for the whole part.
        arguments: dict[str, Any] = {"Body": part, **proof}
        reply = self._client.upload_part(
            Bucket=self._connection.bucket,
            Key=self._connection.key(self._name),
            UploadId=self._upload_id,
            PartNumber=number,
            **arguments,
        )
        sent: CompletedPartTypeDef = {"PartNumber": number, "ETag": reply["ETag"]}
        if self._checksums:
            sent["ChecksumCRC32"] = proof["ChecksumCRC32"]
        return sent

    def _complete(self) -> StoredObject:
        crc = crc32_text(self._crc) if self._checksums else None
        self._commit = Commit(self._connection, self._name, self._token, self._written, self._hash.hexdigest(), crc)
        whole = {"ChecksumCRC32": crc, "ChecksumType": "FULL_OBJECT", "MpuObjectSize": self._written}
        return self._commit.send(self._send_completion, (whole, {}) if crc else ({},))

    def _send_completion(self, arguments: dict[str, Any]) -> Mapping[str, Any]:
        parts = sorted(self._sent, key=lambda each: each.get("PartNumber", 0))
        return self._client.complete_multipart_upload(
            Bucket=self._connection.bucket,
            Key=self._connection.key(self._name),
            UploadId=self._upload_id,
            MultipartUpload={"Parts": parts},
            **arguments,
        )

    def _give_up(self, error: BaseException) -> None:
        """Abort because of `error`, which goes on to the caller whatever becomes of the abortion."""
        try:
            self.abort()
        except StoreError as failure:
            _log.warning("%s", failure)
            if isinstance(error, StoreError):
                error.kept, error.hint = failure.kept, failure.hint
            else:
                error.add_note(f"{failure.kept}: {failure.hint}")

    def _must_be_open(self) -> None:
        if self._finished:
            raise StoreError(f"the upload of {self._name} was finished or given up before")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.abort()
        else:
            self._give_up(error)
