"""An application whose first release is live, made once for a module: `pytest_plugins = ["tests.lab.deployed"]`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.deployable import Deployable, deployable
from tests.lab.postgres_server import PostgresServer


@pytest.fixture(scope="module")
def first_deployed(wheel_postgres: PostgresServer) -> Iterator[Deployable]:
    """One whose first release is live."""
    with deployable(wheel_postgres) as shop:
        shop.must_deploy(shop.write_release("one"))
        yield shop


@pytest.fixture
def shop(first_deployed: Deployable) -> Iterator[Deployable]:
    """The same; whatever a test did to its inventory is taken back."""
    try:
        yield first_deployed
    finally:
        first_deployed.describe()
