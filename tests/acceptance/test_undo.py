"""`pytest actions/test_recover.py --undo`: a restore that turned out to be a mistake is taken back."""

from __future__ import annotations

from psycopg import sql

from tests.lab.application import file_contents
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import TARGET, Restorable, restorable

pytest_plugins = ["tests.lab.shop"]

STEPS = (
    "test_find_unfinished",
    "test_confirmed",
    "test_take_lock",
    "test_bring_to_an_end",
    "test_application_is_whole",
)


def test_an_undo_says_what_is_lost_and_brings_the_old_rows_back_and_can_be_undone_itself(shop: Restorable) -> None:
    shop.execute("DELETE FROM mail_message WHERE id % 9 = 0", "UPDATE res_partner SET name = 'before' WHERE id <= 7")
    old = shop.live_contents()
    restored = shop.restore()
    assert restored.status == 0, restored.output
    (parked,) = shop.parked()
    shop.execute(
        "INSERT INTO mail_message (partner_id, body) SELECT 1, 'after' FROM generate_series(1, 11)",
        "UPDATE res_partner SET name = 'after' WHERE id <= 3",
    )
    since = shop.live_contents()

    looked = shop.recover("--undo", "--dry-run")

    assert looked.status == 0, looked.output
    plan = looked.output[looked.output.index("shop: the plan") :]
    assert "LOSE 11 rows written to public.mail_message since" in plan
    assert "LOSE 3 rows written to public.res_partner since" in plan
    assert plan.count("LOSE") == 2
    assert f"make '{parked}' '{shop.name}' again" in plan
    assert shop.live_contents() == since

    undone = shop.recover("--undo")

    assert undone.status == 0, undone.output
    assert tuple(step for step, outcome in undone.outcomes().items() if outcome == "passed") == STEPS
    assert "the undo loses 11 rows written to public.mail_message since the restore" in undone.output
    assert shop.live_contents() == old
    (kept,) = shop.parked()
    assert kept != parked
    assert shop.databases() == {shop.name: (True, False), kept: (False, False)}

    again = shop.recover("--undo")

    assert again.status == 0, again.output
    assert shop.live_contents() == since
    (last,) = shop.parked()
    assert shop.contents_of_parked(last) == old


def test_files_that_change_in_place_are_exchanged_with_their_database_and_come_back_with_the_undo(
    shop: Restorable,
) -> None:
    """No file of either state is lost, however often one goes back and forth."""
    folder = shop.application.filestore
    shop.set(filestore=str(folder))
    (folder / "notes.txt").write_text("when the backup was taken")
    shop.take_backup()
    backed_up = file_contents(folder)
    (folder / "notes.txt").write_text("written since")
    (folder / "report.txt").write_text("written since")
    since = file_contents(folder)

    assert (restored := shop.restore()).status == 0, restored.output
    assert file_contents(folder) == backed_up
    for expected in (since, backed_up, since):
        undone = shop.recover("--undo")
        assert undone.status == 0, undone.output
        assert file_contents(folder) == expected


def test_where_no_restore_is_kept_there_is_nothing_to_undo(shop: Restorable) -> None:
    before = shop.live_contents()
    run = shop.recover("--undo")
    assert run.status != 0
    assert run.failed_step().step == "test_find_unfinished"
    assert "There is no restore of shop to take back" in run.failed_step().message
    assert shop.live_contents() == before


def test_a_protected_environment_is_taken_back_only_where_its_target_was_named(wheel_postgres: PostgresServer) -> None:
    with restorable(wheel_postgres, served=True, protected=True) as shop:
        shop.execute("COMMENT ON TABLE res_partner IS 'before'", "DELETE FROM account_move")
        with shop.server.connect() as connection:
            database = sql.Identifier(shop.name)
            connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 41").format(database))
        restored = shop.restore(f"--confirm={TARGET}")
        assert restored.status == 0, restored.output
        (parked,) = shop.parked()

        refused = shop.recover("--undo")

        assert refused.status != 0
        assert refused.failed_step().step == "test_confirmed"
        assert f"the same command with --confirm={TARGET}" in refused.failed_step().message
        assert "LOSE" in refused.failed_step().message
        assert shop.parked() == [parked]
        assert shop.query("SELECT count(*) FROM account_move")[0][0] == 500

        run = shop.recover("--undo", f"--confirm={TARGET}")

        assert run.status == 0, run.output
        assert shop.query("SELECT count(*) FROM account_move")[0][0] == 0
        assert shop.query("SELECT obj_description('res_partner'::regclass)") == [("before",)]
        limit = "SELECT datconnlimit, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s"
        assert shop.query(limit, shop.name) == [(41, "the shop's")]
        assert shop.service is not None
        assert "RUNNING" in shop.service.control("status")
        assert shop.service.is_healthy()
