"""What runs that were killed have left, and what of it can be cleared away.

Call it only where the target's lock is held: then no other run is at work on the same database of the same server.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from opsproof.archive import manifest as records
from opsproof.archive.names import sidecar_name, stem_of
from opsproof.errors import DatabaseError
from opsproof.journal import Journal
from opsproof.system.files.filestore import Filestore
from opsproof.system.postgres.scratch import drop_abandoned
from opsproof.system.store import PROBE, Leftover, Store
from opsproof.target import Target

# An unfinished upload under one of our names may be that of a run on another machine, for a database of the same name.
ABANDONED_AFTER = timedelta(days=1)


def clear_leftovers(target: Target, filestore: Filestore | None, store: Store) -> list[str]:
    """Remove a frozen filestore and unfinished uploads; return what that was."""
    cleared = []
    if filestore is not None and filestore.remove_leftover():
        cleared.append(f"the frozen filestore {filestore.frozen}")
    for leftover in store.leftovers():
        if _is_abandoned(leftover, target):
            store.abort_leftover(leftover)
            cleared.append(f"the unfinished upload {leftover.location}")
    return cleared


def drop_looks(target: Target, journal: Journal) -> tuple[str, ...]:
    """Drop the scratch databases that looks of killed runs have left; return which. None of them is in anybody's way.

    What cannot be dropped, as another role has made it, is only told.
    """
    try:
        return drop_abandoned(target.database)
    except DatabaseError as error:
        journal.warn(f"What an earlier look has left stays: {error.summary}: {error.found}")
        return ()


def find_unverified(target: Target, store: Store) -> list[str]:
    """Return the bundles of a target that no manifest stands beside: nobody can tell what they are worth."""
    names = {one.name for one in store.list()}
    return [name for name in sorted(names) if _is_backup_of(target, name) and sidecar_name(stem_of(name)) not in names]


def _is_abandoned(leftover: Leftover, target: Target) -> bool:
    is_old = datetime.now(UTC) - leftover.started > ABANDONED_AFTER
    is_ours = _is_backup_of(target, leftover.name) or leftover.name.startswith(PROBE)
    return is_ours and (is_old or not leftover.in_doubt)


def _is_backup_of(target: Target, name: str) -> bool:
    return records.is_backup_of(name, target.database.name, target.environment)
