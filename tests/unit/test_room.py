"""Room: there is enough, or an error says how much and what to do."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from opsproof.errors import ProofError
from opsproof.inspection.room import check_spool_room, check_store_room


def test_the_spools_disk_is_measured(tmp_path: Path) -> None:
    room = check_spool_room(1_000, tmp_path)
    assert room.folder == str(tmp_path)
    assert room.needed == 500
    assert abs(room.free - shutil.disk_usage(tmp_path).free) < 1 << 30


def test_without_a_folder_it_is_the_temporary_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert check_spool_room(0).folder == str(tmp_path)


def test_too_little_room_is_an_error_with_both_numbers(tmp_path: Path) -> None:
    with pytest.raises(ProofError, match="Not enough room") as caught:
        check_spool_room(1 << 60, tmp_path)
    assert f"{1 << 59:,} bytes free" in caught.value.expected
    assert "TMPDIR=" in caught.value.hint


def test_a_store_without_a_limit_has_room() -> None:
    assert check_store_room("s3://b/", None, 1 << 60, 1 << 60) is None


def test_a_store_must_hold_dump_and_files() -> None:
    room = check_store_room("/backups/", 1_500, 1_000, 1_000)
    assert room is not None
    assert (room.folder, room.free, room.needed) == ("/backups/", 1_500, 1_500)
    with pytest.raises(ProofError, match="Not enough room in /backups/ for the bundle") as caught:
        check_store_room("/backups/", 1_499, 1_000, 1_000)
    assert "1,499 bytes" in caught.value.found
    assert "backup_dir" in caught.value.hint
