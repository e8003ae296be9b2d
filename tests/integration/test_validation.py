"""What has to hold of a database, on real servers: each fault is found, all are told at once, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from opsproof.errors import ProofError
from opsproof.inspection.validation import Validated, validate
from opsproof.system.postgres.server import connect
from opsproof.target import DatabaseAddress, Query, Relation, ValidationSettings
from tests.lab.postgres_server import PostgresServer, Session

NAME = "validated shop"
STATEMENTS = (
    "CREATE SCHEMA sales",
    "CREATE TABLE customers (id int PRIMARY KEY, code text UNIQUE)",
    "INSERT INTO customers SELECT n, 'c' || n FROM generate_series(1, 3) n",
    "CREATE TABLE orders (id int PRIMARY KEY, customer int REFERENCES customers, code text)",
    "INSERT INTO orders VALUES (1, 1, 'c1'), (2, NULL, NULL)",
    'CREATE TABLE sales."Lines; %s" (a int, "b b" int, PRIMARY KEY (a, "b b"))',
    'INSERT INTO sales."Lines; %s" VALUES (1, 1)',
    'CREATE TABLE picks (x int, y int, CONSTRAINT pair FOREIGN KEY (y, x) REFERENCES sales."Lines; %s" ("b b", a))',
    "INSERT INTO picks VALUES (1, 1), (NULL, 7), (NULL, NULL)",
    "CREATE TABLE empty (id int)",
    f'ALTER DATABASE "{NAME}" SET search_path = public, sales',
)
ORPHANS = """
INSERT INTO orders VALUES (8, NULL, 'nobody'), (9, NULL, 'nobody else');
ALTER TABLE orders DROP CONSTRAINT orders_customer_fkey; UPDATE orders SET customer = 99 WHERE id = 1;
ALTER TABLE orders ADD CONSTRAINT later FOREIGN KEY (customer) REFERENCES customers NOT VALID;
ALTER TABLE picks DROP CONSTRAINT pair; INSERT INTO picks VALUES (1, 2), (2, 1), (NULL, 2);
ALTER TABLE picks ADD CONSTRAINT pair FOREIGN KEY (y, x) REFERENCES sales."Lines; %s" ("b b", a) NOT VALID;
"""


@pytest.fixture
def shop(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    yield postgres.create_database(NAME, *STATEMENTS)
    postgres.drop_database(NAME)


@pytest.fixture
def session(shop: DatabaseAddress, postgres: PostgresServer) -> Iterator[Session]:
    with postgres.connect(NAME) as session:
        yield session


def look(address: DatabaseAddress, **settings: Sequence[object]) -> Validated:
    with connect(address) as connection:
        return validate(connection, ValidationSettings(**{name: tuple(one) for name, one in settings.items()}))  # type: ignore[arg-type]


def faults(address: DatabaseAddress, **settings: Sequence[object]) -> list[str]:
    with pytest.raises(ProofError) as caught:
        look(address, **settings)
    found = caught.value.found.splitlines()
    assert f"{len(found)} fault{'s' if len(found) > 1 else ''}" in caught.value.summary
    assert caught.value.hint
    return found


def test_what_holds_is_counted(shop: DatabaseAddress) -> None:
    found = look(
        shop,
        tables=["customers", "public.orders", "sales.Lines; %s", "Lines; %s"],
        relations=[Relation("orders.code", "public.customers.code")],
        queries=[
            Query("SELECT count(*) FROM customers", "3"),
            Query("SELECT true;", "true"),
            Query("SELECT NULL", ""),
            Query("SELECT code FROM orders WHERE code LIKE 'c%'", "c1"),
            Query("WITH one AS (SELECT 1.50 AS n) SELECT n, 2 FROM one", "1.50"),
        ],
    )
    assert found == Validated(tables=4, relations=3, queries=5)


def test_a_table_that_is_not_there_or_is_empty_is_told(shop: DatabaseAddress) -> None:
    assert faults(shop, tables=["customers", "empty", "Customers", "sales.orders", "no.table"]) == [
        "table empty is empty",
        "table Customers is not there",
        "table sales.orders is not there",
        "table no.table is not there",
    ]


def test_orphans_are_found_by_keys_that_nobody_validated_and_by_relations(
    shop: DatabaseAddress, session: Session
) -> None:
    """Of a key of several columns, a row with a NULL among them points nowhere, as SQL has it."""
    session.execute(ORPHANS.encode())
    assert faults(shop, relations=[Relation("orders.code", "customers.code")]) == [
        "foreign key later of public.orders: 1 rows point to nothing",
        "foreign key pair of public.picks: 2 rows point to nothing",
        "relation orders.code to customers.code: 2 rows point to nothing",
    ]


def test_a_relation_that_cannot_be_looked_at_is_a_fault(shop: DatabaseAddress) -> None:
    assert faults(shop, relations=[Relation("orders.kode", "customers.code"), Relation("orders.id", "gone.id")]) == [
        "relation orders.kode to customers.code: column c.kode does not exist",
        'relation orders.id to gone.id: relation "gone" does not exist',
    ]


def test_an_answer_that_is_another_none_or_several_is_told(shop: DatabaseAddress) -> None:
    queries = [
        Query("SELECT count(*) FROM customers", "4"),
        Query("SELECT id FROM empty", "1"),
        Query("SELECT id FROM customers", "1"),
        Query("SELEKT 1", "1"),
        Query("SELECT 1/0", "1"),
        Query("SELECT id FROM gone", "1"),
        Query("SET work_mem = '1MB'", ""),
        Query("SELECT count(*) FROM orders", "2"),
    ]
    assert faults(shop, queries=queries) == [
        "SELECT count(*) FROM customers: 3, where 4 is expected",
        "SELECT id FROM empty: no row, where 1 is expected",
        "SELECT id FROM customers: several rows, where 1 is expected",
        'SELEKT 1: syntax error at or near "SELEKT"',
        "SELECT 1/0: division by zero",
        'SELECT id FROM gone: relation "gone" does not exist',
        "SET work_mem = '1MB': the last operation didn't produce records (command status: SET)",
    ]


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM orders RETURNING 1",
        "WITH gone AS (DELETE FROM orders RETURNING 1) SELECT 1",
        "CREATE TABLE more AS SELECT 1",
        "SELECT 1; DELETE FROM orders",
        "COMMIT; DELETE FROM orders",
        "COMMIT",
        "ROLLBACK; BEGIN READ WRITE; DELETE FROM public.orders; COMMIT; SELECT 1",
        "SET TRANSACTION READ WRITE",
        "SELECT nextval('counter')",
        "SELECT lo_create(77)",
        "SELECT wipe()",
    ],
)
def test_a_query_that_writes_has_written_nothing(shop: DatabaseAddress, session: Session, query: str) -> None:
    session.execute("CREATE SEQUENCE counter")
    session.execute("CREATE FUNCTION wipe() RETURNS int LANGUAGE sql AS 'DELETE FROM orders; SELECT 1'")
    # 15 lets a large object be made in a read-only transaction: that is undone with it.
    expected = "1" if "lo_create" not in query else "not this"
    (fault,) = faults(shop, queries=[Query(query, expected)])
    assert fault.startswith(query)
    state = "SELECT (SELECT count(*) FROM orders), (SELECT is_called FROM counter), to_regclass('more'),"
    found = session.execute(f"{state} (SELECT count(*) FROM pg_largeobject_metadata)".encode()).fetchone()
    assert found == (2, False, None, 0)


def test_a_key_over_periods_is_the_servers_own_to_keep(wheel_postgres: PostgresServer) -> None:
    """It asks for overlap, not for the same value."""
    statements = (
        "CREATE TABLE rooms (id int4range, at int4range, PRIMARY KEY (id, at WITHOUT OVERLAPS))",
        "CREATE TABLE stays (id int4range, at int4range, FOREIGN KEY (id, PERIOD at) REFERENCES rooms (id, PERIOD at))",
        "INSERT INTO rooms VALUES ('[1,1]', '[1,10)')",
        "INSERT INTO stays VALUES ('[1,1]', '[2,3)')",
    )
    address = wheel_postgres.create_database("periods of a shop", *statements)
    try:
        assert look(address) == Validated(0, 0, 0)
    finally:
        wheel_postgres.drop_database(address.name)
