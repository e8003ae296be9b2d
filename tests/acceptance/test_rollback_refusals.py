"""What a rollback refuses before it takes a backup or a lock, and that it has written nothing by then."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from urllib.parse import quote

import pytest

from tests.lab.action_run import ActionRun, require_failure
from tests.lab.migrated import CHAIN, PASSWORD, TARGET, Migrated, Script, index, migrated, table
from tests.lab.postgres_server import PostgresServer

PLAN = "test_plan"
AGREEMENT = "test_plan_is_agreed_to"
COMPARISON = "test_schema_is_what_its_migrations_make"
UNTOUCHED = "nothing was changed, and no backup was taken"
NO_LOSS = "--to-revision=total_01"  # two indexes above it
LOSS = "--to-revision=customers_01"
CONSENT = ("--allow-data-loss", "--allow-drift")

# Two branches above a root, of which the database is on both; and what it has not got, above one and beside them.
FORKED = (table("root", None), table("left", "root_01"), table("right", "root_01"))
UNAPPLIED = (index("left_name", "left", "left_01"), table("aside", "root_01"))


@dataclass(frozen=True)
class Picture:
    """All that a refused rollback leaves alone."""

    contents: dict[str, tuple[int, str]]
    relations: list[tuple[object, ...]]
    databases: list[tuple[object, ...]]
    stored: list[str]
    litter: list[str]


def look(shop: Migrated) -> Picture:
    with shop.server.connect() as connection:
        databases = connection.execute(
            "SELECT oid, datname, datallowconn, datistemplate, datconnlimit, datacl::text, datdba,"
            " shobj_description(oid, 'pg_database') FROM pg_database ORDER BY 1"
        ).fetchall()
    relations = shop.query("SELECT oid, relname, relfilenode, relnatts FROM pg_class ORDER BY 1")
    return Picture(shop.contents(), relations, databases, shop.backups(), shop.project.litter())


def require_no_lock(shop: Migrated) -> None:
    deadline = time.monotonic() + 5
    with shop.server.connect() as connection:
        # The server notices a client that is gone only when it next turns to it.
        while connection.execute("SELECT FROM pg_locks WHERE locktype = 'advisory'").fetchall():
            assert time.monotonic() < deadline, "a lock is held"
            time.sleep(0.05)


@contextmanager
def untouched(shop: Migrated) -> Iterator[None]:
    before = look(shop)
    yield
    assert look(shop) == before
    require_no_lock(shop)


def refused(shop: Migrated, step: str, arguments: Sequence[str], *words: str) -> ActionRun:
    """Check that a rollback is refused at a step, in these words, and that it leaves everything as it was."""
    with untouched(shop):
        run = shop.rollback("--type=schema", *arguments)
    require_failure(run, step, UNTOUCHED, *words)
    return run


@contextmanager
def with_scripts(shop: Migrated, scripts: Sequence[Script]) -> Iterator[None]:
    """Give the application other scripts than the chain for a while."""
    shop.write(scripts)
    try:
        yield
    finally:
        shop.write(CHAIN)


@pytest.fixture(scope="module")
def shop(wheel_postgres: PostgresServer) -> Iterator[Migrated]:
    """At the head of the chain of five; each test leaves it as it was."""
    with migrated(wheel_postgres) as shop:
        yield shop


@pytest.fixture(scope="module")
def forked(wheel_postgres: PostgresServer) -> Iterator[Migrated]:
    """At the heads of two branches."""
    with migrated(wheel_postgres, FORKED, rows=()) as shop:
        shop.write([*FORKED, *UNAPPLIED])
        yield shop


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ([], ("Nobody said which revision", "--to-revision=orders_name", "--to-revision=customers_01")),
        (["--to-revision=order_01"], ("There is no revision order_01", "--to-revision=orders_01")),
        (["--to-revision=customers"], ("the beginning of 2 revisions", "customers_name", "customers_01")),
        (["--to-revision=-9"], ("-9 leads to no one revision", "didn't produce 9 migrations", "orders_name")),
        ([LOSS], ("destroys data: 2 losses", "table orders: 200 rows", "column orders.total: 200 values",
                  "--allow-data-loss")),
    ],
    ids=["none", "unknown", "ambiguous prefix", "too far", "data loss"],
)  # fmt: skip
def test_a_target_that_is_none_or_that_costs_too_much(
    shop: Migrated, target: list[str], words: tuple[str, ...]
) -> None:
    refused(shop, AGREEMENT if target == [LOSS] else PLAN, target, *words)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("-1", ("-1 is ambiguous: the database is at 2 heads", "=left_01@-1", "--to-revision=right_01@-1")),
        ("left_name", ("left_name is no revision", "above the current one: left_01, right", "--to-revision=root_01")),
        ("aside_01", ("aside_01 is no revision", "a branch that this database is not on", "--to-revision=root_01")),
    ],
    ids=["ambiguous", "above", "not an ancestor"],
)
def test_a_target_that_is_not_below_one_head(forked: Migrated, target: str, words: tuple[str, ...]) -> None:
    refused(forked, PLAN, [f"--to-revision={target}"], *words)


def test_scripts_of_an_older_release(shop: Migrated) -> None:
    with with_scripts(shop, CHAIN[:3]):
        refused(shop, PLAN, [NO_LOSS, *CONSENT], "a revision that the scripts do not have",
                "scripts up to customers_name", "3 scripts, the newest: total_01, orders_01, customers_01")  # fmt: skip


def test_a_database_without_a_stamp(shop: Migrated) -> None:
    shop.execute("DELETE FROM alembic_version")
    try:
        refused(shop, PLAN, [NO_LOSS, *CONSENT], "Alembic was never run on it", "--type=data")
    finally:
        shop.execute("INSERT INTO alembic_version VALUES ('customers_name')")


def test_downgrades_that_raise_or_are_empty_whatever_was_consented_to(shop: Migrated) -> None:
    raising = replace(CHAIN[4], downgrade="raise RuntimeError('no way back')")
    empty = replace(CHAIN[3], downgrade="pass")
    with with_scripts(shop, [*CHAIN[:3], empty, raising]):
        refused(shop, AGREEMENT, [NO_LOSS, *CONSENT], "2 of 2 revisions cannot be undone", "('no way back')",
                "orders_name (orders_name.): downgrade() is empty, upgrade() is not")  # fmt: skip


def test_a_schema_that_has_drifted(shop: Migrated) -> None:
    shop.execute("ALTER TABLE orders ADD COLUMN by_hand int; CREATE TYPE mood AS ENUM ('glad')")
    try:
        refused(shop, COMPARISON, [NO_LOSS], "The live schema is not what its migrations make at customers_name",
                "by_hand integer", "CREATE TYPE public.mood", "--allow-drift")  # fmt: skip
        with untouched(shop):
            run = shop.rollback("--type=schema", NO_LOSS, "--allow-drift", "--dry-run")
        assert run.status == 0, run.output
        assert run.outcomes()[COMPARISON] == "passed"
    finally:
        shop.execute("ALTER TABLE orders DROP COLUMN by_hand; DROP TYPE mood")


def test_a_history_that_does_not_run_from_the_beginning(shop: Migrated) -> None:
    """The scratch database, on which that is found out, is gone afterwards."""
    with with_scripts(shop, [CHAIN[0], replace(CHAIN[1], upgrade="op.execute('SELECT 1/0')"), *CHAIN[2:]]):
        refused(shop, COMPARISON, [NO_LOSS], "does not build the schema from an empty database", "division by zero",
                "--allow-drift")  # fmt: skip


def test_a_plan_that_is_not_the_one_that_was_read(shop: Migrated) -> None:
    with untouched(shop):
        run = shop.rollback("--type=schema", NO_LOSS, "--dry-run")
    assert run.status == 0, run.output
    digest = run.named("rollback planned")[0]["plan"]
    assert f"plan {digest}\n" in run.output
    confirmed = (NO_LOSS, f"--plan={digest}")
    changed = replace(CHAIN[3], downgrade="op.drop_index('orders_name', 'orders')")
    with with_scripts(shop, [*CHAIN[:3], changed, CHAIN[4]]):
        refused(shop, AGREEMENT, confirmed, "The plan is not the one that was confirmed", f"plan {digest}", "--plan=")
    shop.execute("UPDATE alembic_version SET version_num = 'orders_name'")
    try:
        refused(shop, AGREEMENT, confirmed, "The plan is not the one that was confirmed", "from orders_name down")
    finally:
        shop.execute("UPDATE alembic_version SET version_num = 'customers_name'")


def test_where_the_target_is_current_nothing_is_done(shop: Migrated) -> None:
    with untouched(shop):
        run = shop.rollback("--type=schema", "--to-revision=customers_name")
    assert run.status == 0, run.output
    outcomes = run.outcomes()
    later = list(outcomes)[list(outcomes).index(PLAN) + 1 :]
    assert outcomes[PLAN] == "passed"
    assert {outcomes[step] for step in later} == {"skipped"}
    assert "test_take_safety_backup" in later
    assert "the database is at customers_name already: nothing was done" in run.output
    assert "safety backup and prove" not in run.output


def test_nobody_said_what_to_roll_back(shop: Migrated) -> None:
    with untouched(shop):
        run = shop.rollback(NO_LOSS)
    assert run.status == 4, run.output
    assert "--type=schema|data|full" in run.output
    assert "came to their end" not in run.output, "nothing was begun"
    assert run.cases == ()


def test_files_that_are_missing_already_are_told_before_the_outage(wheel_postgres: PostgresServer) -> None:
    """The look afterwards would find them missing, and undo everything."""
    with migrated(wheel_postgres) as shop:
        files = shop.folder / "files"
        files.mkdir()
        shop.execute(
            "CREATE TABLE ir_attachment (store_fname text)", "INSERT INTO ir_attachment VALUES ('ab/abc'), ('cd/cde')"
        )
        shop.describe(filestore={"path": str(files), "content_addressed": True})
        run = shop.rollback("--type=schema", "--to-revision=-1")
        assert run.status == 1, run.output
        assert run.failed_step().step == "test_nothing_is_in_the_way"
        assert "2 attachments are not in the filestore" in run.output
        assert "nothing was changed" in run.failed_step().message
        assert (shop.backups(), shop.databases()) == ([], [])


def test_a_protected_target_shows_its_plan_and_waits_for_its_name(shop: Migrated) -> None:
    shop.describe(protected=True)
    try:
        with untouched(shop):
            run = shop.rollback("--type=schema", LOSS, "--allow-data-loss", "--dry-run")
        assert run.status == 0, run.output
        (event,) = run.named("rollback planned")
        for line in ("from customers_name down to customers_01", "LOSES table orders: 200 rows",
                     "LOSES column orders.total: 200 values", f"plan {event['plan']}"):  # fmt: skip
            assert line in run.output
        assert event["planned"] == ["customers_name", "orders_name", "total_01", "orders_01"]
        assert run.outcomes()["test_take_lock"] == "skipped"
        with untouched(shop):
            # The plan is the one that was read, so that is not what stands in the way.
            run = shop.rollback(
                "--type=schema", LOSS, "--allow-data-loss", f"--plan={event['plan']}", "--confirm=other"
            )
        message = require_failure(run, "test_confirmed", "staging is protected: nothing was done", "LOSES table orders")
        assert f"--confirm={TARGET} --plan={event['plan']}" in message
    finally:
        shop.describe()


SHOUTING = """
import os
for name in ("DATABASE_URL", "PGPASSWORD", "APP_TOKEN", "BROKER_URL", "DEBUG_PASSWORDS"):
    print(name, os.environ[name])
raise SystemExit(repr({name: os.environ[name] for name in ("DATABASE_URL", "PGPASSWORD", "APP_TOKEN", "BROKER_URL")}))
"""


def test_an_environment_that_prints_what_it_knows(shop: Migrated) -> None:
    token, broker = "t0k'en of the shop", "amqp://shop:br%2Fker-pw@localhost/"
    shop.describe(alembic_env={"APP_TOKEN": token, "BROKER_URL": broker, "DEBUG_PASSWORDS": False})
    shop.write_env(SHOUTING)
    try:
        with untouched(shop):
            run = shop.rollback("--type=schema", NO_LOSS)
    finally:
        shop.write_env()
        shop.describe()
    message = require_failure(run, PLAN, "Alembic failed on", "SystemExit", "amqp://shop:***@localhost/")
    assert "BROKER_URL" in message
    texts = {"output": run.output, "xml": run.xml, "log": run.log, "journal": str(run.events)}
    assert len(run.events) > 3
    for secret in (PASSWORD, quote(PASSWORD, safe=""), token, "br%2Fker-pw", "br/ker-pw"):
        assert [place for place, text in texts.items() if secret in text] == []
