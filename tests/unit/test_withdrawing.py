"""What a backup that is not brought to its end takes back: its own, and nothing that another one has put there."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from opsproof.archive.names import sidecar_name
from opsproof.errors import ObjectExists
from opsproof.journal import Journal
from opsproof.procedures.backup.procedure import Backup
from opsproof.system.store.directory import DirectoryStore
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, Target
from tests.lab.manifests import manifest_of
from tests.lab.stocks import put_backup

TAKEN = datetime(2026, 11, 18, 2, tzinfo=UTC)


def test_the_manifest_of_another_target_of_the_same_second_stays(tmp_path: Path) -> None:
    """Two environments may share a folder; where one encrypts, two bundles have one manifest's name."""
    store = DirectoryStore(tmp_path)
    other = put_backup(store, TAKEN, environment="staging")
    before = (tmp_path / sidecar_name(other)).read_bytes()
    target = Target("shop", "prod", DatabaseAddress("shop"), DirectoryStoreSettings(tmp_path), "")
    backup: Any = Backup(target, store, Journal())
    backup.manifest = manifest_of(id=other, taken=TAKEN)
    stored = store.put_small(f"{other}.zip.age", b"sealed")
    backup.captured = SimpleNamespace(counted={})
    backup._sent = SimpleNamespace(recipients=("age1",), plain=(1, ""), commit=lambda: stored)
    backup.complete_upload()
    with pytest.raises(ObjectExists):
        backup.publish(())
    backup.close()
    assert (tmp_path / sidecar_name(other)).read_bytes() == before
    assert not (tmp_path / stored.name).exists()
