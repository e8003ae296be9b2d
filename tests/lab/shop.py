"""A plugin: one application at rest with one backup, that a session's tests share.

A test module takes it in by `pytest_plugins = ["tests.lab.shop"]`: the fixtures of a plugin are made once a session,
those that a module imports are its own.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import Restorable, drop_others, restorable


@pytest.fixture(scope="session")
def backed_up_shop(wheel_postgres: PostgresServer) -> Iterator[Restorable]:
    """An application at rest, without a service, with a backup in a folder."""
    with restorable(wheel_postgres) as shop:
        yield shop


@pytest.fixture
def shop(backed_up_shop: Restorable) -> Iterator[Restorable]:
    """The same for one test: what that makes of databases, backups and the inventory is gone afterwards."""
    yield backed_up_shop
    drop_others(backed_up_shop.application)
    backed_up_shop.set()
    for path in backed_up_shop.project.store.rglob("*"):
        if path.is_file() and not path.name.startswith(f"{backed_up_shop.backup.id}."):
            path.unlink()
