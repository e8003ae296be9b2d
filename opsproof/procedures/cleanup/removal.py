"""Removing backups from a store: the manifest first, so that what is half removed counts for nothing.

A few at a time: their locks are looked at and their manifests are read once more, then all their manifests go, then
what stands beside, then the backups themselves.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from opsproof.archive.catalogue.holdings import Holding, backup_of
from opsproof.archive.catalogue.index import say
from opsproof.archive.catalogue.listing import READ_AT_ONCE
from opsproof.archive.manifest import read_sidecar
from opsproof.archive.names import sidecar_name
from opsproof.errors import ArchiveError, StoreError
from opsproof.journal import Journal
from opsproof.system.store import Listing, OldVersion, Store, StoredObject

AT_ONCE = 50


@dataclass
class Removed:
    """What a removal came to.

    Attributes:
        backups: Ids of those that are gone.
        bytes: That they had, with what stood beside them.
        versions: Old versions that are gone.
        left: What stays since it is locked, or is not what it was, a line each.
        refused: What the store would not remove though nothing was in the way, a line each.
    """

    backups: list[str] = field(default_factory=list)
    bytes: int = 0
    versions: int = 0
    left: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def remove_backups(store: Store, holdings: Sequence[Holding], journal: Journal, *, check_locks: bool) -> Removed:
    """Remove backups; one that is locked, or is not what it was, stays and is told.

    Args:
        store: Where they are.
        holdings: What is to go, as it was found.
        journal: What happened.
        check_locks: Whether the store can lock objects: then each is asked for.

    Raises:
        StoreError: The store failed as a whole; some may be gone, each of them altogether or its manifest at least.
    """
    removed = Removed()
    for start in range(0, len(holdings), AT_ONCE):
        some = holdings[start : start + AT_ONCE]
        with ThreadPoolExecutor(READ_AT_ONCE) as pool:
            objections = list(pool.map(lambda one: _objection(store, one, check_locks), some))
        going = []
        for one, objection in zip(some, objections, strict=True):
            if objection:
                removed.left.append(f"{one.known.id}: {objection}")
            else:
                going.append(one)
        refused = delete_listed(store, [one.sidecar for one in going if one.sidecar], removed.refused)
        going = [one for one in going if one.sidecar is None or one.sidecar.name not in refused]
        # A verdict may be locked for longer than its backup; it goes by itself later.
        delete_listed(store, [each for one in going for each in one.beside], removed.left)
        refused = delete_listed(store, [one.bundle for one in going if one.bundle], removed.refused)
        for one in going:
            if one.bundle is None or one.bundle.name not in refused:
                removed.backups.append(one.known.id)
                removed.bytes += sum(each.bytes for each in one.objects)
                journal.record("backup removed", backup=one.known.id, taken=one.known.taken)
    for line in (*removed.left, *removed.refused):
        journal.warn(f"not removed: {line}")
    return removed


def find_old_versions(store: Store, backups: Collection[str], present: Collection[str]) -> Iterator[OldVersion]:
    """Yield the old versions of backups that are removed.

    Args:
        store: A bucket with versioning; anything else has none.
        backups: Ids of those that are removed.
        present: Names of what is in the store: of that no version is an old one of something removed.

    Raises:
        StoreError: They cannot be listed.
    """
    if not backups:
        return
    for version in store.old_versions():
        if "/" not in version.name and backup_of(version.name) in backups and version.name not in present:
            yield version


def remove_old_versions(store: Store, versions: Sequence[OldVersion], removed: Removed) -> int:
    """Remove old versions for good, and return how many; one that is locked stays and is told."""
    count = 0

    def remove(version: OldVersion) -> str:
        try:
            store.delete_version(version)
        except StoreError as error:
            return f"{version.name}, version {version.version_id}: {error.summary}"
        return ""

    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for objection in pool.map(remove, versions):
            if objection:
                removed.left.append(objection)
            else:
                count += 1
    removed.versions += count
    return count


def delete_listed(store: Store, listed: Sequence[Listing], told: list[str]) -> set[str]:
    """Delete what was listed, as it was listed; return the names of what was refused, and tell why.

    Args:
        store: Where it is.
        listed: What is to go.
        told: Gets a line for each that was refused.

    Raises:
        StoreError: The store failed as a whole.
    """
    # Without a version: a bucket that keeps versions keeps this one, until the policy has it removed.
    objects = [
        StoredObject(one.name, f"{store.location}{one.name}", one.bytes, "", one.modified, None, one.etag)
        for one in listed
    ]
    refusals = store.delete_all(objects) if objects else ()
    told += [f"{one.name}: {one.reason}" for one in refusals]
    return {one.name for one in refusals}


def lock_on(store: Store, holding: Holding) -> str:
    """Return what keeps a backup or its manifest from being removed, in words; empty if nothing does.

    Raises:
        StoreError: The store would not tell.
    """
    for one in (holding.bundle, holding.sidecar):
        lock = None if one is None else store.lock_of(one.name)
        if lock is not None:
            return str(lock)
    return ""


def _objection(store: Store, holding: Holding, check_locks: bool) -> str:
    """Return why a backup cannot be removed now though it was to be; empty if it can."""
    lock = lock_on(store, holding) if check_locks else ""
    if lock:
        return lock
    name = sidecar_name(holding.known.id)
    if holding.sidecar is None:
        return "a manifest is beside it by now" if store.exists(name) else ""
    try:
        said = say(read_sidecar(store.get_small(name), name))
    except ArchiveError as error:
        return error.summary
    except StoreError:
        if store.exists(name):
            raise
        return "its manifest is gone by now: another run is removing it, or somebody did"
    return "" if holding.line is not None and said == holding.line.said else "its manifest is another one by now"
