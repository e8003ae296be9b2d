"""`pytest actions/test_rollback.py --type=data` and `--type=full`: the data of a backup, and a schema below its own."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.foreign_inputs import dump
from tests.lab.migrated import CHAIN, Migrated, Script, migrated
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import adopt, back_up, look, require_nothing_left, require_refusal, served

PLAN, REHEARSE = "test_plan_is_agreed_to", "test_undo_revisions"
FULL = ("--type=full", "--to-revision=total_01")


@pytest.fixture
def shop(wheel_postgres: PostgresServer) -> Iterator[Migrated]:
    with migrated(wheel_postgres) as shop:
        yield shop


def spoil(shop: Migrated) -> None:
    """Change what is live: rows that are wrong, rows that are gone, rows that are new."""
    shop.execute(
        "UPDATE orders SET name = 'spoiled', total = 0 WHERE id % 2 = 0",
        "DELETE FROM customers WHERE id > 40",
        "INSERT INTO customers VALUES (999, 'new')",
    )


def contents_of(shop: Migrated) -> dict[str, tuple[int, str]]:
    """Return rows and content of the application's own tables."""
    return {label: one for label, one in shop.contents().items() if "alembic" not in label}


def test_data_comes_back_with_its_revision_and_goes_again(shop: Migrated) -> None:
    """A backup of an older revision brings its schema back, too; what was live is kept, and comes back with --undo."""
    shop.alembic("downgrade", "total_01")
    then = shop.contents()
    backup = back_up(shop)
    shop.alembic("upgrade", "heads")
    spoil(shop)
    since = look(shop)

    run = shop.rollback("--type=data")

    assert run.status == 0, run.output
    assert shop.contents() == then
    assert shop.heads() == ["total_01"]
    finish = run.case("test_finish").properties
    assert (finish["rollback_kind"], finish["rollback_before"], finish["rollback_after"]) == (
        "data", "customers_name", "total_01",
    )  # fmt: skip
    assert finish["rollback_safety"] not in ("", backup)
    assert "data rolled back, from customers_name to total_01" in run.output
    after = look(shop)
    assert after.properties == since.properties
    assert after.others == (finish["rollback_parked"],)
    require_nothing_left(shop)

    back = shop.recover("--undo")
    assert back.status == 0, back.output
    assert (look(shop).oid, shop.contents()) == (since.oid, since.contents)


def test_in_place_the_way_back_is_the_safety_backup(shop: Migrated) -> None:
    """Nothing is parked, so there is nothing that an undo could bring back."""
    backup = back_up(shop)
    spoil(shop)
    run = shop.rollback("--type=data", "--in-place")
    assert run.status == 0, run.output
    safety = run.case("test_finish").properties["rollback_safety"]
    assert re.search(rf"^  backup     .*/{backup}\.", run.output, re.MULTILINE)
    assert f"before     dropped; safety backup {safety}" in run.output
    forward = next(line for line in run.output.splitlines() if line.startswith("  forward "))
    assert re.search(rf" actions/test_restore\.py --env=\S+ --target=\S+ --backup={safety} ", forward)


@pytest.mark.slow
def test_a_validation_that_fails_afterwards_brings_the_live_database_back(shop: Migrated) -> None:
    back_up(shop)
    spoil(shop)
    validation = {"queries": [{"sql": "SELECT count(*) FROM customers WHERE id = 999", "expected": 1}]}
    with served(shop, validation=validation) as service:
        before = look(shop)
        run = shop.rollback("--type=data")
        words = ("1 fault", "0, where 1 is expected")
        require_refusal(shop, run, "test_application_finds_its_data", *words, before=before, service=service)


def test_full_brings_the_backups_data_with_the_targets_schema(shop: Migrated) -> None:
    """Both are done on the side; the way down is the backup's, not that of the live database, which is elsewhere."""
    then = contents_of(shop)
    backup = back_up(shop)
    spoil(shop)
    shop.alembic("downgrade", "orders_name")

    run = shop.rollback(*FULL, f"--backup={backup}")

    assert run.status == 0, run.output
    assert contents_of(shop) == then
    assert shop.heads() == ["total_01"]
    assert shop.query("SELECT to_regclass('orders_name'), to_regclass('customers_name')") == [(None, None)]
    (planned,) = run.named("rollback planned")
    assert planned["current"] == ["customers_name"]
    finish = run.case("test_finish").properties
    assert (finish["rollback_kind"], finish["rollback_before"], finish["rollback_after"]) == (
        "full", "orders_name", "total_01",
    )  # fmt: skip
    assert finish["rollback_undone"] == "customers_name orders_name"
    require_nothing_left(shop)


@pytest.mark.slow
def test_full_is_refused_where_the_backup_is_below_the_target(shop: Migrated) -> None:
    shop.alembic("downgrade", "orders_01")
    backup = back_up(shop)
    shop.alembic("upgrade", "heads")
    before, stored = look(shop), shop.backups()
    run = shop.rollback(*FULL, f"--backup={backup}")
    words = (f"The backup {backup} is below total_01 already", f"--type=data --backup={backup}")
    require_refusal(shop, run, PLAN, *words, before=before)
    assert shop.backups() == stored


