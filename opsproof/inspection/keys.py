"""Whether the private key at hand opens the latest backup: looked at before it is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Protocol

from opsproof.errors import ArchiveError, ProofError
from opsproof.inspection.databases.looking import Unanswered
from opsproof.system.store import Store

UNTOUCHED = "everything: a check only looks"


class Stored(Protocol):
    """The latest backup; `archive.sealed.find_latest` finds it. `recipients` are empty where it is not encrypted."""

    @property
    def name(self) -> str:
        """Its name in the store."""
        ...

    @property
    def location(self) -> str:
        """Where it is, as a person sees it."""
        ...

    @property
    def recipients(self) -> tuple[str, ...]:
        """The public keys that it is encrypted to, as its manifest says."""
        ...


class Opener(Protocol):
    """Private keys; `archive.sealed.Opener` has them."""

    @property
    def recipients(self) -> tuple[str, ...]:
        """The public keys that belong to them."""
        ...

    def open_beginning(self, chunks: Iterable[bytes], location: str, recipients: Sequence[str]) -> bytes:
        """Return the first decrypted bytes; an `ArchiveError` where no key opens it."""
        ...


def check_key_opens_latest(latest: Stored | None, store: Store, opener: Opener, wanted: Sequence[str]) -> str:
    """Make sure that a key that is here opens the latest backup: only the beginning of it is read.

    Args:
        latest: The latest backup; None where there is none.
        store: Where it is.
        opener: The keys.
        wanted: The recipients that the inventory names.

    Returns:
        The public key whose private one is here; empty where nothing is to be encrypted and the latest is not.

    Raises:
        ProofError: There is no backup, it is not encrypted to those whom the inventory names, or no key opens it.
        StoreError: It cannot be read.
        Unanswered: No key is here, as on a machine that only takes backups.
    """
    if latest is None:
        if not wanted:
            return ""
        raise ProofError(
            "There is no backup to try the key on",
            expected=f"a verified backup in {store.location}",
            found="none",
            kept=UNTOUCHED,
            hint="pytest actions/test_backup.py --env=ENV",
        )
    if set(latest.recipients) != set(wanted):
        raise ProofError(
            "The latest backup is not encrypted as the inventory wants",
            expected=f"{latest.location}, encrypted to {', '.join(wanted) or 'nobody'}",
            found=f"encrypted to {', '.join(latest.recipients)}" if latest.recipients else "not encrypted",
            kept=UNTOUCHED,
            hint="pytest actions/test_backup.py --env=ENV   takes one; what is stored is not encrypted anew",
        )
    if not wanted:
        return ""
    if not opener.recipients:
        raise Unanswered(
            f"no private key is here to try on {latest.location}: run this where restores are run, with"
            " OPSPROOF_AGE_IDENTITY or encryption: {identity_file: /path/to/key.txt}"
        )
    try:
        with closing(_Reading(store, latest.name)) as reading:
            opened = opener.open_beginning(reading.chunks, latest.location, latest.recipients)
    except ArchiveError as error:
        raise ProofError(
            "The key that is here does not open the latest backup",
            expected=error.expected,
            found=f"{error.summary}\n{error.found}",
            kept=UNTOUCHED,
            hint=error.hint,
        ) from error
    if not opened:
        raise ProofError(
            "The latest backup opens, and is empty",
            expected=f"the first bytes of {latest.location}",
            found="nothing",
            kept=UNTOUCHED,
            hint="pytest actions/test_backup.py --env=ENV",
        )
    return next(one for one in latest.recipients if one in opener.recipients)


class _Reading:
    """An object that is read as far as it is wanted."""

    def __init__(self, store: Store, name: str) -> None:
        self.chunks = store.read(name)

    def close(self) -> None:
        close = getattr(self.chunks, "close", None)
        if close is not None:
            close()
