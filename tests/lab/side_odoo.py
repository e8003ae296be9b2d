"""A side database with an Odoo of production in it, to be neutralized."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.inspection.restores.neutralized import Identity
from opsproof.procedures.restore.neutralizing import Neutralized, Neutralizing, Purpose
from opsproof.system.hosts.host import Host
from opsproof.target import Connection, DatabaseAddress, Target
from tests.lab.odoo_tables import make_odoo
from tests.lab.postgres_server import PostgresServer
from tests.lab.targets import target_of

COPY = Purpose(copies=True, why="the backup is one of prod/erp")
Side = tuple[PostgresServer, DatabaseAddress]


@pytest.fixture
def side(postgres: PostgresServer) -> Iterator[Side]:
    """A database as production has it, of Odoo 14."""
    name = f"side_{secrets.token_hex(4)}"
    address = postgres.create_database(name)
    with postgres.connect(name) as connection:
        make_odoo(connection)
    yield postgres, address
    postgres.drop_database(name)


def neutralize(
    address: DatabaseAddress, target: Target, purpose: Purpose = COPY, live: Identity | None = None
) -> Neutralized:
    """Neutralize it, as a restore into this target would."""
    return Neutralizing(target, Host(Connection()), purpose, live).perform(address)


def target_for(address: DatabaseAddress, folder: Path, **changes: object) -> Target:
    """Return the target whose live database is another one of the same server."""
    return replace(target_of(folder, database=replace(address, name="live")), **changes)  # type: ignore[arg-type]
