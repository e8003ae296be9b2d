"""`pytest actions/test_rollback.py --type=schema`, all goes well: what is live then, what is kept, what is told."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import psycopg
import pytest

from tests.lab.migrated import CHAIN, Migrated, Script, index, migrated, table
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import adopt, feel, look, require_nothing_left, require_refusal, served
from tests.lab.waiting import await_true

DOWN = ("--type=schema", "--to-revision=total_01")
ROOT = table("shops", None)
LEFT = Script(
    "left_01", "shops_01", "op.add_column('shops', sa.Column('tel', sa.String))", "op.drop_column('shops', 'tel')",
    extra="branch_labels = ('left',)",
)  # fmt: skip
RIGHT = index("right_01", "shops", "shops_01")
MERGE = Script("merge_01", ("left_01", "right_01"), "", "")
SHOPS = ("INSERT INTO shops SELECT n, 'shop ' || n FROM generate_series(1, 20) n",)


@pytest.fixture
def shop(wheel_postgres: PostgresServer) -> Iterator[Migrated]:
    with migrated(wheel_postgres) as shop:
        yield shop


@pytest.fixture
def branched(wheel_postgres: PostgresServer) -> Iterator[Migrated]:
    """An application at the heads of two branches."""
    with migrated(wheel_postgres, (ROOT, LEFT, RIGHT), SHOPS) as branched:
        yield branched


def test_five_revisions_with_data_are_undone_and_brought_back(shop: Migrated) -> None:
    before = shop.contents()
    run = shop.rollback("--type=schema", "--to-revision=base", "--allow-data-loss")
    assert run.status == 0, run.output
    assert shop.heads() == []
    assert shop.query("SELECT to_regclass('orders'), to_regclass('customers')") == [(None, None)]
    assert run.named("rollback finished")[0]["outcome"]["undone"].keys() == {one.id for one in CHAIN}
    back = shop.recover("--undo")
    assert back.status == 0, back.output
    assert shop.contents() == before


@pytest.mark.parametrize("per_migration", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_is_live_afterwards_what_is_kept_and_what_is_told(shop: Migrated, per_migration: bool) -> None:
    """The database keeps all that is its own, whichever way is taken; what was live is out of everybody's sight."""
    shop.write_env(transaction_per_migration=per_migration)
    owner = f'"{shop.role}"'
    with shop.server.connect() as connection:
        for statement in (
            f"COMMENT ON DATABASE {shop.name} IS 'Handle with care'",
            f"REVOKE CONNECT ON DATABASE {shop.name} FROM PUBLIC",
            f"GRANT CONNECT ON DATABASE {shop.name} TO pg_monitor",
            f"ALTER DATABASE {shop.name} SET work_mem = '5MB'",
            f"ALTER ROLE {owner} IN DATABASE {shop.name} SET statement_timeout = '1h'",
            f"ALTER DATABASE {shop.name} CONNECTION LIMIT 17",
        ):
            connection.execute(statement.encode())
    before = look(shop)

    run = shop.rollback(*DOWN)

    assert run.status == 0, run.output
    after = look(shop)
    assert after.properties == before.properties
    assert before.properties[2:4] == ("Handle with care", 17)
    unversioned = [{label: one for label, one in state.contents.items() if "alembic" not in label}
                   for state in (before, after)]  # fmt: skip
    assert unversioned[0] == unversioned[1]
    assert shop.heads() == ["total_01"]
    assert shop.query("SELECT to_regclass('orders_name'), to_regclass('customers_name')") == [(None, None)]
    # What was live keeps its name where it was migrated itself, and else its oid.
    assert (after.oid == before.oid) == (not per_migration)

    (parked,) = after.others
    assert parked.startswith(f"{shop.name}__before_")
    with pytest.raises(psycopg.OperationalError, match="not currently accepting connections"):
        shop.server.connect(parked)

    kept = run.case("test_finish").properties
    assert (kept["rollback_kind"], kept["rollback_before"], kept["rollback_after"]) == (
        "schema", "customers_name", "total_01",
    )  # fmt: skip
    assert kept["rollback_undone"] == "customers_name orders_name"
    assert kept["rollback_parked"] == parked
    assert f"{kept['rollback_safety']}.manifest.json" in shop.backups()
    assert float(kept["outage_total"]) > 0
    events = [one["event"] for one in run.events]
    wanted = ["rollback planned", "rehearsed", "migrated", "outage", "rollback finished"]
    assert [one for one in events if one in wanted] == wanted
    (finished,) = run.named("rollback finished")
    assert (finished["planned"], finished["wanted"]) == (["customers_name", "orders_name"], "total_01")
    assert len(finished["outcome"]["safety_sha256"]) == 64
    (log,) = shop.project.logs.glob("rollback_staging_*.log")
    assert "DROP INDEX" in log.read_text(), "the preview"

    told = [line.split(None, 1)[1] for line in run.output.splitlines() if line.split(None, 1)[:1] == ["forward"]]
    assert "test_recover.py" in told[0]
    command = told[1].partition("   ")[0]
    subprocess.run(
        command, shell=True, check=True, capture_output=True, env={"DATABASE_URL": shop.url, "PATH": "/usr/bin:/bin"}
    )
    assert shop.heads() == ["customers_name"]
    require_nothing_left(shop)


