"""A scratch database: empty but for what the migrations make of it, to see what schema that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from psycopg import sql

from opsproof.archive.manifest import DatabaseRecord
from opsproof.journal import Journal
from opsproof.system.alembic.migrations import Migrations, place_of
from opsproof.system.postgres.catalog import read_schema
from opsproof.system.postgres.databases import create_side, scratch_name
from opsproof.system.postgres.dump import Clients
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.schematext import Schema
from opsproof.system.postgres.scratch import claimed, drop_scratch
from opsproof.system.postgres.server import DatabaseFacts, connect


def schemas_of(
    clients: Clients,
    shape: DatabaseFacts | DatabaseRecord,
    migrations: Migrations,
    stops: Sequence[Sequence[str]],
    moment: datetime,
    journal: Journal,
    version_schema: str | None = None,
) -> list[Schema]:
    """Return the schemas that the migrations make of an empty database, at each of several stops on their way up.

    Args:
        clients: PostgreSQL's programs, with the address of the live database.
        shape: Whose owner, encoding and locale the scratch database gets.
        migrations: The application's.
        stops: The heads of each stop, in the order in which they are reached.
        moment: For the scratch database's name.
        journal: What happened.
        version_schema: Where env.py wants Alembic's own table, if not on the search path: no migration can make that.

    Raises:
        MigrationError: The migrations do not run on an empty database.
        DatabaseError: The server refused.
    """
    schemas = []
    with journal.phase("scratch"), _scratch(clients, shape, moment) as name:
        scratch = replace(clients, address=replace(clients.address, name=name))
        if version_schema is not None:
            with connect(scratch.address) as connection:
                connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(version_schema)))
                connection.commit()
        place = place_of(clients.address, name)
        for heads in stops:
            if heads:
                migrations.upgrade(place, heads, settings={"application_name": "opsproof scratch"})
            schemas.append(read_schema(scratch))
    return schemas


@contextmanager
def _scratch(clients: Clients, shape: DatabaseFacts | DatabaseRecord, moment: datetime) -> Iterator[str]:
    name = scratch_name(clients.address.name, moment)
    with claimed(clients.address, name):
        try:
            with maintenance(clients.address) as connection:
                create_side(connection, name, shape, like=clients.address.name)
            yield name
        finally:
            with maintenance(clients.address) as connection:
                drop_scratch(connection, name)
