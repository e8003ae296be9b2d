"""What a verification reads, and on what it says its verdict."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsproof.archive.catalogue.candidates import Candidate, find_candidates
from opsproof.archive.names import sidecar_name
from opsproof.errors import StoreError
from opsproof.system.store.directory import DirectoryStore
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, Target
from tests.lab.stocks import put_backup

TAKEN = datetime(2026, 11, 18, 2, tzinfo=UTC)


def found(folder: Path, wanted: str) -> list[Candidate]:
    target = Target("shop", "prod", DatabaseAddress("shop"), DirectoryStoreSettings(folder), "")
    return list(find_candidates(target, DirectoryStore(folder), wanted, None))


@pytest.fixture
def decrypted(tmp_path: Path) -> str:
    """An encrypted backup, decrypted by hand beside itself, as the manifest's `open_with` says."""
    backup = put_backup(DirectoryStore(tmp_path), TAKEN)
    path, sidecar = tmp_path / f"{backup}.zip", tmp_path / sidecar_name(backup)
    (tmp_path / f"{backup}.zip.age").write_bytes(path.read_bytes())
    sidecar.write_bytes(
        sidecar.read_bytes().replace(b'"name": "%s.zip"' % backup.encode(), b'"name": "%s.zip.age"' % backup.encode())
    )
    path.write_bytes(b"what it decrypts to")
    return backup


@pytest.mark.parametrize("wanted", ["all", "latest", "ID"])
def test_what_was_decrypted_beside_a_backup_is_not_taken_for_it(tmp_path: Path, decrypted: str, wanted: str) -> None:
    (one,) = found(tmp_path, decrypted if wanted == "ID" else wanted)
    assert one.choice is not None
    assert one.choice.name == f"{decrypted}.zip.age"


def test_what_was_decrypted_beside_a_backup_gets_no_verdict(tmp_path: Path, decrypted: str) -> None:
    with pytest.raises(StoreError, match="was never verified"):
        found(tmp_path, f"{decrypted}.zip")


def test_a_backup_that_was_cut_is_told_also_beside_what_it_was_decrypted_to(tmp_path: Path, decrypted: str) -> None:
    older = put_backup(DirectoryStore(tmp_path), TAKEN - timedelta(days=1))
    (tmp_path / f"{decrypted}.zip.age").write_bytes(b"cut")
    damaged, whole = found(tmp_path, "latest")
    assert (damaged.id, damaged.location.endswith(".zip.age"), whole.id) == (decrypted, True, older)
    assert damaged.damage is not None


def test_a_manifest_of_something_that_is_gone_is_told(tmp_path: Path, decrypted: str) -> None:
    (tmp_path / f"{decrypted}.zip.age").unlink()
    (one,) = found(tmp_path, "all")
    assert one.damage is not None
    assert one.is_stored
