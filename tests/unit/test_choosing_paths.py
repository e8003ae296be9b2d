"""A backup that is named by its path or address is taken as it is, or refused with what it is instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.manifest import to_json
from opsproof.archive.names import sidecar_name
from opsproof.errors import ArchiveError, ConfigurationError
from opsproof.system.store import Store
from opsproof.target import Target
from tests.lab.targets import (
    folder,
    put_backup,
    sidecar_for,
    store,
    target,
)

__all__ = ["folder", "store", "target"]


def test_a_path_is_taken_as_it_is_with_the_sidecar_beside_it(target: Target, store: Store, tmp_path: Path) -> None:
    sidecar = sidecar_for(b"content")
    path = tmp_path / sidecar.name
    path.write_bytes(b"content")
    choice = choose_backup(target, store, str(path), None)
    assert (choice.path, choice.store, choice.name, choice.sidecar) == (path, None, "", None)
    assert (choice.id, choice.bytes, choice.location) == (sidecar.id, 7, str(path))
    assert "there is no manifest beside it" in choice.why
    (tmp_path / sidecar_name(sidecar.id)).write_bytes(to_json(sidecar))
    assert choose_backup(target, store, str(path), None).sidecar == sidecar


def test_a_path_s_sidecar_must_be_its_own(target: Target, store: Store, tmp_path: Path) -> None:
    sidecar = sidecar_for(b"content", environment="staging")
    path, beside = tmp_path / sidecar.name, tmp_path / sidecar_name(sidecar.id)
    path.write_bytes(b"content")
    beside.write_bytes(to_json(sidecar))
    with pytest.raises(ConfigurationError, match="is not a backup of prod/erp"):
        choose_backup(target, store, str(path), None)
    unpacked = path.with_suffix(".sql")
    unpacked.write_bytes(b"SELECT 1;")
    assert choose_backup(target, store, str(unpacked), None).sidecar is None
    path.write_bytes(b"conten")
    with pytest.raises(ArchiveError, match="is not what the manifest beside it describes"):
        choose_backup(target, store, str(path), None)
    beside.write_bytes(b"{}")
    with pytest.raises(ArchiveError, match="is not a backup's manifest"):
        choose_backup(target, store, str(path), None)


def test_a_folder_is_taken_as_it_is_but_not_one_of_backups(target: Target, store: Store, tmp_path: Path) -> None:
    dump = tmp_path / "odoo"
    (dump / "filestore").mkdir(parents=True)
    (dump / "manifest.json").write_bytes(b"{}")
    (dump / "filestore" / "file").write_bytes(b"12345")
    choice = choose_backup(target, store, f"{tmp_path}/odoo/", None)
    assert (choice.path, choice.id, choice.bytes, choice.sidecar) == (dump, "odoo", 7, None)
    name = put_backup(store)
    with pytest.raises(ConfigurationError, match="is a folder of backups") as caught:
        choose_backup(target, store, store.location, None)
    assert caught.value.hint == f"--backup={store.location}{name}.zip"


def test_a_file_of_this_folder_is_found_where_the_store_has_no_such_id(
    target: Target, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("copy.sql.gz").write_bytes(b"x")
    choice = choose_backup(target, store, "copy.sql.gz", None)
    assert (choice.path, choice.id) == (tmp_path / "copy.sql.gz", "copy")
    name = put_backup(store)
    Path(f"{name}.zip").write_bytes(b"another of that name")
    assert choose_backup(target, store, f"{name}.zip", None).location == f"{store.location}{name}.zip"


@pytest.mark.parametrize("wanted", ["", "/nowhere/x.zip", "./x.zip", "~nobody-here/x.zip", "/dev/null", "/a\0b"])
def test_what_cannot_be_a_backup_is_refused(target: Target, store: Store, wanted: str) -> None:
    with pytest.raises(ConfigurationError, match="is no backup"):
        choose_backup(target, store, wanted, None)


def test_a_bucket_needs_the_settings_of_an_s3_store(target: Target, store: Store) -> None:
    with pytest.raises(ConfigurationError, match="Nothing says how to reach the bucket other"):
        choose_backup(target, store, "s3://other/x.zip", None)


@pytest.mark.parametrize("address", ["s3://", "s3://bucket", "s3://bucket/", "s3://bucket/folder/", "s3:///key"])
def test_an_address_of_no_object_is_refused(target: Target, store: Store, address: str) -> None:
    with pytest.raises(ConfigurationError, match="names no object"):
        choose_backup(target, store, address, None)
