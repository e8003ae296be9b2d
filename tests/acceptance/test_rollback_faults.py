"""Rollbacks of a schema that fail: contents of before, services at work, nothing left, and the exit status is not 0."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.lab.action_run import REPOSITORY
from tests.lab.migrated import CHAIN, ENVIRONMENT, ROLLBACK, Migrated, Script, migrated
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import (
    Holding,
    Reconnecting,
    feel,
    look,
    require_as_before,
    require_refusal,
    served,
)
from tests.lab.supervised import Supervised

DOWN = ("--type=schema", "--to-revision=total_01")
REHEARSE, UNDO = "test_rehearse", "test_undo_revisions"
# On the rehearsal it does nothing; in the outage, on the live database or on its copy, it fails.
ONLY_IN_EARNEST = """
op.execute("UPDATE orders SET name = 'half way'")
if op.get_bind().execute(sa.text("SHOW application_name")).scalar().startswith("opsproof rollback"):
    raise RuntimeError("only in earnest")
"""
ALWAYS = """
op.execute("UPDATE orders SET name = 'half way'")
if op.get_bind().execute(sa.text("SELECT count(*) FROM orders")).scalar():
    raise RuntimeError("in the middle")
"""
COMMITS = "\nwith op.get_context().autocommit_block():\n    op.drop_index('orders_name')\n"
# What a chain is that raises in its middle: options of its env.py, and the downgrade that goes before.
CHAINS = {
    "one transaction": (False, "op.drop_index('orders_name')"),
    "transaction_per_migration": (True, "op.drop_index('orders_name')"),
    "autocommit_block": (False, COMMITS),
}
ALL = [pytest.param(name, marks=[pytest.mark.slow][: name != "one transaction"]) for name in CHAINS]
ALL_SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in CHAINS]


@pytest.fixture
def shop(wheel_postgres: PostgresServer) -> Iterator[Migrated]:
    with migrated(wheel_postgres, lock_timeout=3) as shop:
        yield shop


@pytest.fixture
def service(shop: Migrated) -> Iterator[Supervised]:
    with served(shop, lock_timeout=3) as service:
        yield service


def break_in_the_middle(shop: Migrated, chain: str, body: str) -> None:
    """Make the third of three downgrades raise, after two that do their work."""
    per_migration, before = CHAINS[chain]
    first, orders, total, _, top = CHAIN
    broken = Script("total_01", "orders_01", total.upgrade, f"{body}\nop.drop_column('orders', 'total')")
    middle = Script("orders_name", "total_01", "op.create_index('orders_name', 'orders', ['name'])", before)
    shop.write((first, orders, broken, middle, top))
    shop.write_env(transaction_per_migration=per_migration)


@pytest.mark.parametrize("chain", ALL_SLOW)
def test_a_downgrade_that_raises_in_the_middle_is_found_by_the_rehearsal(shop: Migrated, chain: str) -> None:
    break_in_the_middle(shop, chain, ALWAYS)
    before = look(shop)
    run = shop.rollback("--type=schema", "--to-revision=orders_01", "--allow-data-loss")
    require_refusal(shop, run, REHEARSE, "Alembic failed on", "in the middle", before=before)
    assert run.outcomes()["test_stop_services"] == "skipped"


@pytest.mark.parametrize("chain", ALL)
def test_a_downgrade_that_raises_only_in_earnest_leaves_the_state_of_before(
    shop: Migrated, service: Supervised, chain: str
) -> None:
    """The very same database is live, though some of its revisions had been undone, and the service runs again."""
    break_in_the_middle(shop, chain, ONLY_IN_EARNEST)
    before = look(shop)
    run = shop.rollback("--type=schema", "--to-revision=orders_01", "--allow-data-loss")
    require_refusal(shop, run, UNDO, "Alembic failed on", "only in earnest", before=before, service=service)
    assert service.await_answer() == "2"
    assert f"undone: supervisor: {service.name} runs again" in run.log


@pytest.mark.slow
def test_a_table_that_a_client_holds_is_waited_for_and_given_up(shop: Migrated, service: Supervised) -> None:
    # Twice the two seconds of one attempt, and what Alembic takes to start each time.
    shop.describe(**service.variables, lock_timeout=8)
    before = look(shop)
    with Holding(shop):
        run = shop.rollback(*DOWN)
    require_refusal(
        shop, run, UNDO, "did not get a lock", "who holds it", "transaction was undone", before=before, service=service
    )
    assert "it is tried again" in run.log


@pytest.mark.slow
def test_a_table_that_is_let_go_in_time_is_migrated(shop: Migrated, service: Supervised) -> None:
    shop.describe(**service.variables, lock_timeout=60)
    with Holding(shop) as holding, shop.project.begin(*DOWN, action=ROLLBACK, env=ENVIRONMENT) as begun:
        begun.wait_until(lambda: any("it is tried again" in str(one) for one in begun.events()), 60)
        holding.released.set()
        run = begun.finish()
    assert run.status == 0, run.output
    assert shop.heads() == ["total_01"]
    assert service.await_answer() == "2"


@pytest.mark.slow
def test_an_application_that_is_ill_with_the_old_schema_gets_the_new_one_back(
    shop: Migrated, service: Supervised
) -> None:
    feel(service, "ill on old")
    before = look(shop)
    run = shop.rollback(*DOWN)
    # What is live again is the copy of the database of before.
    require_refusal(
        shop, run, "test_application_is_healthy", "HTTP 500", "curl -i", before=before, service=service, same=False
    )
    assert f"undone: '{shop.name}' is the copy of the database of before" in run.log


@pytest.mark.slow
@pytest.mark.parametrize("per_migration", [False, True])
def test_a_service_that_does_not_come_up_with_the_old_schema(
    shop: Migrated, service: Supervised, per_migration: bool
) -> None:
    shop.write_env(transaction_per_migration=per_migration)
    feel(service, "refuses old")
    before = look(shop)
    run = shop.rollback(*DOWN)
    words = ("did not start", "this schema is not to my taste")
    require_refusal(shop, run, "test_start_services", *words, before=before, service=service, same=per_migration)


@pytest.mark.slow
@pytest.mark.parametrize("per_migration", [False, True])
def test_a_validation_that_fails_afterwards_undoes_the_rollback(
    shop: Migrated, service: Supervised, per_migration: bool
) -> None:
    """A query that holds on the rehearsal, and no more once the database is live."""
    shop.write_env(transaction_per_migration=per_migration)
    query = "SELECT current_database() LIKE '%\\_\\_side\\_%'"
    shop.describe(**service.variables, validation={"queries": [{"sql": query, "expected": True}]})
    before = look(shop)
    run = shop.rollback(*DOWN)
    require_refusal(
        shop, run, "test_application_finds_its_data", "1 fault", "false, where true is expected",
        before=before, service=service, same=per_migration,
    )  # fmt: skip


@pytest.mark.slow
def test_a_validation_that_the_rehearsal_fails_stops_nothing(shop: Migrated, service: Supervised) -> None:
    shop.describe(**service.variables, validation={"tables": ["orders", "lines"], "queries": []})
    before = look(shop)
    run = shop.rollback(*DOWN)
    require_refusal(shop, run, REHEARSE, "table lines is not there", before=before, service=service)
    assert service.await_answer() == "1"


@pytest.mark.slow
@pytest.mark.parametrize("mood", ["well", "ill on old"])
def test_clients_that_connect_again_and_again_neither_hinder_nor_are_lost(
    shop: Migrated, service: Supervised, mood: str
) -> None:
    feel(service, mood)
    before = look(shop)
    with ExitStack() as stack:
        clients = [stack.enter_context(Reconnecting(shop)) for _ in range(6)]
        run = shop.rollback(*DOWN)
        seen = [client.seen for client in clients]
    assert min(seen) > 0
    if mood == "well":
        assert run.status == 0, run.output
        assert shop.heads() == ["total_01"]
        return
    assert run.failed_step().step == "test_application_is_healthy"
    assert run.status == 1
    require_as_before(shop, before, service, same=False)


@pytest.mark.slow
def test_a_superusers_session_is_told_before_anything_happens(shop: Migrated, service: Supervised) -> None:
    """It can be ended by nobody but a superuser, and would hold the copy up."""
    before = look(shop)
    with shop.server.connect(shop.name):
        run = shop.rollback(*DOWN)
    require_refusal(shop, run, "test_nothing_is_in_the_way", "a session of 'postgres'", before=before, service=service)
    assert shop.backups() == []


@pytest.mark.slow
def test_a_superusers_session_that_comes_in_the_outage_is_named(shop: Migrated, service: Supervised) -> None:
    before = look(shop)
    folder = shop.project.folder / "pause"
    folder.mkdir()
    variables = {"PYTHONPATH": str(REPOSITORY), "PAUSE_AFTER": "test_stop_services", "PAUSE_FOLDER": str(folder)}
    words = ("-p", "tests.lab.pause", *DOWN)
    with shop.project.begin(*words, action=ROLLBACK, env=ENVIRONMENT, environ=variables) as begun:
        begun.wait_until((folder / "reached").exists, 60)
        with shop.server.connect(shop.name) as connection:
            connection.execute("SET application_name = 'a superuser at work'")
            (folder / "go").touch()
            run = begun.finish()
    require_refusal(shop, run, UNDO, "cannot be copied", "a superuser at work", before=before, service=service)
