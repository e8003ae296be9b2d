"""Tables of every shape in a database of a test's own, captured, restored and replayed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opsproof.system.postgres.copytext import Content
from opsproof.target import DatabaseAddress
from tests.lab.captured import (
    captured,
    clients_of,
    contents_of,
    make_database,
    read_fingerprints,
    replay,
    restore,
)
from tests.lab.postgres_server import PostgresServer


@pytest.fixture
def address(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    """An empty database; it and its copies are gone after the test."""
    try:
        yield make_database(postgres, "shapes")
    finally:
        for name in ("shapes", "copy", "replayed"):
            postgres.drop_database(name)


def fill(server: PostgresServer, address: DatabaseAddress, *statements: str) -> None:
    """Run statements in it as the superuser."""
    with server.connect(address.name) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def prove_copies(server: PostgresServer, address: DatabaseAddress, encoding: str = "UTF8") -> dict[str, Content]:
    """Capture, restore the dump, replay the SQL; return the contents, which all of them agree on."""
    clients = clients_of(server, address)
    with captured(clients) as capture:
        contents = dict(contents_of(capture))
        copies = [restore(server, capture, "copy", encoding), replay(server, capture, "replayed", encoding)]
    assert read_fingerprints(clients) == contents
    for copy in copies:
        assert read_fingerprints(clients_of(server, copy)) == contents
    return contents
