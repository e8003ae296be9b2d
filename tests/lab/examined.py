"""A database that a check looks at, in which a test breaks what the check is for; and what the check says then."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest

from opsproof.errors import DatabaseError, ProofError
from opsproof.inspection.databases.looking import look_at
from opsproof.system.postgres.server import Connection
from opsproof.target import DatabaseAddress
from tests.lab.postgres_server import PostgresServer, Session

NUMBERED = "CREATE TABLE numbered (id serial PRIMARY KEY, word text)"


class Patient:
    """A database of a test's own: `db` is a check's connection, `root` the superuser's."""

    def __init__(self, server: PostgresServer, address: DatabaseAddress, root: Session, db: Connection) -> None:
        self.server, self.address, self.root, self.db = server, address, root, db

    def do(self, *statements: str) -> None:
        """Run statements as the superuser."""
        for statement in statements:
            self.root.execute(statement.encode())


@contextmanager
def patient_of(server: PostgresServer) -> Iterator[Patient]:
    """Make one on a server; it is gone after the block."""
    address = server.create_database(f"Check {secrets.token_hex(3)}")
    try:
        with server.connect(address.name) as root, look_at(address) as db:
            yield Patient(server, address, root, db)
    finally:
        server.drop_database(address.name)


@pytest.fixture
def patient(wheel_postgres: PostgresServer) -> Iterator[Patient]:
    """One on the newest server."""
    with patient_of(wheel_postgres) as made:
        yield made


@pytest.fixture
def either(postgres: PostgresServer) -> Iterator[Patient]:
    """On each server: for what asks another question of another version."""
    with patient_of(postgres) as made:
        yield made


@pytest.fixture
def nobody(either: Patient) -> Iterator[Connection]:
    """A check's connection as a role without any rights."""
    role = f"nobody_{secrets.token_hex(3)}"
    either.do(f"CREATE ROLE {role} LOGIN PASSWORD 'nothing'")
    try:
        with look_at(either.server.address(either.address.name, role, "nothing")) as db:
            yield db
    finally:
        either.do(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def message(check: Any, *arguments: Any, error: type[DatabaseError] | type[ProofError] = ProofError) -> str:
    """Return what a check says that fails; it says what to type."""
    with pytest.raises(error) as caught:
        check(*arguments)
    assert caught.value.hint
    assert caught.value.found
    return str(caught.value)


def run_anyway(connection: Session, query: str) -> None:
    """Run a query that may be cancelled, in a thread of its own."""
    with suppress(psycopg.Error):
        connection.execute(query.encode())
