"""What runs that were killed or are long over have left: unfinished uploads, folders of restores, logs."""

from __future__ import annotations

import fcntl
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opsproof.archive import manifest as records
from opsproof.archive.catalogue.holdings import backup_of
from opsproof.archive.names import ENDINGS, stem_of
from opsproof.procedures.restore.workspace import LOCK, own_folders
from opsproof.system.store import PROBE, Leftover, Store
from opsproof.target import Target

# {action}_{environment}_{stamp}, as runs name their logs and journals; the second of one second has a number.
LOG = r"[a-z]+_{environment}_(?P<stamp>\d{{4}}-\d\d-\d\d_\d\d-\d\d-\d\d)(_\d+)?\.(log|jsonl)"


def find_uploads(target: Target, store: Store, now: datetime) -> tuple[Leftover, ...]:
    """Return the unfinished uploads of a target's backups that are old enough to be taken for abandoned.

    Raises:
        StoreError: They cannot be listed.
    """
    span = target.policies.retention.uploads
    return tuple(
        one for one in store.leftovers() if now - one.started > span and _is_own(target, one.name)
    )  # fmt: skip


def find_folders() -> tuple[Path, ...]:
    """Return the folders of restores on this machine that nobody is at work in."""
    found = []
    for folder in own_folders():
        with suppress(OSError):
            if (folder / LOCK).exists():
                with (folder / LOCK).open("rb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            elif any(folder.iterdir()):
                continue
            found.append(folder)
    return tuple(found)


def find_logs(folder: Path, environment: str, span: timedelta, now: datetime) -> tuple[Path, ...]:
    """Return the logs and journals of an environment's runs that are older than a span, by name and by file time.

    Args:
        folder: Where runs of this machine write them.
        environment: Whose.
        span: How long they are kept.
        now: The present time.
    """
    shape = re.compile(LOG.format(environment=re.escape(environment)))
    found = []
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            named = shape.fullmatch(path.name)
            if named is None or path.is_symlink() or not path.is_file():
                continue
            written = datetime.fromtimestamp(path.stat().st_mtime, UTC)
            with suppress(ValueError):  # a 13th month
                begun = datetime.strptime(named["stamp"], records.STAMP).replace(tzinfo=UTC)
                if now - max(begun, written) > span:
                    found.append(path)
    return tuple(found)


def _is_own(target: Target, name: str) -> bool:
    if name.startswith(PROBE):
        return True
    backup = stem_of(backup_of(name))
    return any(records.is_backup_of(backup + ending, target.database.name, target.environment) for ending in ENDINGS)
