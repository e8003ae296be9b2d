"""What a downgrade would take away, counted on a real server: names in schemas, in quotes, and of what is not there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opsproof.inspection.schemas.losses import (
    Counted,
    TableShape,
    changed_rows,
    count_losses,
    losses_between,
    read_shape,
)
from opsproof.system.postgres.copytext import Content
from opsproof.system.postgres.server import connect
from opsproof.system.postgres.statement import Loss
from opsproof.target import DatabaseAddress
from tests.lab.postgres_server import PostgresServer

NAME = "losses of a shop"
STATEMENTS = (
    "CREATE TABLE orders (id int, total int, note text)",
    "INSERT INTO orders SELECT n, CASE WHEN n % 2 = 0 THEN n END FROM generate_series(1, 10) n",
    "CREATE SCHEMA sales",
    "CREATE TABLE sales.orders AS SELECT 1 AS id",
    'CREATE SCHEMA "Weird; s"',
    'CREATE TABLE "Weird; s"."T ""t"" %s" ("C %s" int, gone int)',
    'INSERT INTO "Weird; s"."T ""t"" %s" VALUES (1), (2), (NULL)',
    'ALTER TABLE "Weird; s"."T ""t"" %s" DROP COLUMN gone',
    "CREATE TABLE parts (day date) PARTITION BY RANGE (day)",
    "CREATE TABLE parts_all PARTITION OF parts DEFAULT",
    "INSERT INTO parts SELECT now() FROM generate_series(1, 3)",
    "CREATE TABLE nothing ()",
    f'ALTER DATABASE "{NAME}" SET search_path = sales',
)
WEIRD = 'T "t" %s'


@pytest.fixture(scope="module")
def shop(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    postgres.drop_database(NAME)
    yield postgres.create_database(NAME, *STATEMENTS)
    postgres.drop_database(NAME)


@pytest.mark.parametrize(
    ("loss", "count", "shown"),
    [
        (Loss("table", "public", "orders"), 10, "table public.orders: 10 rows"),
        (Loss("table", None, "orders"), 1, "table orders: 1 rows"),
        (Loss("column", "public", "orders", "total"), 5, "column public.orders.total: 5 values"),
        (Loss("column", "public", "orders", "note"), 0, "column public.orders.note: 0 values"),
        (Loss("rows", "public", "orders"), 10, "rows of public.orders: up to 10 change"),
        (Loss("table", "Weird; s", WEIRD), 3, f"table Weird; s.{WEIRD}: 3 rows"),
        (Loss("column", "Weird; s", WEIRD, "C %s"), 2, f"column Weird; s.{WEIRD}.C %s: 2 values"),
        (Loss("table", "public", "parts"), 3, "table public.parts: 3 rows"),
    ],
)
def test_what_is_there_is_counted(shop: DatabaseAddress, loss: Loss, count: int, shown: str) -> None:
    """Without a schema it is what the application's own search path finds."""
    with connect(shop) as connection:
        (found,) = count_losses(connection, [loss, loss])
    assert (found, found.shown) == (Counted(loss, count), shown)


@pytest.mark.parametrize(
    "loss",
    [
        Loss("table", None, "parts"),
        Loss("table", "no such schema", "orders"),
        Loss("table", "public", "Orders"),
        Loss("column", "public", "orders", "Total"),
        Loss("column", "public", "no_table", "total"),
        Loss("column", "Weird; s", WEIRD, "gone"),
    ],
)
def test_what_is_not_there_is_left_to_the_rehearsal(shop: DatabaseAddress, loss: Loss) -> None:
    with connect(shop) as connection:
        (found,) = count_losses(connection, [loss])
        # The connection goes on as it was.
        assert connection.execute("SELECT current_setting('search_path')").fetchone() == ("",)
    assert found == Counted(loss, None)
    assert found.shown == f"{loss.kind} {loss.shown}: not there now, so counted on the rehearsal"


def test_tables_and_columns_that_are_gone_are_found_whatever_their_names(shop: DatabaseAddress) -> None:
    with connect(shop) as connection:
        before = read_shape(connection)
        with connection.transaction(force_rollback=True):
            connection.execute('DROP TABLE "Weird; s"."T ""t"" %s"')
            connection.execute("ALTER TABLE public.orders DROP COLUMN total, ADD COLUMN sum int")
            connection.execute("DROP TABLE public.parts, public.nothing")
            connection.execute("CREATE TABLE sales.more (id int)")
            after = read_shape(connection)
    assert before["public.orders"] == TableShape("public", "orders", frozenset({"id", "total", "note"}))
    assert before["public.nothing"].columns == frozenset()
    assert losses_between(before, before) == ()
    assert losses_between(before, after) == (
        Loss("table", "Weird; s", WEIRD),
        Loss("table", "public", "nothing"),
        Loss("column", "public", "orders", "total"),
        Loss("table", "public", "parts"),
        Loss("table", "public", "parts_all"),
    )


def test_rows_are_compared_only_where_the_columns_are_the_same() -> None:
    tables = {name: TableShape("public", name, frozenset({"id"})) for name in ("same", "fewer", "emptied", "new")}
    before = {name: Content(10, "aa") for name in ("same", "fewer", "emptied", "another shape")}
    after = {**before, "fewer": Content(9, "bb"), "emptied": Content(0, "cc"), "new": Content(1, "dd")}
    after["another shape"] = Content(0, "cc")
    assert changed_rows(before, after, tables) == (
        Counted(Loss("rows", "public", "emptied"), 10),
        Counted(Loss("rows", "public", "fewer"), 10),
    )


def test_rows_that_came_to_an_empty_table_are_a_change_too() -> None:
    table = {"t": TableShape("public", "t", frozenset())}
    (changed,) = changed_rows({"t": Content(0, "aa")}, {"t": Content(5, "bb")}, table)
    assert changed.count == 1
