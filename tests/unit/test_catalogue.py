"""The catalogue: a backup counts only where its sidecar can be read."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from opsproof.archive.catalogue.listing import list_backups
from opsproof.archive.manifest import backup_id, to_json
from opsproof.archive.names import sidecar_name
from opsproof.system.store import Store, open_store
from opsproof.target import DirectoryStoreSettings
from tests.lab.manifests import TAKEN, manifest_of, sidecar_of


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(DirectoryStoreSettings(tmp_path), "acme")


def put(store: Store, name: str, data: bytes = b"content") -> None:
    with store.upload(name, len(data)) as upload:
        upload.write(data)
        upload.commit()


def put_backup(store: Store, days: int, *, verified: bool = True) -> str:
    taken = TAKEN + timedelta(days=days)
    manifest = manifest_of(id=backup_id("acme", taken), taken=taken)
    put(store, f"{manifest.id}.zip")
    if verified:
        store.put_small(sidecar_name(manifest.id), to_json(sidecar_of(manifest, bytes=7)))
    return manifest.id


def test_an_empty_store_has_no_backups(store: Store) -> None:
    assert list_backups(store) == ([], 0)


def test_backups_are_listed_by_the_time_of_their_snapshot_the_newest_first(store: Store) -> None:
    middle, newest, oldest = put_backup(store, 1), put_backup(store, 2), put_backup(store, 0)
    entries, older = list_backups(store)
    assert [entry.id for entry in entries] == [newest, middle, oldest]
    assert older == 0
    assert all(entry.is_verified for entry in entries)
    assert entries[0].taken == TAKEN + timedelta(days=2)
    assert entries[0].bytes == len(b"content")


def test_a_bundle_without_a_sidecar_does_not_count(store: Store) -> None:
    name = put_backup(store, 0, verified=False)
    ((entry,), _) = list_backups(store)
    assert (entry.id, entry.is_verified, entry.problem) == (name, False, "no manifest: never verified")
    assert entry.taken == entry.modified


@pytest.mark.parametrize("data", [b"", b"{}", b"half a mani"])
def test_a_sidecar_that_cannot_be_read_does_not_count(store: Store, data: bytes) -> None:
    name = put_backup(store, 0, verified=False)
    store.put_small(sidecar_name(name), data)
    ((entry,), _) = list_backups(store)
    assert not entry.is_verified
    assert "is not a backup's manifest" in entry.problem


def test_a_sidecar_of_a_newer_format_does_not_count_and_says_why(store: Store) -> None:
    name = put_backup(store, 0, verified=False)
    store.put_small(sidecar_name(name), to_json(sidecar_of(manifest_of(id=name, format_version=99))))
    ((entry,), _) = list_backups(store)
    assert not entry.is_verified
    assert "newer opsproof" in entry.problem


def test_a_sidecar_without_its_bundle_is_no_backup(store: Store) -> None:
    store.put_small(sidecar_name("acme_2024-03-05_01-02-03"), to_json(sidecar_of()))
    assert list_backups(store) == ([], 0)


def test_other_peoples_objects_are_no_backups(store: Store) -> None:
    put(store, "notes.txt")
    put(store, "acme.tar.gz")
    assert list_backups(store) == ([], 0)


def test_plain_sql_is_a_backup_too(store: Store) -> None:
    name = "backup_prod_20240305_010203"
    put(store, f"{name}.sql")
    store.put_small(sidecar_name(name), to_json(sidecar_of(manifest_of(id=name), name=f"{name}.sql", bytes=7)))
    ((entry,), _) = list_backups(store)
    assert (entry.id, entry.name, entry.is_verified) == (name, f"{name}.sql", True)


def test_only_the_newest_are_described_and_the_rest_is_counted(store: Store) -> None:
    names = [put_backup(store, day) for day in range(5)]
    entries, older = list_backups(store, newest=2)
    assert len(entries) == 2
    assert older == 3
    assert {entry.id for entry in entries} <= set(names)


def test_a_bundle_of_another_size_than_its_manifest_says_is_not_verified(store: Store, tmp_path: Path) -> None:
    backup = put_backup(store, 0)
    next(tmp_path.rglob(f"{backup}.zip")).write_bytes(b"conten")
    (entry,), _ = list_backups(store)
    assert not entry.is_verified
    assert entry.problem == "6 bytes, but its manifest says 7"