@pytest.mark.slow
def test_no_write_is_lost_and_the_undo_of_it_all_can_be_asked_for(shop: Migrated) -> None:
    """A service that writes until it is stopped finds all of it again, and so it does once the rollback is undone."""
    with served(shop) as service:
        written = service.conf.parent / "written"
        feel(service, "writing")
        await_true(lambda: written.exists() and written.read_text().count("\n") > 5, "nothing is written")
        run = shop.rollback(*DOWN)
        feel(service, "well")
        assert run.status == 0, run.output
        noted = {int(one) for one in written.read_text().split()}
        assert noted <= {row[0] for row in shop.query("SELECT id FROM orders")}
        assert service.await_answer() == "2"
        assert run.case("test_stop_services").outcome == "passed"

        since = shop.contents()
        undone = shop.recover("--undo")
        assert undone.status == 0, undone.output
        assert service.await_answer() == "3"
        assert shop.heads() == ["customers_name"]
        (kept,) = shop.databases()
        again = shop.recover("--undo")
        assert again.status == 0, again.output
        assert shop.databases() != [kept]
        assert shop.contents() == since


@pytest.mark.slow
def test_a_merge_is_undone_alone(branched: Migrated) -> None:
    branched.write((ROOT, LEFT, RIGHT, MERGE))
    branched.alembic("upgrade", "heads")
    assert branched.heads() == ["merge_01"]
    # Two revisions are one below it, and Alembic takes neither.
    before = look(branched)
    refused = branched.rollback("--type=schema", "--to-revision=-1")
    require_refusal(branched, refused, "test_plan", "-1 leads to no one revision", "Ambiguous walk", before=before)

    run = branched.rollback("--type=schema", "--to-revision=left_01")

    assert run.status == 0, run.output
    assert branched.heads() == ["left_01", "right_01"]
    assert "COLLATERAL" not in run.output + run.log
    assert branched.query("SELECT count(*), to_regclass('right_01')::text FROM shops") == [(20, "right_01")]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["left@shops_01", "left@-1"])
def test_one_branch_is_undone_and_the_other_stays(branched: Migrated, target: str) -> None:
    run = branched.rollback("--type=schema", f"--to-revision={target}")
    assert run.status == 0, run.output
    assert branched.heads() == ["right_01"]
    assert branched.query("SELECT to_regclass('right_01')::text") == [("right_01",)]
    assert branched.query("SELECT FROM pg_attribute WHERE attrelid = 'shops'::regclass AND attname = 'tel'") == []


@pytest.mark.slow
def test_a_downgrade_that_takes_both_branches_down_says_so(branched: Migrated) -> None:
    looked = branched.rollback("--type=schema", "--to-revision=shops_01", "--dry-run")
    assert looked.status == 0, looked.output
    assert "COLLATERAL: this undoes 2 branches: left_01, right_01" in looked.output
    assert "SQL unavailable: 2 heads" in looked.output
    (plan,) = {line.rpartition("plan ")[2] for line in looked.output.splitlines() if ". plan " in line}

    run = branched.rollback("--type=schema", "--to-revision=shops_01", f"--plan={plan}")

    assert run.status == 0, run.output
    assert "COLLATERAL" in run.log
    assert branched.heads() == ["shops_01"]
    assert branched.query("SELECT count(*), to_regclass('right_01') FROM shops") == [(20, None)]


@pytest.mark.slow
def test_a_chain_that_commits_on_its_own_runs_on_a_copy(wheel_postgres: PostgresServer) -> None:
    """An index that is dropped concurrently, which no transaction can do."""
    body = "with op.get_context().autocommit_block():\n    op.drop_index('slow_index', postgresql_concurrently=True)"
    scripts = (ROOT, Script("slow_index", "shops_01", "op.create_index('slow_index', 'shops', ['name'])", body))
    with migrated(wheel_postgres, (), ()) as shop:
        adopt(shop, scripts, SHOPS)
        before = look(shop)
        run = shop.rollback("--type=schema", "--to-revision=shops_01")
        assert run.status == 0, run.output
        assert run.named("rollback planned")[0]["atomic"] is False
        assert shop.heads() == ["shops_01"]
        assert look(shop).oid != before.oid
        assert shop.recover("--undo").status == 0
        assert look(shop).oid == before.oid
        assert shop.contents() == before.contents
