"""Reading a stored backup to its end, and holding it against what was sent."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass, field

import xxhash

from opsproof.archive.sealing.seal import unsealing
from opsproof.archive.sealing.sealpolicy import SealPlan
from opsproof.archive.writing.flow import Flow
from opsproof.errors import ArchiveError, ProofError, StoreError
from opsproof.journal import Journal, Progress
from opsproof.system.store import Store, StoredObject


@dataclass
class _Count:
    """Bytes, counted and hashed."""

    size: int = 0
    digest: xxhash.xxh3_128 = field(default_factory=xxhash.xxh3_128)

    def take(self, data: bytes) -> None:
        self.size += len(data)
        self.digest.update(data)

    @property
    def found(self) -> tuple[int, str]:
        return self.size, self.digest.hexdigest()


def read_back(
    store: Store, stored: StoredObject, journal: Journal, sent: str, plain: tuple[int, str], seal: SealPlan
) -> tuple[int, str]:
    """Read what is stored. Return its bytes and XXH3-128, which are those that were sent.

    Where a private key is here, it is decrypted meanwhile, to what was composed.

    Args:
        store: Where it is.
        stored: What is read.
        journal: Told how far it has come.
        sent: Hex XXH3-128 of what was sent.
        plain: Bytes and hex XXH3-128 of what was composed, before it was encrypted.
        seal: How it was encrypted.

    Raises:
        ProofError: They are not.
        ArchiveError: It does not decrypt.
        StoreError: It cannot be read.
    """
    kept = f"{stored.location} is removed again; earlier backups are as they were"
    as_stored, opened, started = _Count(), _Count(), time.monotonic()
    broken: ArchiveError | None = None
    with ExitStack() as stack:
        flow = None
        if seal.identities is not None:
            flow = unsealing(seal.identities, opened.take, stored.location, seal.recipients)
            stack.callback(flow.abandon)
        try:
            for chunk in store.read(stored.name):
                as_stored.take(chunk)
                if flow is not None and broken is None:
                    broken = _pass_on(flow, chunk)
                seconds = time.monotonic() - started
                journal.report(Progress("read back", stored.name, as_stored.size, stored.bytes, seconds))
        except StoreError as error:
            error.kept = kept
            raise
        if flow is not None and broken is None:
            broken = _pass_on(flow, None)
    if as_stored.found != (stored.bytes, sent):
        raise _differs(
            "The stored copy is not what was sent",
            (stored.bytes, sent),
            as_stored.found,
            kept,
            "run it again; if it differs twice, the store or the way to it corrupts data",
        )
    if broken is not None:
        broken.kept = kept
        raise broken
    if flow is not None and opened.found != plain:
        summary = "What is stored decrypts to something else than was backed up"
        raise _differs(summary, plain, opened.found, kept, "run it again; if it differs twice, test this machine")
    return as_stored.found


def _pass_on(flow: Flow, chunk: bytes | None) -> ArchiveError | None:
    """Pass a piece on, or end the stream; return what is wrong with it, which the bytes as stored explain better."""
    try:
        if chunk is None:
            flow.finish()
        else:
            flow.write(chunk)
    except ArchiveError as error:
        return error
    return None


def _differs(summary: str, expected: tuple[int, str], found: tuple[int, str], kept: str, hint: str) -> ProofError:
    return ProofError(
        summary,
        expected=f"{expected[0]:,} bytes, XXH3-128 {expected[1]}",
        found=f"{found[0]:,} bytes, XXH3-128 {found[1]}",
        kept=kept,
        hint=hint,
    )
