"""The safety backup: taken of what is live, and proven, before anything of that is replaced."""

from __future__ import annotations

from collections.abc import Callable

from opsproof.archive.manifest import Kind
from opsproof.journal import Journal
from opsproof.procedures.backup.procedure import Backup, Outcome
from opsproof.system.store import Store
from opsproof.target import Target


def take_safety_backup(target: Target, store: Store, journal: Journal, kind: Kind = "safety") -> Outcome:
    """Take a backup of what is live, with all of its proof, for a procedure that holds the target's lock.

    Args:
        target: Whose.
        store: Where to.
        journal: What happened.
        kind: Why it is taken.

    Raises:
        OpsproofError: A step failed; nothing of it is left.
    """
    backup = Backup(target, store, journal, kind=kind, locked=True)
    steps: tuple[Callable[[], object], ...] = (
        backup.find_database,
        backup.find_clients,
        backup.find_filestore,
        backup.check_store,
        backup.check_room,
        backup.take_lock,
        backup.capture,
        backup.compare_dump,
        backup.write_bundle,
        backup.check_attachments,
        backup.complete_upload,
        backup.read_back,
        backup.clear_away,
    )
    try:
        for step in steps:
            step()
        return backup.publish(tuple(step.__name__ for step in steps))
    finally:
        backup.close()
