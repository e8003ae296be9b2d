"""`pytest actions/test_restore.py`: which backup is taken, and what keeps a restore from being the wrong one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.lab.action_run import REPOSITORY, ActionRun
from tests.lab.restored import ENVIRONMENT, RESTORE, TARGET, Restorable

pytest_plugins = ["tests.lab.shop"]

LOOKING = (
    "test_choose_backup",
    "test_server_answers",
    "test_nothing_is_unfinished",
    "test_backup_is_whole",
    "test_nothing_is_in_the_way",
    "test_confirmed",
)
PAUSE = ("-p", "tests.lab.pause")


@dataclass(frozen=True)
class State:
    """All that a restore could change: databases, rows, files and the store."""

    databases: list[tuple[Any, ...]]
    contents: dict[str, tuple[int, str]]
    files: tuple[tuple[str, int, int, int], ...]


def state_of(shop: Restorable) -> State:
    databases = shop.query(
        "SELECT oid::bigint, datname, datallowconn, datistemplate, datacl::text, shobj_description(oid, 'pg_database')"
        " FROM pg_database ORDER BY 1"
    )
    found = []
    for folder in (shop.application.data_dir, shop.project.store, shop.project.temporary):
        for path in sorted([folder, *folder.rglob("*")]):
            status = path.lstat()
            # The temporary folder's own time changes with every file that comes and goes in it.
            changed = 0 if path == shop.project.temporary else status.st_mtime_ns
            found.append((str(path), status.st_ino, status.st_size, changed))
    return State(databases, shop.live_contents(), tuple(found))


def passed(run: ActionRun) -> tuple[str, ...]:
    return tuple(step for step, outcome in run.outcomes().items() if outcome == "passed")


def test_a_protected_environment_is_changed_only_where_the_target_was_named(shop: Restorable) -> None:
    shop.set(protected=True)
    shop.execute("DELETE FROM mail_message WHERE id % 5 = 0")
    before = state_of(shop)

    refused = shop.restore("--confirm=another")

    assert refused.status != 0
    failed = refused.failed_step()
    assert failed.step == "test_confirmed"
    assert f"{ENVIRONMENT} is protected: nothing was done" in failed.message
    assert f"the same command with --confirm={TARGET}" in failed.message
    assert f"1. bring back {shop.project.store / shop.backup.name}" in failed.message
    assert "3. take a safety backup and prove it" in failed.message
    assert passed(refused) == LOOKING[:-1]
    assert state_of(shop) == before

    run = shop.restore(f"--confirm={TARGET}")

    assert run.status == 0, run.output
    assert shop.live_contents() == shop.contents
    # The safety backup that this restore took is newer than the backup, and never what `latest` means.
    safety = run.cases[-1].properties["restore_safety"]
    stored = shop.stored()
    assert (stored[safety].manifest.kind, stored[shop.backup.id].manifest.kind) == ("safety", "scheduled")
    assert stored[safety].manifest.taken > stored[shop.backup.id].manifest.taken
    again = shop.restore("--dry-run", f"--confirm={TARGET}")
    assert f"1. bring back {shop.project.store / shop.backup.name}" in again.output


def test_a_dry_run_prints_the_plan_and_changes_nothing(shop: Restorable) -> None:
    shop.execute("DELETE FROM mail_message WHERE id % 11 = 0")
    before = state_of(shop)
    run = shop.restore("--dry-run")
    assert run.status == 0, run.output
    assert passed(run) == LOOKING
    assert {case.outcome for case in run.cases if case.step not in LOOKING} == {"skipped"}
    plan = run.output[run.output.index("shop: the plan") :]
    for words in ("1. bring back", "3. take a safety backup", f"build '{shop.name}__side_", f"'{shop.name}__before_"):
        assert words in plan
    assert state_of(shop) == before


def test_a_second_restore_fails_at_once_and_says_who_is_at_work(shop: Restorable, tmp_path: Path) -> None:
    paused = {"PAUSE_AFTER": "test_take_lock", "PAUSE_FOLDER": str(tmp_path), "PYTHONPATH": str(REPOSITORY)}
    with shop.project.begin(*PAUSE, action=RESTORE, env=ENVIRONMENT, environ=paused) as first:
        first.wait_until((tmp_path / "reached").exists)
        before = state_of(shop).databases
        second = shop.restore()
        assert state_of(shop).databases == before
        (tmp_path / "go").touch()
        run = first.finish()
    assert second.status != 0
    failed = second.failed_step()
    assert failed.step == "test_take_lock"
    assert "opsproof restore" in failed.message
    assert float(failed.properties["seconds"]) < 5
    assert run.status == 0, run.output
    assert shop.live_contents() == shop.contents


def test_a_backup_is_named_by_a_time_an_id_or_a_path(shop: Restorable) -> None:
    shop.execute("DELETE FROM mail_message WHERE id % 3 = 0")
    newer, contents = shop.take_backup(), shop.live_contents()
    first, second = (shop.project.store / one.name for one in (shop.backup, newer))

    by_time = shop.restore(f"--at={shop.backup.manifest.taken:%Y-%m-%d %H:%M:%S}")
    assert by_time.status == 0, by_time.output
    assert by_time.cases[-1].properties["restore_backup"] == shop.backup.id
    assert shop.live_contents() == shop.contents

    by_id = shop.restore(f"--backup={newer.id}", "--no-safety-backup")
    assert by_id.status == 0, by_id.output
    assert shop.live_contents() == contents
    # Only the restore by time took one.
    assert sorted(one.manifest.kind for one in shop.stored().values()) == ["safety", "scheduled", "scheduled"]
    assert by_id.cases[-1].properties["restore_safety"] == ""

    by_path = shop.restore(f"--backup={first}", "--dry-run")
    assert f"1. bring back {first} (named by its place: a verified backup of" in by_path.output
    latest = shop.restore("--dry-run")
    assert f"1. bring back {second} (the newest verified backup of {ENVIRONMENT}/{TARGET}" in latest.output


def test_where_there_is_no_backup_that_is_said_before_anything_else(shop: Restorable) -> None:
    before = state_of(shop)
    run = shop.restore("--at=2001-01-01")
    assert run.status != 0
    assert run.failed_step().step == "test_choose_backup"
    assert f"No verified backup of {ENVIRONMENT}/{TARGET} not after 2001-01-01" in run.failed_step().message
    assert passed(run) == ()
    assert state_of(shop) == before


def test_in_place_the_live_database_gives_way_and_its_safety_backup_is_kept(shop: Restorable) -> None:
    shop.execute("DELETE FROM mail_message WHERE id % 13 = 0")
    spoiled, before = shop.live_contents(), state_of(shop)

    refused = shop.restore("--in-place", "--no-safety-backup")

    assert refused.status != 0
    assert refused.failed_step().step == "test_confirmed"
    assert "would destroy the only copy" in refused.failed_step().message
    assert state_of(shop) == before

    run = shop.restore("--in-place")

    assert run.status == 0, run.output
    assert shop.live_contents() == shop.contents
    assert shop.databases() == {shop.name: (True, False)}
    safety = run.cases[-1].properties["restore_safety"]
    assert shop.stored()[safety].manifest.totals.rows == sum(
        rows for name, (rows, _) in spoiled.items() if not name.startswith("object ")
    )


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--backup=no_such_backup", ("There is no backup no_such_backup", f"--list-backups --env={ENVIRONMENT}")),
        (f"--from={ENVIRONMENT}/nobody", ("nobody", TARGET)),
    ],
)
def test_what_cannot_be_chosen_is_refused_with_what_there_is(
    shop: Restorable, option: str, words: tuple[str, ...]
) -> None:
    run = shop.restore(option)
    assert run.status != 0
    assert run.failed_step().step == "test_choose_backup"
    assert all(word in run.failed_step().message for word in words), run.failed_step().message
