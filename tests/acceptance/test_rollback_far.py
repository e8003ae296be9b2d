"""Rollbacks of an application on another machine, over a real sshd: its Alembic runs there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.migrated import CHAIN, Migrated, migrated
from tests.lab.postgres_server import PostgresServer
from tests.lab.ssh_server import SshServer, ssh_server

__all__ = ["ssh_server"]


@pytest.fixture
def shop(wheel_postgres: PostgresServer, ssh_server: SshServer) -> Iterator[Migrated]:
    with migrated(wheel_postgres, **ssh_server.variables) as made:
        yield made


def test_a_schema_is_rolled_back_there_and_brought_back(shop: Migrated) -> None:
    before = shop.contents()
    run = shop.rollback("--type=schema", "--to-revision=base", "--allow-data-loss")
    assert run.status == 0, run.output
    assert shop.heads() == []
    assert run.named("rollback finished")[0]["outcome"]["undone"].keys() == {one.id for one in CHAIN}
    back = shop.recover("--undo")
    assert back.status == 0, back.output
    assert shop.contents() == before
    assert shop.project.litter() == []


def test_data_and_schema_go_back_to_a_backup(shop: Migrated) -> None:
    shop.back_up()
    before = shop.contents()
    shop.execute("DELETE FROM orders")
    run = shop.rollback("--type=data")
    assert run.status == 0, run.output
    assert shop.contents() == before
    assert shop.project.litter() == []
