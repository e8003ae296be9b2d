"""A plugin: one application with two backups, that a session's tests of verifications share.

A test module takes it in by `pytest_plugins = ["tests.lab.shelf"]`: the fixtures of a plugin are made once a session,
those that a module imports are its own.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest

from tests.lab.postgres_server import PostgresServer
from tests.lab.verifying import Shelf, running_shelf


@pytest.fixture(scope="session")
def untouched_shelf(wheel_postgres: PostgresServer) -> Iterator[Shelf]:
    """Two backups in a folder, that no test changes."""
    with running_shelf(wheel_postgres) as shelf:
        yield shelf


@pytest.fixture
def shelf(untouched_shelf: Shelf) -> Iterator[Shelf]:
    """The same with a store of one test's own, which may damage it; that and its inventory are gone afterwards."""
    yield untouched_shelf.copy()
    untouched_shelf.own.set()
    for copy in untouched_shelf.folder.parent.glob(f"{untouched_shelf.folder.name}-*"):
        shutil.rmtree(copy)
