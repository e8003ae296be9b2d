"""Drift of a schema, by what pg_dump prints of two real databases: what counts, what does not, what is only told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest

from opsproof.inspection.schemas.drift import is_empty, list_drift, list_extension_drift
from opsproof.system.postgres.catalog import read_schema
from opsproof.system.postgres.schematext import Schema
from tests.lab.captured import clients_of
from tests.lab.postgres_server import PostgresServer

NAME = "drifted shop"
TABLE = "versions of it"
MADE = (
    f'CREATE TABLE "{TABLE}" (version_num varchar(32) PRIMARY KEY)',
    "CREATE TYPE mood AS ENUM ('glad', 'sad')",
    "CREATE TABLE orders (id serial PRIMARY KEY, name text DEFAULT 'a,b', total int CHECK (total > 0), note text)",
    "CREATE INDEX by_name ON orders (name)",
)

Compare = Callable[..., list[str]]


def schema_of(server: PostgresServer, *statements: str) -> Schema:
    """Return the schema that statements make of an empty database."""
    address = server.create_database(NAME)
    try:
        with server.connect(NAME) as connection:
            for statement in statements:
                connection.execute(statement.encode())
        return read_schema(clients_of(server, address))
    finally:
        server.drop_database(NAME)


@pytest.fixture(scope="module")
def made(postgres: PostgresServer) -> Schema:
    return schema_of(postgres, *MADE)


@pytest.fixture
def drift(postgres: PostgresServer, made: Schema) -> Iterator[Compare]:
    """Return the drift that more statements make."""
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE drift_reader")
    try:
        yield lambda *more: list_drift(made, schema_of(postgres, *MADE, *more), TABLE)
    finally:
        with postgres.connect() as connection:
            connection.execute("DROP ROLE drift_reader")


@pytest.mark.parametrize(
    "statements",
    [
        ("ALTER TABLE orders DROP name, ADD name text DEFAULT 'a,b'", "CREATE INDEX by_name ON orders (name)"),
        ("GRANT SELECT ON orders TO drift_reader", "ALTER TABLE orders OWNER TO drift_reader",
         "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO drift_reader"),
        (f'ALTER TABLE "{TABLE}" ALTER version_num TYPE varchar(255), ADD CHECK (version_num > \'\')',),
        ("CREATE PUBLICATION news FOR TABLE orders",),
        ("INSERT INTO orders (name) VALUES ('x')", "SELECT setval('orders_id_seq', 99)"),
    ],
    ids=["a column's place", "owners and grants", "Alembic's own table", "the administrator's", "rows"],
)  # fmt: skip
def test_what_is_no_drift(drift: Compare, statements: tuple[str, ...]) -> None:
    found = drift(*statements, "ALTER TABLE orders OWNER TO postgres; DROP OWNED BY drift_reader")
    assert found == []


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("CREATE TYPE colour AS ENUM ('red')", ["TYPE public.colour: extra: CREATE TYPE public.colour AS ENUM ("]),
        ("ALTER TYPE mood ADD VALUE 'cross'", ["TYPE public.mood: extra: 'cross'"]),
        ("ALTER TABLE orders ADD by_hand int", ["TABLE public.orders: extra: by_hand integer"]),
        ("ALTER TABLE orders DROP note", ["TABLE public.orders: missing: note text"]),
        ("ALTER TABLE orders ALTER note SET NOT NULL", ["missing: note text", "extra: note text NOT NULL"]),
        ("DROP INDEX by_name", ["INDEX public.by_name: missing: CREATE INDEX by_name ON public.orders"]),
        ("CREATE VIEW v AS SELECT 1 AS one", ["VIEW public.v: extra: CREATE VIEW public.v AS"]),
        ("ALTER TABLE orders ALTER name SET DEFAULT 'b,a'", ["DEFAULT 'a,b'::text", "DEFAULT 'b,a'::text"]),
        (f'CREATE TABLE "{TABLE} too" (id int)', [f"TABLE public.{TABLE} too: extra: CREATE TABLE"]),
        ("COMMENT ON COLUMN orders.note IS 'by hand'", ["COLUMN orders.note", "by hand"]),
    ],
)  # fmt: skip
def test_what_drift_is(drift: Compare, statement: str, told: list[str]) -> None:
    found = "\n".join(drift(statement))
    for words in told:
        assert words in found


def test_an_extension_is_only_told(drift: Compare, postgres: PostgresServer, made: Schema) -> None:
    """It is the administrator's to install; what it brings is its own."""
    assert drift("CREATE EXTENSION hstore") == []
    with_it = schema_of(postgres, *MADE, "CREATE EXTENSION hstore")
    told = partial(list_extension_drift, made)
    assert told(with_it) == ["extension hstore is extra"]
    assert list_extension_drift(with_it, made) == ["extension hstore is missing"]
    assert told(made) == []


def test_a_schema_is_empty_that_has_no_table_but_alembics(postgres: PostgresServer, made: Schema) -> None:
    assert is_empty(schema_of(postgres, MADE[0], MADE[1]), TABLE)
    assert not is_empty(made, TABLE)
    assert not is_empty(made, "alembic_version")
