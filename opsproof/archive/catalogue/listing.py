"""The backups of a store: listed, and the verified ones described.

A sidecar beside a backup means that it was verified; a bundle without one is an attempt that failed, or is still
going on, and is never taken for a backup.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from opsproof.archive.catalogue.verdict import failed_backups
from opsproof.archive.manifest import Sidecar, read_sidecar
from opsproof.archive.names import ENDINGS, sidecar_name, stem_of
from opsproof.errors import ArchiveError, StoreError
from opsproof.system.store import Listing, Store

READ_AT_ONCE = 8


@dataclass(frozen=True)
class Entry:
    """A backup of the store.

    `sidecar` is None where it was never verified, or its sidecar cannot be read; `problem` is why it does not count.
    """

    id: str
    name: str
    bytes: int
    modified: datetime | None
    sidecar: Sidecar | None
    problem: str = ""

    @property
    def is_verified(self) -> bool:
        """Tell whether it counts as a backup."""
        return self.sidecar is not None and not self.problem

    @property
    def taken(self) -> datetime | None:
        """When its snapshot was taken; of an unverified one, when its object was written."""
        return self.sidecar.manifest.taken if self.sidecar else self.modified


def list_backups(store: Store, newest: int = 100) -> tuple[list[Entry], int]:
    """Return the newest backups of a store, with the sidecars of the verified ones, and how many older ones there are.

    Args:
        store: Where to look.
        newest: How many to describe: each costs a small read.

    Raises:
        StoreError: The store cannot be listed.
    """
    listed = {one.name: one for one in store.list()}
    failed = failed_backups(listed)
    backups = [one for one in listed.values() if one.name.endswith(ENDINGS)]
    backups.sort(key=lambda one: (one.modified is not None, one.modified, one.name), reverse=True)

    def describe(one: Listing) -> Entry:
        backup = stem_of(one.name)
        sidecar, problem = _describe(store, one, sidecar_name(backup) in listed)
        if sidecar is not None and backup in failed:
            problem = f"found damaged {failed[backup]:%Y-%m-%d %H:%M:%S} UTC"
        return Entry(backup, one.name, one.bytes, one.modified, sidecar, problem)

    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        entries = list(pool.map(describe, backups[:newest]))
    entries.sort(key=lambda entry: (entry.taken is not None, entry.taken), reverse=True)
    return entries, len(backups) - len(entries)


def _describe(store: Store, listed: Listing, has_sidecar: bool) -> tuple[Sidecar | None, str]:
    if not has_sidecar:
        return None, "no manifest: never verified"
    name = sidecar_name(stem_of(listed.name))
    try:
        sidecar = read_sidecar(store.get_small(name), name)
    except (ArchiveError, StoreError) as error:
        return None, error.summary
    if sidecar.bytes != listed.bytes:
        return None, f"{listed.bytes:,} bytes, but its manifest says {sidecar.bytes:,}"
    return sidecar, ""
