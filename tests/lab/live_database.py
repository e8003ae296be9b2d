"""A database `shelf` of an ordinary owner, whose side database tests make, shape and drop."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg import sql

from opsproof.archive.manifest import DatabaseRecord, Extension, Setting
from opsproof.system.postgres.databases import database_exists, drop_database, side_name
from opsproof.system.postgres.server import DatabaseFacts, connect, describe_database
from opsproof.target import DatabaseAddress
from tests.lab.postgres_server import PostgresServer

SIDE = side_name("shelf", datetime(2026, 1, 31, 2, 0, 0, tzinfo=UTC))
PASSWORD = "x-secret"
ROLES = ("shelf_owner", "shelf_reader", 'odd "role" ß', "shelf_stranger")


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server with a database `shelf` of `shelf_owner`, who may create databases, and roles beside."""
    with postgres.connect() as connection:
        for role in ROLES:
            query = "CREATE ROLE {} LOGIN PASSWORD {}"
            connection.execute(sql.SQL(query).format(sql.Identifier(role), PASSWORD))
        connection.execute("ALTER ROLE shelf_owner CREATEDB")
        postgres.create_database("shelf", owner="shelf_owner")
        yield postgres
        for name in (SIDE, "shelf", "shelf_like"):
            if database_exists(connection, name):
                drop_database(connection, name, even_live=True)
        for role in ROLES:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def as_owner(server: PostgresServer, role: str = "shelf_owner") -> DatabaseAddress:
    """Return the address of `shelf` for one of its roles."""
    return server.address("shelf", role, PASSWORD)


def facts_of(server: PostgresServer, name: str) -> DatabaseFacts:
    """Return what the server says of a database."""
    with connect(server.address(name)) as connection:
        return describe_database(connection)


def record_of(facts: DatabaseFacts) -> DatabaseRecord:
    """Return what a manifest says of it."""
    words: dict[str, Any] = vars(facts) | {
        "settings": tuple(Setting(role=role, setting=line) for role, line in facts.settings),
        "extensions": tuple(Extension(name=n, version=v, schema_name=s) for n, v, s in facts.extensions),
    }
    return DatabaseRecord(**words)
