"""Stores that are full of backups, as small as they can be: a manifest that is whole, and a bundle of a few bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

from opsproof.archive import manifest as records
from opsproof.archive.names import sidecar_name
from opsproof.system.store import Store
from tests.lab.manifests import database_record, manifest_of, sidecar_of


def put_backup(
    store: Store,
    taken: datetime,
    *,
    database: str = "shop",
    environment: str = "prod",
    target: str = "shop",
    customer: str = "",
    has_sidecar: bool = True,
    **changes: Any,
) -> str:
    """Put a backup into a store; return its id.

    Args:
        store: Where to.
        taken: When it says that it was taken.
        database: Of which.
        environment: Whose.
        target: Whose.
        customer: Whose.
        has_sidecar: Whether it was verified.
        changes: More of its manifest.
    """
    backup = str(changes.pop("id", records.backup_id(database, taken)))
    manifest = manifest_of(
        id=backup,
        environment=environment,
        target=target,
        customer=customer,
        taken=taken,
        database=database_record(name=database),
        **changes,
    )
    data = f"the backup {backup}".encode()
    sidecar = sidecar_of(manifest, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
    store.put_small(sidecar.name, data)
    if has_sidecar:
        store.put_small(sidecar_name(backup), records.to_json(sidecar))
    return backup


def put_backups(store: Store, moments: Iterable[datetime], put: Callable[..., str] = put_backup, **how: Any) -> None:
    """Put many backups into a store, several at once."""
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda taken: put(store, taken, **how), moments):
            pass
