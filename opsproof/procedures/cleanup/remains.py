"""What a cleanup takes away beside backups: what runs that are over, and migrations, have left."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from opsproof.archive.catalogue.retention import show_span
from opsproof.procedures.cleanup.abandoned import find_folders, find_logs, find_uploads
from opsproof.procedures.cleanup.artifacts import Found, find_artifacts
from opsproof.procedures.cleanup.parked import Parked, find_parked
from opsproof.procedures.cleanup.removal import find_old_versions
from opsproof.system.store import Leftover, OldVersion, Store
from opsproof.target import Target


@dataclass(frozen=True)
class Remains:
    """What is to go beside the backups.

    Attributes:
        versions: Old versions of backups that are removed already.
        uploads: Unfinished ones.
        parked: Databases that were live before a restore or rollback; those whose time is not past stay.
        folders: Of killed restores, on this machine.
        logs: Old ones, on this machine.
        artifacts: What migrations have left in the database.
    """

    versions: tuple[OldVersion, ...]
    uploads: tuple[Leftover, ...]
    parked: tuple[Parked, ...]
    folders: tuple[Path, ...]
    logs: tuple[Path, ...]
    artifacts: Found

    def plan(self, target: Target) -> Iterator[str]:
        """Yield what would go, and what of it stays and why, a line each."""
        policy = target.policies.retention
        if self.versions:
            size = sum(one.bytes for one in self.versions)
            yield f"remove {len(self.versions):,} old versions of backups that are gone, {size:,} bytes"
        for upload in self.uploads:
            yield f"remove the unfinished upload {upload.location}, begun {upload.started:%Y-%m-%d %H:%M:%S} UTC"
        for parked in self.parked:
            if parked.is_past:
                yield f"drop {parked.description} ({parked.bytes:,} bytes): it cannot be undone any more"
            else:
                yield f"keep {parked.description}: not older than {show_span(policy.parked)}"
        for folder in self.folders:
            yield f"remove {folder}, left by a restore that was killed"
        if self.logs:
            span = show_span(policy.logs)
            yield f"remove {len(self.logs):,} logs and journals older than {span}, from {self.logs[0].parent}"
        for table in self.artifacts.tables:
            what = f"table {table.name} ({table.rows:,} rows, {table.bytes:,} bytes)"
            yield f"keep {what}: {table.stays}" if table.stays else f"drop {what}"
        for rows in self.artifacts.rows:
            statement = " ".join(rows.statement.split())
            yield f"delete rows of {', '.join(rows.tables)} (the server expects {rows.expected:,}) by: {statement}"


def find_remains(
    target: Target, store: Store, logs: Path, gone: Collection[str], present: Collection[str], now: datetime
) -> Remains:
    """Find what runs and migrations have left, as far as its time is past.

    Args:
        target: Whose.
        store: Where its backups are.
        logs: The folder of this machine's logs and journals.
        gone: Ids of the target's backups that were removed before.
        present: Names of what is in the store.
        now: The present time.

    Raises:
        OpsproofError: The store or the server does not answer, or the inventory's artifacts are none.
    """
    policy = target.policies.retention
    return Remains(
        versions=tuple(find_old_versions(store, gone, present)) if policy.noncurrent else (),
        uploads=find_uploads(target, store, now),
        parked=find_parked(target, now),
        folders=find_folders(),
        logs=find_logs(logs, target.environment, policy.logs, now),
        artifacts=find_artifacts(target),
    )
