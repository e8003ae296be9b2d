"""What a text of SQL takes away, in the corners of the language: names, comments, CASCADE, what is no statement."""

from __future__ import annotations

import pytest

from opsproof.system.postgres.statement import Loss, Statements, read_statements


@pytest.mark.parametrize(
    ("text", "losses"),
    [
        ('DROP TABLE IF EXISTS "Weird; T" RESTRICT', [Loss("table", None, "Weird; T")]),
        ('DROP TABLE "a""b"', [Loss("table", None, 'a"b')]),
        ("DROP TABLE Orders, Sales.Lines", [Loss("table", None, "orders"), Loss("table", "sales", "lines")]),
        ('ALTER TABLE "S".t DROP COLUMN "Straße" CASCADE', [Loss("column", "S", "t", "Straße")]),
        ("ALTER TABLE ONLY s.t DROP x, DROP IF EXISTS y",
         [Loss("column", "s", "t", "x"), Loss("column", "s", "t", "y")]),
        ("ALTER TABLE t DROP COLUMN column_a, ADD COLUMN b int", [Loss("column", None, "t", "column_a")]),
        ("DELETE FROM ONLY t WHERE id = :id", [Loss("rows", None, "t")]),
        ("DELETE FROM t WHERE id = %(id)s", [Loss("rows", None, "t")]),
        ("UPDATE ONLY s.t AS q SET a = 1 FROM z", [Loss("rows", "s", "t")]),
        ("WITH x AS (UPDATE t SET a = 1 RETURNING *) SELECT * FROM x", [Loss("rows", None, "t")]),
        ("MERGE INTO t USING u ON t.i = u.i WHEN MATCHED THEN DELETE", [Loss("rows", None, "t")]),
        ("INSERT INTO s.t (i) SELECT i FROM u ON CONFLICT (i) DO UPDATE SET x = 1", [Loss("rows", "s", "t")]),
        ("TRUNCATE a, s.b RESTART IDENTITY", [Loss("rows", None, "a"), Loss("rows", "s", "b")]),
        ("-- all of it\nDROP TABLE a; /* and */ DELETE FROM b", [Loss("table", None, "a"), Loss("rows", None, "b")]),
    ],
)  # fmt: skip
def test_what_is_lost_is_named_as_the_server_has_it(text: str, losses: list[Loss]) -> None:
    assert read_statements(text) == Statements(losses)


@pytest.mark.parametrize(
    "text",
    [
        "", " ;; ", "-- DROP TABLE x", "/* DROP TABLE x */", "SELECT 'DROP TABLE x; DELETE FROM y'",
        "SELECT count(*), max(now()) FROM t", "TABLE t", "VALUES (1)", "INSERT INTO t SELECT * FROM u",
        "INSERT INTO t VALUES (1) ON CONFLICT DO NOTHING", "ALTER TABLE t RENAME COLUMN a TO b",
        "ALTER TABLE t DROP CONSTRAINT c", "DROP INDEX i", "DROP VIEW v CASCADE", "DROP TYPE mood", "DROP DOMAIN d",
        "DROP FUNCTION f(int)", "LOCK TABLE t", "SAVEPOINT a", "NOTIFY shop", "SET LOCAL lock_timeout = 1",
        "CREATE FUNCTION f() RETURNS void LANGUAGE sql AS $$ DELETE FROM t $$",
    ],
)  # fmt: skip
def test_what_takes_nothing_away_says_nothing(text: str) -> None:
    assert read_statements(text) == Statements()


@pytest.mark.parametrize(
    "text",
    [
        "VACUUM t", "-- to be quick\nVACUUM t", "CLUSTER", "CLUSTER t", "REINDEX INDEX CONCURRENTLY i",
        "CREATE INDEX CONCURRENTLY i ON t (a)", "DROP INDEX CONCURRENTLY i", "BEGIN", "START TRANSACTION", "COMMIT",
        "END", "ROLLBACK", "ABORT", "PREPARE TRANSACTION 'x'", "ALTER SYSTEM SET work_mem = 1", "CREATE DATABASE x",
        f"ALTER TABLE a_schema.{'long' * 12} DETACH PARTITION p CONCURRENTLY",
    ],
)  # fmt: skip
def test_what_no_transaction_can_hold_is_told(text: str) -> None:
    found = read_statements(text)
    assert len(found.not_atomic) == 1
    assert (found.losses, found.opaque) == ([], [])


@pytest.mark.parametrize(
    "text",
    [
        "DROP SCHEMA s", "DROP EXTENSION e", "DROP OWNED BY r", "DROP FOREIGN TABLE f", "DROP TYPE mood CASCADE",
        "DROP DOMAIN d CASCADE", "DROP FUNCTION f() CASCADE", "CALL forget()", "SELECT lo_unlink(1)",
        "SELECT * FROM forget_all()", "EXPLAIN ANALYZE DELETE FROM t", "ALTER TABLE t DETACH PARTITION p",
        "ALTER TABLE t ALTER COLUMN c TYPE int USING c::int", "DROP TABLE", "DO $$ BEGIN END $$",
    ],
)  # fmt: skip
def test_what_may_take_anything_away_is_opaque(text: str) -> None:
    found = read_statements(text)
    assert len(found.opaque) == 1
    assert (found.losses, found.not_atomic) == ([], [])


def test_a_truncation_with_cascade_is_a_loss_and_may_be_more() -> None:
    assert read_statements("TRUNCATE a CASCADE") == Statements([Loss("rows", None, "a")], ["TRUNCATE TABLE a CASCADE"])


def test_a_transaction_of_its_own_is_told_beside_what_it_takes_away() -> None:
    found = read_statements("BEGIN; DROP TABLE t; COMMIT")
    assert (found.losses, found.not_atomic) == ([Loss("table", None, "t")], ["BEGIN", "COMMIT"])


def test_a_long_statement_is_shown_by_its_beginning() -> None:
    (shown,) = read_statements(f"CALL forget({', '.join(map(str, range(99)))})").opaque
    assert len(shown) == 60
    assert shown.startswith("CALL forget(0, 1,")
    assert shown.endswith("...")


@pytest.mark.parametrize(
    ("loss", "shown"),
    [(Loss("rows", None, "t"), "t"), (Loss("table", "s", "t"), "s.t"), (Loss("column", "s", "t", "c"), "s.t.c")],
)
def test_a_loss_is_shown_with_all_that_is_known_of_its_name(loss: Loss, shown: str) -> None:
    assert loss.shown == shown
