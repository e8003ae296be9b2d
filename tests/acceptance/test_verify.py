"""`pytest checks/test_backups.py` for real: what its report says, and what a restore chooses afterwards."""

from __future__ import annotations

from tests.lab.verifying import STEP, Shelf

pytest_plugins = ["tests.lab.shelf"]


def test_without_a_named_backup_none_is_read(shelf: Shelf) -> None:
    run = shelf.verify()
    assert run.status == 0, run.output
    assert run.outcomes() == {
        "test_newest_is_young_enough": "skipped",  # the inventory has no objective
        "test_size_has_not_fallen": "passed",
        "test_verified_lately": "passed",
        "test_newest_is_not_damaged": "passed",
        "test_restore_is_fast_enough": "skipped",
        STEP: "skipped",
    }
    assert "pytest checks/test_backups.py --env=staging --backup=latest" in run.case(STEP).message
    named = shelf.copy().verify("--backup=latest")
    assert named.status == 0, named.output
    assert f"{shelf.newer.id} passed, " in named.output


def test_a_damaged_backup_fails_by_its_name_and_a_restore_takes_the_one_before(shelf: Shelf) -> None:
    path = shelf.bundle(shelf.newer)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    planned = shelf.verify("--backup=all", "--dry-run")
    assert planned.case(STEP).outcome == "skipped"
    assert shelf.verdicts() == {}
    run = shelf.verify("--backup=all", "--deep")
    assert run.status == 1, run.output
    case = run.case(STEP)
    assert case.outcome == "failed"
    assert "1 of 2 backups have not passed: 1 failed" in case.message
    assert f"{shelf.newer.id}: failed: " in case.message
    assert case.properties[f"verdict_{shelf.newer.id}"] == "failed"
    assert case.properties[f"verdict_{shelf.older.id}"] == "passed"
    assert "restored into a scratch database" in case.properties[f"checked_{shelf.older.id}"]
    assert shelf.verdicts() == {shelf.newer.id: ["failed"], shelf.older.id: ["passed"]}
    assert shelf.scratch_databases() == []
    assert run.case("test_newest_is_not_damaged").outcome == "passed"
    assert shelf.project.litter() == []
    restore = shelf.own.restore("--dry-run")
    assert restore.status == 0, restore.output
    assert f"{shelf.older.id}.zip" in restore.output
    assert f"{shelf.newer.id} is newer, but does not count: its verification has failed" in restore.output
