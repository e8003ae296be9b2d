"""`pytest actions/test_restore.py --from`: a copy of production is harmless before anybody sees it; a move is not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg import sql

from tests.lab.action_run import ActionRun
from tests.lab.application import Application, running_application, table_contents
from tests.lab.foreign_inputs import dump
from tests.lab.odoo_tables import PRODUCTION, UUID, acting, make_outward, parameters
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import ENVIRONMENT, TARGET, Restorable, drop_others

pytest_plugins = ["tests.lab.shop"]

STAGING = "https://staging.example.com"


@dataclass(frozen=True)
class Pair:
    """Production, with a backup, and the staging environment that gets a copy of it."""

    erp: Application
    shop: Restorable
    production: dict[str, object]

    def describe(self, **variables: object) -> None:
        """Write the inventory of both, with more variables of staging."""
        staging = {TARGET: {**self.shop.variables, **variables}}
        self.shop.project.write_inventory({"prod": {"erp": self.production}, ENVIRONMENT: staging})

    def copy(self, *arguments: str) -> ActionRun:
        """Restore production's backup to staging."""
        role = f"--map-role={self.erp.role}={self.shop.application.role}"
        return self.shop.restore("--from=prod/erp", "--no-safety-backup", role, *arguments)


@pytest.fixture
def pair(shop: Restorable, wheel_postgres: PostgresServer, tmp_path: Path) -> Iterator[Pair]:
    """Production with a backup, whose Odoo reaches the world outside."""
    before = shop.query("SELECT key, value FROM public.ir_config_parameter")
    with running_application(wheel_postgres, tmp_path, attachments=3) as erp:
        with wheel_postgres.connect(erp.name, erp.role, erp.password) as connection:
            make_outward(connection)
        with wheel_postgres.connect() as connection:
            connection.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(erp.role)))
        shop.execute(f"INSERT INTO ir_config_parameter (key, value) VALUES ('web.base.url', '{STAGING}')")
        production: dict[str, object] = {"odoo_conf": str(erp.odoo_conf), "pg_bindir": str(wheel_postgres.bindir)}
        pair = Pair(erp, shop, production | {"backup_dir": str(tmp_path / "store")})
        pair.describe()
        run = shop.project.run(env="prod")
        assert run.status == 0, run.output
        try:
            yield pair
        finally:
            drop_others(erp)
            # The shop is shared: what it was is what its own backup has.
            shop.set()
            back = shop.restore("--no-safety-backup")
            assert back.status == 0, back.output
            assert shop.query("SELECT key, value FROM public.ir_config_parameter") == before


def test_a_copy_of_production_is_harmless_and_says_so(pair: Pair) -> None:
    pair.describe(neutralize=["UPDATE ir_cron SET cron_name = 'seen by staging' WHERE cron_name = 'mails'"])
    looked = pair.copy("--dry-run")
    assert looked.status == 0, looked.output
    assert "neutralize it before anybody sees it, as the backup is one of prod/erp" in looked.output
    assert ": Odoo 14.0.1.3 with 2 modules" in looked.output

    run = pair.copy()

    assert run.status == 0, run.output
    with pair.shop.application.connect() as connection:
        assert acting(connection) == ["ir_mail_server invalid"]
        now = parameters(connection)
        assert ("seen by staging",) in connection.execute("SELECT cron_name FROM ir_cron").fetchall()
    assert now["database.is_neutralized"] == "true"
    assert now["database.uuid"] != UUID
    assert (now["web.base.url"], now["web.base.url.freeze"]) == (STAGING, "True")
    assert "identity   neutralized by the built-in statements (Odoo 14.0.1.3 has none)" in run.output
    case = next(case for case in run.cases if case.step == "test_neutralize")
    assert "scheduled actions 2" in case.properties["identity"]
    with pair.erp.connect() as connection:
        assert len(acting(connection)) == 10


def test_a_move_keeps_what_production_was(pair: Pair) -> None:
    with pair.erp.connect() as connection:
        wanted = table_contents(connection)
    run = pair.copy("--keep-identity")
    assert run.status == 0, run.output
    assert pair.shop.live_contents() == wanted
    assert "identity   kept as the backup has it: --keep-identity says that it moves" in run.output


def test_a_copy_that_would_still_act_never_becomes_live(pair: Pair) -> None:
    pair.describe(neutralize="UPDATE ir_cron SET active = true WHERE cron_name = 'mails'")
    before = pair.shop.live_contents()
    run = pair.copy()
    assert run.failed_step().step == "test_neutralize"
    assert "active scheduled action: row 1 of ir_cron" in run.failed_step().message
    assert pair.shop.live_contents() == before
    assert pair.shop.databases() == {pair.shop.name: (True, False)}


def test_productions_own_backup_is_left_alone(pair: Pair) -> None:
    with pair.erp.connect() as connection:
        wanted = table_contents(connection)
        connection.execute("DELETE FROM mail_message")
    run = pair.shop.project.run("--confirm=erp", "--no-safety-backup", action="actions/test_restore.py", env="prod")
    assert run.status == 0, run.output
    with pair.erp.connect() as connection:
        assert table_contents(connection) == wanted
        assert parameters(connection)["web.base.url"] == PRODUCTION
    assert "identity   kept as the backup has it: the backup is one of prod/erp itself" in run.output


def test_a_dump_that_does_not_say_whose_it_is_is_told_by_its_uuid(pair: Pair, tmp_path: Path) -> None:
    pair.describe(accept_missing_files=3)
    path = dump(pair.erp.server, pair.erp.name, tmp_path / "by hand.dump", "custom")
    role = f"--map-role={pair.erp.role}={pair.shop.application.role}"
    run = pair.shop.restore(f"--backup={path}", "--no-safety-backup", role)
    assert run.status == 0, run.output
    with pair.shop.application.connect() as connection:
        assert acting(connection) == ["ir_mail_server invalid"]
    assert "as the backup does not say where it comes from" in run.output
