"""What is known of a target's newest backups without reading any: times, sizes, verdicts."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime

from opsproof.archive.catalogue.absence import Place, telling_what_is_needed
from opsproof.archive.catalogue.listing import READ_AT_ONCE, Entry
from opsproof.archive.catalogue.newest import (
    NO_MANIFEST,
    batches_of,
    describe_failure,
    describing,
    latest_moment,
    newest_first,
    taken_of,
)
from opsproof.archive.catalogue.ownership import owner_of
from opsproof.archive.catalogue.verdict import Verdict, latest_verdicts
from opsproof.archive.manifest import Sidecar, is_backup_of
from opsproof.archive.names import ENDINGS, sidecar_name, stem_of
from opsproof.system.store import Listing, Store
from opsproof.target import Target


@dataclass(frozen=True)
class Known:
    """A verified backup. Sizes are bytes.

    Attributes:
        id: Its name without the ending.
        location: Where it is.
        taken: The snapshot's time.
        verified: When it was last read to its end and found whole, by the backup itself or by a later verification.
        bytes: What is stored.
        database_bytes: What the database took on the server's disk.
    """

    id: str
    location: str
    taken: datetime
    verified: datetime
    bytes: int
    database_bytes: int


@dataclass(frozen=True)
class Waiting:
    """A backup by its name that does not count, when it was written, and why it does not."""

    id: str
    location: str
    written: datetime
    problem: str


@dataclass(frozen=True)
class Stock:
    """What is in a store of a target's own.

    Attributes:
        location: Of the store.
        newest: The newest verified backups that were not taken for safety, the newest first.
        waiting: What does not count, the oldest first; those that were found damaged are not among them.
        damaged: What was found damaged, the newest first.
    """

    location: str
    newest: tuple[Known, ...]
    waiting: tuple[Waiting, ...]
    damaged: tuple[Waiting, ...]


def take_stock(target: Target, store: Store, count: int = 2) -> Stock:
    """Look through a store; what it costs is a listing, and the sidecars of the newest backups.

    Args:
        target: Whose.
        store: Its store.
        count: How many of the newest are described.

    Raises:
        StoreError: The store cannot be listed, or a sidecar that is there cannot be read.
    """
    place = Place(store, target, owner_of(target))
    with telling_what_is_needed(place):
        listed = {one.name: one for one in store.list()}
        verdicts = latest_verdicts(listed)
        newest = _newest(place, listed, verdicts, count)
    waiting, damaged = [], []
    for one in listed.values():
        if not one.name.endswith(ENDINGS) or not is_backup_of(one.name, target.database.name, target.environment):
            continue
        stem = stem_of(one.name)
        unread = Entry(stem, one.name, one.bytes, one.modified, None)
        location, written = store.location + one.name, taken_of(unread)
        when, verdict = verdicts.get(stem, (None, "skipped"))
        if when is not None and verdict == "failed":
            damaged.append(Waiting(stem, location, written, describe_failure(when)))
        elif sidecar_name(stem) not in listed:
            waiting.append(Waiting(stem, location, written, NO_MANIFEST))
    return Stock(
        store.location,
        tuple(_known(place, one, one.sidecar, verdicts) for one in newest if one.sidecar is not None),
        tuple(sorted(waiting, key=lambda one: one.written)),
        tuple(sorted(damaged, key=lambda one: one.written, reverse=True)),
    )


def _newest(
    place: Place, listed: dict[str, Listing], verdicts: dict[str, tuple[datetime, Verdict]], count: int
) -> list[Entry]:
    failed = {stem: when for stem, (when, verdict) in verdicts.items() if verdict == "failed"}
    found: list[Entry] = []

    describe = describing(place, listed, failed)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for batch in batches_of(newest_first(listed.values())):
            if len(found) >= count and taken_of(found[count - 1]) > latest_moment(batch[0]):
                break
            found += [
                entry
                for entry in pool.map(describe, batch)
                if entry.sidecar is not None
                and place.owner.owns(entry.sidecar.manifest)
                and entry.sidecar.manifest.kind != "safety"
            ]
            found.sort(key=lambda one: (taken_of(one), one.id), reverse=True)
    return found[:count]


def _known(place: Place, entry: Entry, sidecar: Sidecar, verdicts: dict[str, tuple[datetime, Verdict]]) -> Known:
    when, verdict = verdicts.get(entry.id, (None, "skipped"))
    verified = sidecar.verified if sidecar.verified.tzinfo else sidecar.verified.replace(tzinfo=UTC)
    return Known(
        id=entry.id,
        location=place.store.location + entry.name,
        taken=taken_of(entry),
        verified=max(verified, when) if when is not None and verdict == "passed" else verified,
        bytes=entry.bytes,
        database_bytes=sidecar.manifest.database.bytes,
    )
