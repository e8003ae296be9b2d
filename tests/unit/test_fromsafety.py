"""The way back is a backup as any other: where signed ones are wanted, nothing else is restored from."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from opsproof.archive.names import sidecar_name
from opsproof.archive.sealing.signature import load_signer, signature_name
from opsproof.errors import ArchiveError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.policies import Policies, Sealing
from opsproof.procedures.restore.fromsafety import build_from_safety_backup, restore_safety_backup
from opsproof.system.store.directory import DirectoryStore
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, Target
from tests.lab.sealing import new_signing_key
from tests.lab.stocks import put_backup

TAKEN = datetime(2026, 11, 18, 2, tzinfo=UTC)


@pytest.mark.parametrize("forgery", ["unsigned", "changed"])
def test_a_safety_backup_that_somebody_has_exchanged_is_refused(tmp_path: Path, forgery: str) -> None:
    key, folder = new_signing_key(tmp_path), tmp_path / "backups"
    sealing = Sealing(signing_key_file=str(key.private), verify_key_file=str(key.public))
    target = Target(
        "shop", "prod", DatabaseAddress("shop"), DirectoryStoreSettings(folder), "", policies=Policies(sealing=sealing)
    )
    store = DirectoryStore(folder)
    safety = put_backup(store, TAKEN, kind="safety")
    if forgery == "changed":
        signer = load_signer(sealing, {})
        assert signer is not None
        store.put_small(signature_name(safety), signer.sign((folder / sidecar_name(safety)).read_bytes() + b" "))
    intent = Intent("restore", "run", "prod", "shop", "shop", "side", "", "", safety, "in place", (), "", "")
    with pytest.raises(ArchiveError, match="is not authentic"):
        restore_safety_backup(target, store, Journal(), intent)
    with (
        pytest.raises(ArchiveError, match="is not authentic"),
        build_from_safety_backup(target, store, Journal(), intent),
    ):
        pass
