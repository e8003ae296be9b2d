"""What every store offers, whatever it is made of."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from opsproof.errors import ConfigurationError, ObjectExists, StoreError
from opsproof.system.store.entries import BucketSettings, Leftover, Listing, Lock, OldVersion, Refusal, StoredObject

READ_SIZE = 1 << 20
"""Bytes that `read` yields at a time, at most."""

PROBE = "opsproof-check"
"""How the names of what is written only to see whether that is allowed begin."""

_NAME = re.compile(r"[^\x00-\x1f\x7f\\]+")


class Upload(Protocol):
    """One object on its way into the store: invisible until `commit`, gone after `abort`.

    As a context manager it aborts where it is left without a commit. A failure of `write` or `commit` has aborted it
    already.
    """

    @property
    def bytes_written(self) -> int:
        """Return how many bytes `write` has taken."""
        ...

    def write(self, data: bytes | memoryview) -> None:
        """Take the next bytes. The caller may reuse the buffer afterwards.

        Raises:
            StoreError: They, or bytes before them, cannot be stored; nothing is left behind.
        """
        ...

    def commit(self) -> StoredObject:
        """Make the object visible under its name, whole and durable.

        Raises:
            ObjectExists: The name is taken; what is there was left as it is.
            StoreError: It cannot be stored; nothing is left behind.
        """
        ...

    def stop(self) -> None:
        """Send nothing more, so that a `write` that waits for the store in another thread ends soon; then `abort`."""
        ...

    def abort(self) -> None:
        """Remove what was sent. Nothing happens after a commit or an earlier abort.

        Raises:
            StoreError: It cannot be removed; the hint says how to.
        """
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Store(Protocol):
    """A place for backups. Names are relative to `location`, may hold slashes, and are never overwritten.

    Every method raises a `StoreError` (or one of its kinds) where the store fails or refuses.
    """

    @property
    def location(self) -> str:
        """Return where it is, ending in a slash: `s3://bucket/customer/backups/`, or a folder."""
        ...

    def secrets(self) -> tuple[str, ...]:
        """Return what no log and no report may hold."""
        ...

    def check_writable(self) -> None:
        """Prove that something can be written, and leave nothing."""
        ...

    def check_readable(self) -> None:
        """Prove that the store can be listed and read; change nothing."""
        ...

    def upload(self, name: str, expected_bytes: int) -> Upload:
        """Begin to write an object of about `expected_bytes`, of which a few per cent more are no problem.

        Raises:
            ObjectExists: The name is taken.
        """
        ...

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the object's bytes in order, in pieces of at most `READ_SIZE`; short of the last byte it raises."""
        ...

    def put_small(self, name: str, data: bytes, *, locked: bool = True) -> StoredObject:
        """Write a small object in one go.

        Args:
            name: Under which name.
            data: All of it.
            locked: Whether it gets the lock that the settings ask for. False is for what is no part of a backup and
                can be made again, so that it can be cleared away.

        Raises:
            ObjectExists: The name is taken.
        """
        ...

    def get_small(self, name: str) -> bytes:
        """Return a small object."""
        ...

    def list(self, prefix: str = "") -> Iterator[Listing]:
        """Yield what is in the store under names that begin with `prefix`, in the order of their names."""
        ...

    def find(self, name: str) -> StoredObject | None:
        """Return what is stored under the name, or None."""
        ...

    def exists(self, name: str) -> bool:
        """Tell whether the name is taken."""
        ...

    def delete(self, stored: StoredObject) -> None:
        """Remove this very object; what is gone already is no error.

        Raises:
            StoreError: Something else is under the name by now, or it is locked; it was left.
        """
        ...

    def delete_all(self, objects: Sequence[StoredObject]) -> tuple[Refusal, ...]:
        """Remove these objects, in as few requests as the store allows; what is gone already is no error.

        One with a version id loses that version for good. One without, in a store with versions, becomes an old
        version. A locked object is refused, never hidden. The order in which they go is not told: what has to go
        first goes in a call of its own.

        Returns:
            What was left, and why; empty where all are gone.

        Raises:
            StoreError: The store fails as a whole; some may be gone.
        """
        ...

    def lock_of(self, name: str) -> Lock | None:
        """Return what keeps the object of this name from being deleted; None if nothing does, or it is not there.

        Raises:
            StoreError: The store would not tell.
        """
        ...

    def old_versions(self, prefix: str = "") -> Iterator[OldVersion]:
        """Yield the noncurrent versions under names that begin with `prefix`, in the order of the names.

        A delete marker that hides something is not among them, for without it that would be back; one under whose
        name nothing else is left is. A store without versions has none.
        """
        ...

    def delete_version(self, version: OldVersion) -> None:
        """Remove an old version for good; one that is gone already is no error.

        Raises:
            StoreError: It is locked, or the store has no versions; it was left.
        """
        ...

    def settings(self) -> BucketSettings | None:
        """Return how the bucket is set up, as far as its server tells; None for a store that is no bucket."""
        ...

    def free_bytes(self) -> int | None:
        """Return the room that is left, in bytes; None where the store knows no limit."""
        ...

    def leftovers(self) -> tuple[Leftover, ...]:
        """Return what killed runs left unfinished here."""
        ...

    def abort_leftover(self, leftover: Leftover) -> None:
        """Remove a leftover; one that is gone already is no error."""
        ...


def checked_name(name: str, what: str = "name") -> str:
    """Return a name, or a prefix of names, that stays inside the store.

    Raises:
        StoreError: It is empty, absolute, climbs out with `..`, or holds control characters or backslashes.
    """
    parts = name.split("/")
    if _NAME.fullmatch(name) and not any(part in ("", ".", "..") for part in parts):
        return name
    raise StoreError(
        f"{name!r} cannot be the {what} of something in a store",
        expected="a relative name without empty, '.' or '..' parts, control characters or backslashes",
        found=repr(name),
        kept="nothing was sent",
        hint="choose another name, as in: app_2026-01-31_02-00-00.zip",
    )


def checked_customer(customer: str) -> str:
    """Return the customer as it can stand in a path.

    Raises:
        ConfigurationError: It cannot.
    """
    try:
        return checked_name(customer, "customer") if customer else ""
    except StoreError as error:
        raise ConfigurationError(
            f"the customer {customer!r} cannot be a folder of the store",
            expected=error.expected,
            found=error.found,
            hint="set `customer: acme` in the inventory, or: export CI_PROJECT_NAME=acme",
        ) from error


def name_taken(name: str, location: str) -> ObjectExists:
    """Return the error of every store whose name is taken."""
    return ObjectExists(
        f"{name} is in the store already, and nothing is ever overwritten",
        expected=f"no {location}",
        found="an object of that name",
        kept="what was there is as it was; what was sent for it was removed",
        hint="run it again: a new name carries a new time",
    )