@pytest.mark.slow
def test_full_at_the_backups_own_revision_brings_its_data_back(shop: Migrated) -> None:
    then = contents_of(shop)
    backup = back_up(shop)
    spoil(shop)
    run = shop.rollback("--type=full", "--to-revision=customers_name", f"--backup={backup}")
    assert run.status == 0, run.output
    assert contents_of(shop) == then
    assert shop.heads() == ["customers_name"]


@pytest.mark.slow
def test_full_counts_what_the_backup_loses_and_wants_consent(shop: Migrated) -> None:
    """The column is empty in the live database, but not in the backup."""
    backup = back_up(shop)
    shop.execute("UPDATE orders SET total = NULL")
    before = look(shop)
    words = ("--type=full", "--to-revision=orders_01", f"--backup={backup}")
    run = shop.rollback(*words)
    require_refusal(shop, run, REHEARSE, "column orders.total: 200 values", "--allow-data-loss", before=before)

    agreed = shop.rollback(*words, "--allow-data-loss")

    assert agreed.status == 0, agreed.output
    assert shop.heads() == ["orders_01"]
    assert "column public.orders.total: 200 values" in agreed.output


@pytest.mark.slow
def test_a_downgrade_that_fails_on_the_side_leaves_what_is_live(shop: Migrated) -> None:
    backup = back_up(shop)
    spoil(shop)
    *below, top = CHAIN
    shop.write((*below, Script(top.id, top.down, top.upgrade, "op.drop_index('customers_name')\nop.drop_index('no')")))
    before = look(shop)
    run = shop.rollback(*FULL, f"--backup={backup}")
    require_refusal(shop, run, REHEARSE, "Alembic failed on", 'index "no" does not exist', before=before)


@pytest.mark.slow
def test_full_without_a_backup_is_the_schemas_alone_and_says_so(shop: Migrated) -> None:
    back_up(shop)
    spoil(shop)
    now = contents_of(shop)
    run = shop.rollback(*FULL)
    assert run.status == 0, run.output
    assert "no backup was named: a full rollback is one of the schema alone, and keeps the data" in run.output
    assert contents_of(shop) == now
    assert shop.heads() == ["total_01"]
    assert run.case("test_finish").properties["rollback_kind"] == "schema"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["data", "full"])
def test_a_custom_dump_of_somebody_else_says_its_revision_itself(shop: Migrated, tmp_path: Path, kind: str) -> None:
    then = contents_of(shop)
    path = dump(shop.server, shop.name, tmp_path / "theirs.dump", "custom")
    spoil(shop)
    shop.alembic("downgrade", "orders_name")
    target = ["--to-revision=total_01"] if kind == "full" else []
    run = shop.rollback(f"--type={kind}", f"--backup={path}", *target)
    assert run.status == 0, run.output
    assert contents_of(shop) == then
    assert shop.heads() == ["total_01" if kind == "full" else "customers_name"]
    assert "unverified" in run.output


@pytest.mark.slow
def test_plain_sql_of_somebody_else_does_not_say_its_revision(shop: Migrated, tmp_path: Path) -> None:
    path = dump(shop.server, shop.name, tmp_path / "theirs.sql", "plain")
    before = look(shop)
    run = shop.rollback(*FULL, f"--backup={path}")
    words = ("does not say at which revision it is", "--type=data")
    require_refusal(shop, run, PLAN, *words, before=before)


@pytest.mark.slow
def test_full_with_a_version_table_of_another_name(wheel_postgres: PostgresServer) -> None:
    """The manifest knows Alembic's usual table alone: the dump itself tells."""
    with migrated(wheel_postgres, (), ()) as shop:
        (shop.folder / "files").mkdir()
        shop.describe(filestore=str(shop.folder / "files"))
        rows = ("INSERT INTO customers VALUES (1, 'one')", "INSERT INTO orders VALUES (1, 'one', 5)")
        adopt(shop, CHAIN, rows, version_table="revisions")
        backup = back_up(shop)
        shop.execute("DELETE FROM orders")
        run = shop.rollback(*FULL, f"--backup={backup}")
        assert run.status == 0, run.output
        assert shop.heads("revisions") == ["total_01"]
        assert shop.query("SELECT total FROM orders") == [(5,)]
        assert run.case("test_finish").properties["rollback_before"] == "customers_name"


@pytest.mark.slow
def test_a_dry_run_of_a_full_rollback_changes_nothing(shop: Migrated) -> None:
    backup = back_up(shop)
    spoil(shop)
    before, stored = look(shop), shop.backups()
    run = shop.rollback(*FULL, f"--backup={backup}", "--dry-run")
    assert run.status == 0, run.output
    plan = run.output[run.output.index("shop: the plan") :]
    assert "from customers_name down to total_01" in plan
    assert f"{backup}.sql" in plan
    assert (look(shop), shop.backups()) == (before, stored)
