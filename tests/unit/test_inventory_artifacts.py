"""What a cleanup removes, as an inventory says it: no pattern and no statement may take the application's own."""

from __future__ import annotations

import pytest

from tests.lab.inventories import made, refused


@pytest.mark.parametrize("pattern", ["*", "?*", "public.*", "a*", "*_*", "*.*", "audit.?b*", ""])
def test_a_pattern_that_takes_the_application_s_tables_is_refused(pattern: str) -> None:
    assert "must have at least 3 letters or digits" in refused(artifacts={"tables": [pattern]}).found


@pytest.mark.parametrize("pattern", ["a.b.temp", ".temp", "temp\n"])
def test_a_pattern_is_of_a_table_or_of_a_schema_and_a_table(pattern: str) -> None:
    assert "must be table or schema.table" in refused(artifacts={"tables": [pattern]}).found


@pytest.mark.parametrize(
    ("sql", "problem"),
    [
        ("DELETE FROM hush", "WHERE true"),
        ("DELETE FROM hush -- where it is old", "WHERE true"),
        ("DELETE FROM hush /* where */ RETURNING ' where '", "WHERE true"),
        ("DROP TABLE hush", "must be DELETE FROM"),
        ("UPDATE hush SET x = 1 WHERE true", "must be DELETE FROM"),
        ("DELETE FROM hush WHERE true; COMMIT", "must be one statement"),
        ("", "must be DELETE FROM"),
    ],
)
def test_rows_are_deleted_by_a_statement_that_says_which(sql: str, problem: str) -> None:
    assert problem in refused(artifacts={"rows": sql}).found


def test_rows_may_be_chosen_by_a_query() -> None:
    sql = "with old as (select id from log where day < now() - interval '30d')\ndelete from log using old where true"
    assert made(artifacts={"rows": [sql, "delete\nfrom mail where true ;"]}).policies.artifacts.rows == (
        sql,
        "delete\nfrom mail where true",
    )
