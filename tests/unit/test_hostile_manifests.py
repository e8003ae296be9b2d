"""Bundles whose manifest is none, or tells of another backup: each is refused with its own message."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opsproof.archive import manifest as records
from opsproof.archive.manifest import Manifest
from opsproof.archive.reading.backup import open_bundle
from opsproof.errors import ArchiveError
from tests.lab.bundles import FILE, Piece, compose, pieces, refuse, write_bundle
from tests.lab.manifests import STEM, manifest_of, sidecar_of


class TestManifest:
    def test_a_newer_format_is_told(self, tmp_path: Path) -> None:
        def newer(manifest: Manifest) -> bytes:
            return json.dumps({"format": "opsproof-backup", "format_version": 2, "opsproof_version": "9"}).encode()

        error = refuse(compose(tmp_path / "x.zip", pieces(FILE), manifest=newer), "written by a newer opsproof")
        assert (error.found, error.hint) == ("2, by opsproof 9", "pip install --upgrade opsproof")

    @pytest.mark.parametrize(
        "data",
        [
            b"",
            b"{",
            b"[]",
            b"null",
            b"{}",
            b'{"format": "other", "format_version": 1}',
            b'{"format": "opsproof-backup", "format_version": 1}',
            b"\xff" * 100,
            b"[" * 100_000,
            b'{"format": "opsproof-backup", "format_version": ' + b"9" * 5_000 + b"}",
            json.dumps({"version": "17.0", "db_name": "x"}).encode(),
        ],
    )
    def test_what_is_no_manifest_is_told(self, tmp_path: Path, data: bytes) -> None:
        path = compose(tmp_path / "x.zip", pieces(FILE), manifest=lambda manifest: data)
        refuse(path, r"manifest.json is not as opsproof writes it|newer opsproof")

    @pytest.mark.parametrize(
        "change", [{"dump": None}, {"dump": Piece("other.dump", b"").member}, {"sql": Piece(f"{STEM}.sql", b"").member}]
    )
    def test_one_that_names_another_dump_is_refused(self, tmp_path: Path, change: dict[str, object]) -> None:
        path = compose(
            tmp_path / "x.zip",
            pieces(FILE),
            manifest=lambda manifest: records.to_json(manifest.model_copy(update=change)),
        )
        refuse(path, "not as opsproof writes it")

    @pytest.mark.parametrize("total", ["members", "member_bytes", "tables", "rows", "members_sha256", "tables_sha256"])
    def test_totals_that_do_not_add_up_are_refused(self, tmp_path: Path, total: str) -> None:
        def change(manifest: Manifest) -> bytes:
            old = getattr(manifest.totals, total)
            new = old + 1 if isinstance(old, int) else "0" * 64
            totals = manifest.totals.model_copy(update={total: new})
            return records.to_json(manifest.model_copy(update={"totals": totals}))

        refuse(compose(tmp_path / "x.zip", pieces(FILE), manifest=change), "not as opsproof writes it")

    @pytest.mark.parametrize("change", [{"files": 2}, {"bytes": 1}])
    def test_a_filestore_that_does_not_add_up_is_refused(self, tmp_path: Path, change: dict[str, int]) -> None:
        def wrong(manifest: Manifest) -> bytes:
            filestore = manifest.filestore.model_copy(update=change) if manifest.filestore else None
            return records.to_json(manifest.model_copy(update={"filestore": filestore}))

        def without(manifest: Manifest) -> bytes:
            return records.to_json(manifest.model_copy(update={"filestore": None}))

        refuse(compose(tmp_path / "x.zip", pieces(FILE), manifest=wrong), "not as opsproof writes it")
        refuse(compose(tmp_path / "x.zip", pieces(FILE), manifest=without), "not as opsproof writes it")

    @pytest.mark.parametrize(
        "change",
        [{"id": "other_2024-03-05_01-02-03"}, {"target": "crm"}, {"environment": "staging"}, {"customer": "x"}],
    )
    def test_the_backup_of_somebody_else_is_refused(self, tmp_path: Path, change: dict[str, str]) -> None:
        good = write_bundle(tmp_path / "x.zip")
        other = good.model_copy(update={"manifest": good.manifest.model_copy(update=change)})
        with pytest.raises(ArchiveError, match="another backup than the manifest beside it says") as raised:
            open_bundle(tmp_path / "x.zip", other)
        ((key, value),) = change.items()
        assert f"{key} {value}" in raised.value.expected
        assert f"{key} {getattr(good.manifest, key)}" in raised.value.found

    def test_another_length_than_the_sidecar_says_is_told(self, tmp_path: Path) -> None:
        good = write_bundle(tmp_path / "x.zip")
        with pytest.raises(ArchiveError, match="not as long as the manifest beside it says"):
            open_bundle(tmp_path / "x.zip", good.model_copy(update={"bytes": good.bytes + 1}))
        with pytest.raises(ArchiveError, match="not as long"):
            open_bundle(tmp_path / "x.zip", sidecar_of(manifest_of()))
