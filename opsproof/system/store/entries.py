"""What a store says of what it holds, and of itself: the values that its methods take and return."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True)
class StoredObject:
    """What is in the store under a name.

    Attributes:
        name: Relative to the store's location.
        location: A URL or a path that a person can use.
        bytes: Its size.
        sha256: Hex digest of what was sent; empty where it was not this process that sent it.
        modified: When the store says that it was written, in UTC; None where the store would not tell.
        version_id: In a bucket with versioning, which version this is.
        etag: The store's own identity of this very content, so that `delete` can tell it from a successor.
        checksum: The checksum of the whole object that the store itself verified, `crc32:` and base64.
    """

    name: str
    location: str
    bytes: int
    sha256: str
    modified: datetime | None
    version_id: str | None = None
    etag: str | None = None
    checksum: str | None = None


@dataclass(frozen=True)
class Listing:
    """One line of a listing: the name relative to the store's location, bytes, and when it was written (UTC).

    `etag` is the same as in `StoredObject`; None where the store does not list it.
    """

    name: str
    bytes: int
    modified: datetime
    etag: str | None = None


@dataclass(frozen=True)
class Leftover:
    """What a killed run left unfinished.

    Attributes:
        name: What it was to become, as far as the store knows.
        location: A URL or a path of it.
        started: When it was begun (UTC). A store that cannot tell whether a run still works on it leaves the
            judgement to the caller: see `in_doubt`.
        handle: The store's own name of it: an upload id, or a file's name.
        in_doubt: True where another run may still be writing it; False where it is certain that nobody is.
    """

    name: str
    location: str
    started: datetime
    handle: str
    in_doubt: bool


@dataclass(frozen=True)
class Lock:
    """Why something in the store cannot be deleted.

    Attributes:
        until: When that ends (UTC); None under a legal hold alone, which ends when somebody lifts it.
        mode: `GOVERNANCE` or `COMPLIANCE`; empty under a legal hold alone.
        legal_hold: Whether somebody has put it under a legal hold.
    """

    until: datetime | None
    mode: str
    legal_hold: bool

    def __str__(self) -> str:
        reasons = [f"locked until {self.until:%Y-%m-%d %H:%M:%S} UTC ({self.mode})"] if self.until else []
        return " and ".join([*reasons, *(["under a legal hold"] if self.legal_hold else [])])


@dataclass(frozen=True)
class Refusal:
    """What was not deleted, and why, in words for a person."""

    name: str
    reason: str


@dataclass(frozen=True)
class OldVersion:
    """What a store with versions keeps under a name besides the object that is there now.

    Attributes:
        name: Relative to the store's location.
        version_id: The store's own name of this version.
        bytes: Its size; 0 of a delete marker.
        modified: When it was written (UTC).
        is_delete_marker: Whether it is only the note that something was deleted.
    """

    name: str
    version_id: str
    bytes: int
    modified: datetime
    is_delete_marker: bool


@dataclass(frozen=True)
class BucketSettings:
    """How a bucket is set up; None is what its server would not tell.

    Attributes:
        versioning: Deleting and overwriting keep what was there.
        encryption: Objects are encrypted where they rest, by default.
        object_lock: Objects can be locked.
        lifecycle: At least one rule of a lifecycle is in force.
        public_access_blocked: All four of S3's blocks are on.
        untold: For each setting that is None, what the server said instead.
        bucket: Its name.
        client: How a command of the AWS client that talks to this server begins.
    """

    versioning: bool | None
    encryption: bool | None
    object_lock: bool | None
    lifecycle: bool | None
    public_access_blocked: bool | None
    untold: Mapping[str, str] = field(default_factory=dict, hash=False)
    bucket: str = ""
    client: str = "aws"
