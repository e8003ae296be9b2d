"""`pytest actions/test_drill.py` of what does not restore, or is not right: each fails with that named.

Whether a backup restores is one question, whether what was restored is right another; a drill that could not be carried
out has answered neither.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from opsproof.archive.manifest import read_sidecar
from tests.lab.action_run import ActionRun
from tests.lab.application import file_contents, running_application, table_contents
from tests.lab.bundles import Piece
from tests.lab.drilling import PRODUCTION, DrillGround
from tests.lab.postgres_server import PostgresServer, has_system_postgres
from tests.lab.restored import drop_others
from tests.lab.restorelab import fill, small_disk
from tests.lab.sealing import new_age_key
from tests.lab.verifying import rebuild

pytest_plugins = ["tests.lab.drilling"]

Members = dict[str, Piece]
TOO_OLD = ("pg_restore 15", "unsupported version", "a server that is not older than the one that the backup came from")


@pytest.fixture
def shelf(ground: DrillGround, tmp_path: Path) -> DrillGround:
    """The same ground with a store that the test may damage."""
    return ground.with_store(tmp_path / "prod")


def require_named(run: ActionRun, step: str, restore: str, validation: str, *words: str) -> dict[str, Any]:
    """Check that a drill failed at a step, with these words and these answers; return what it came to."""
    assert run.status == 1, run.output
    case = run.failed_step()
    assert case.step == step, run.output
    for word in (*words, "expected:", "found:", "hint:"):
        assert word in case.message, case.message
    (event,) = run.named("drill finished")
    outcome: dict[str, Any] = event["outcome"]
    assert (outcome["restore"], outcome["validation"]) == (restore, validation), run.output
    assert outcome["why"]
    assert outcome["why"] in case.message
    assert "THE UNDO FAILED" not in run.output
    return outcome


@contextmanager
def untouched(ground: DrillGround) -> Iterator[None]:
    """Check that the block touches nothing that is served, and leaves nothing."""
    before = ground.look()
    yield
    ground.require_untouched(before)
    ground.require_nothing_left()


def test_a_missing_attachment(shelf: DrillGround) -> None:
    gone = shelf.erp.attachments()[3]
    name = f"{gone.parent.name}/{gone.name}"

    def lose(members: Members) -> None:
        del members[f"filestore/{name}"]

    rebuild(shelf, shelf.backup, lose)
    with untouched(shelf):
        run = shelf.drill()
    require_named(run, "test_data_holds", "passed", "failed", f"{name}: missing")


def test_a_row_changed_after_the_fingerprint(shelf: DrillGround) -> None:
    def change(members: Members) -> None:
        (name,) = (one for one in members if one.endswith(".dump"))
        changed = members[name].data.replace(b"user7@example.org", b"user7@example.net")
        assert changed != members[name].data
        members[name] = Piece(name, changed)

    rebuild(shelf, shelf.backup, change)
    with untouched(shelf):
        run = shelf.drill()
    found = require_named(run, "test_scratch_database_is_the_backup", "failed", "not reached", "public.res_partner")
    assert found["rto"] is None


def test_a_missing_role(ground: DrillGround) -> None:
    role, other = sql.Identifier(ground.erp.role), sql.Identifier(f"{ground.erp.role} of before")
    rename = sql.SQL("ALTER ROLE {} RENAME TO {}")
    with ground.erp.server.connect() as connection:
        connection.execute(rename.format(role, other))
    try:
        with untouched(ground):
            run = ground.drill(mapped=False)
    finally:
        with ground.erp.server.connect() as connection:
            connection.execute(rename.format(other, role))
    require_named(run, "test_nothing_is_in_the_way", "failed", "not reached", "in the way of a drill", ground.erp.role)
    # It failed before it changed anything, and is evidence all the same.
    (stored,) = (Path(str(ground.staging["backup_dir"])) / "journals").iterdir()
    assert '"drill finished"' in stored.read_text()


@pytest.mark.skipif(not has_system_postgres(), reason="there is no older server here")
def test_a_server_too_old(ground: DrillGround, system_postgres: PostgresServer, tmp_path: Path) -> None:
    with running_application(system_postgres, tmp_path, attachments=2) as old:
        try:
            staging = {"odoo_conf": str(old.odoo_conf), "pg_bindir": str(system_postgres.bindir)}
            store = {"backup_dir": str(tmp_path / "store")}
            ground.project.write_inventory(
                {PRODUCTION: {"erp": ground.production}, "old": {"shop": {**staging, **store}}}
            )
            before = table_contents(old.connect()), file_contents(old.filestore)
            run = ground.drill(env="old")
            assert (table_contents(old.connect()), file_contents(old.filestore)) == before
        finally:
            drop_others(old)
    require_named(run, "test_nothing_is_in_the_way", "failed", "not reached", *TOO_OLD)
    assert [one.name for one in old.filestore.parent.iterdir()] == [old.name]


def test_a_wrong_key(ground: DrillGround, tmp_path: Path) -> None:
    ours, theirs = new_age_key(), new_age_key()
    keys = {"encryption": {"recipients": [ours.recipient]}, "backup_dir": str(tmp_path / "sealed")}
    ground.describe(production=keys)
    taken = ground.project.run(env=PRODUCTION)
    assert taken.status == 0, taken.output
    (path,) = (tmp_path / "sealed").glob("*.manifest.json")
    assert read_sidecar(path.read_bytes(), path.name).name.endswith(".zip.age")
    with untouched(ground):
        wrong = ground.drill(environ={"OPSPROOF_AGE_IDENTITY": theirs.secret})
    # The backup may be as good as any: nobody here can tell.
    require_named(wrong, "test_backup_is_whole", "broken", "not reached", "OPSPROOF_AGE_IDENTITY")
    assert theirs.secret not in wrong.output + wrong.xml + wrong.log + repr(wrong.events)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted by root")
def test_a_disk_without_room(ground: DrillGround) -> None:
    with small_disk(ground.shop.server, 1) as disk:
        (disk / ground.shop.name).mkdir()
        ground.describe(filestore=str(disk / ground.shop.name))
        fill(disk)
        with untouched(ground):
            run = ground.drill()
    # The backup may be as good as any: it was not tried.
    require_named(run, "test_nothing_is_in_the_way", "broken", "not reached", "room:", "for files in", str(disk))


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("never starts", ("ended by itself", "this copy is not to my taste")),
        ("hangs", ("is not healthy after 2 s",)),
    ],
)
def test_an_application_that_does_not_answer(ground: DrillGround, mood: str, words: tuple[str, ...]) -> None:
    ground.describe(**ground.starting(mood, seconds=2))
    with untouched(ground):
        run = ground.drill()
    require_named(run, "test_application_starts", "passed", "failed", *words)
