"""Targets and stored backups for tests that choose among them."""

from __future__ import annotations

import hashlib
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.manifest import Sidecar, backup_id, to_json
from opsproof.archive.names import sidecar_name
from opsproof.system.store import Store, open_store
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, StoreSettings, Target
from tests.lab.manifests import TAKEN, database_record, manifest_of, sidecar_of

CUSTOMER = "acme-corp"


def target_of(store: StoreSettings | Path, **changes: Any) -> Target:
    """Return the target that `manifest_of` describes a backup of; a path is a folder for its backups."""
    values: dict[str, Any] = {
        "name": "erp",
        "environment": "prod",
        "database": DatabaseAddress("acme"),
        "store": DirectoryStoreSettings(store) if isinstance(store, Path) else store,
        "customer": CUSTOMER,
    }
    return Target(**{**values, **changes})


def put_object(store: Store, name: str, data: bytes) -> None:
    """Store bytes under a name."""
    with store.upload(name, len(data)) as upload:
        upload.write(data)
        upload.commit()


def sidecar_for(data: bytes, days: float = 0, database: str = "acme", ending: str = ".zip", **changes: Any) -> Sidecar:
    """Return the sidecar of a backup with this content, taken some days after `TAKEN`."""
    taken = TAKEN + timedelta(days=days)
    values = {"id": backup_id(database, taken), "taken": taken, "database": database_record(name=database)} | changes
    manifest = manifest_of(**values)
    return sidecar_of(manifest, name=manifest.id + ending, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())


def put_backup(
    store: Store, days: float = 0, *, verified: bool = True, data: bytes = b"content", **changes: Any
) -> str:
    """Store a backup and, if it is verified, its sidecar; return its id."""
    sidecar = sidecar_for(data, days, **changes)
    put_object(store, sidecar.name, data)
    if verified:
        store.put_small(sidecar_name(sidecar.id), to_json(sidecar))
    return sidecar.id


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder for backups."""
    return tmp_path / "backups"


@pytest.fixture
def target(folder: Path) -> Target:
    """The target whose backups go there."""
    return target_of(folder)


@pytest.fixture
def store(target: Target) -> Store:
    """Its store."""
    return open_store(target.store, target.customer)


def written(store: Store, name: str, moment: datetime) -> None:
    """Let a file look as if it was written then."""
    os.utime(Path(store.location, name), (moment.timestamp(), moment.timestamp()))


def latest(target: Target, store: Store, at: datetime | None = None, source: Target | None = None) -> Choice:
    """Choose the latest."""
    return choose_backup(target, store, "latest", at, source)


def choose(target: Target, wanted: str = "latest", source: Target | None = None) -> Choice:
    """Choose what is wanted, out of the target's own store."""
    return choose_backup(target, open_store(target.store, target.customer), wanted, None, source)
