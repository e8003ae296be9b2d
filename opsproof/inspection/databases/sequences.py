"""Sequences that are behind their column: the next row that takes a number from one gets one that is taken."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from opsproof.inspection.databases.looking import Unanswered, ask, explain, require_none
from opsproof.system.postgres.server import Connection

AT_ONCE = 50
SECONDS = 5.0
SECONDS_OF_ALL = 60.0
KEPT_READING = (psycopg.errors.QueryCanceled, psycopg.errors.LockNotAvailable, psycopg.errors.UndefinedTable,
                psycopg.errors.UndefinedColumn, psycopg.errors.InsufficientPrivilege)  # fmt: skip

# Why a maximum is not asked for: without an index that begins with the column it takes a read of the whole table.
OWNED = """
SELECT n.nspname, s.relname, tn.nspname, t.relname, a.attname, q.seqincrement, t.relkind = 'p',
       CASE WHEN q.seqcycle THEN 'it begins again at its end'
            WHEN NOT has_sequence_privilege(s.oid, 'SELECT') OR NOT has_column_privilege(t.oid, a.attnum, 'SELECT')
                 OR NOT has_schema_privilege(tn.oid, 'USAGE') OR NOT has_schema_privilege(n.oid, 'USAGE')
            THEN 'the role may not read it'
            WHEN row_security_active(t.oid) THEN 'row-level security hides rows'
            WHEN t.relkind = 'r' AND t.relhassubclass THEN 'its table has children'
            WHEN NOT EXISTS (SELECT FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid
                               JOIN pg_am am ON am.oid = ic.relam
                              WHERE i.indrelid = t.oid AND i.indkey[0] = a.attnum AND i.indisvalid
                                AND i.indpred IS NULL AND am.amname = 'btree')
            THEN 'no index begins with the column'
            ELSE '' END
  FROM pg_depend d JOIN pg_class s ON s.oid = d.objid AND s.relkind = 'S' JOIN pg_namespace n ON n.oid = s.relnamespace
  JOIN pg_sequence q ON q.seqrelid = s.oid JOIN pg_class t ON t.oid = d.refobjid
  JOIN pg_namespace tn ON tn.oid = t.relnamespace
  JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = d.refobjsubid JOIN pg_type y ON y.oid = a.atttypid
 WHERE d.classid = 'pg_class'::regclass AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')
   AND s.relpersistence <> 't' AND t.relkind IN ('r', 'p') AND y.typcategory = 'N'
 ORDER BY 1, 2
"""


@dataclass(frozen=True)
class _Owned:
    schema: str
    name: str
    table_schema: str
    table: str
    column: str
    increment: int
    is_partitioned: bool
    objection: str

    @property
    def label(self) -> str:
        column = sql.Identifier(self.table_schema, self.table, self.column).as_string()
        return f"{sql.Identifier(self.schema, self.name).as_string()} of {column}"

    def farthest(self) -> sql.Composed:
        """Return the query of the farthest number that the column has."""
        only = sql.SQL("" if self.is_partitioned else "ONLY ")
        farthest = sql.SQL("max" if self.increment > 0 else "min")
        return sql.SQL("SELECT {}({})::numeric FROM {}{}").format(
            farthest, sql.Identifier(self.column), only, sql.Identifier(self.table_schema, self.table)
        )

    def next(self) -> sql.Composed:
        """Return the query of the number that it gives out next."""
        value = sql.SQL("SELECT last_value + CASE WHEN is_called THEN {}::numeric ELSE 0 END FROM {}")
        return value.format(sql.Literal(self.increment), sql.Identifier(self.schema, self.name))


def check_sequences(connection: Connection) -> tuple[str, ...]:
    """Make sure that every sequence of a serial or identity column gives out numbers that the column has not reached.

    The column's farthest number is asked for where an index begins with it, for at most 5 seconds, and of all for about
    a minute.

    Returns:
        A line for each sequence that could not be looked at, and why.

    Raises:
        ProofError: One is behind.
        Unanswered: None could be looked at.
    """
    owned = [_Owned(*row) for row in ask(connection, OWNED)]
    unknown = [f"{one.label}: {one.objection}" for one in owned if one.objection]
    asked = [one for one in owned if not one.objection]
    behind, hints = [], []
    deadline = time.monotonic() + SECONDS_OF_ALL
    for start in range(0, len(asked), AT_ONCE):
        for one, farthest, following in _read(connection, asked[start : start + AT_ONCE], unknown, deadline):
            if farthest is None or (following > farthest if one.increment > 0 else following < farthest):
                continue
            word = "down to" if one.increment < 0 else "up to"
            behind.append(f"{one.label}: {following} comes next, the column has {word} {farthest}")
            name = sql.Literal(sql.Identifier(one.schema, one.name).as_string()).as_string()
            hints.append(f"SELECT setval({name}, {farthest});")
    require_none(
        "Sequences are behind their columns: new rows will be refused, or get a number a second time",
        "a next number that the column has not reached",
        behind,
        hints,
        [f"{len(unknown)} others were not looked at"] if unknown else [],
    )
    if unknown and len(unknown) == len(owned):
        raise Unanswered(
            "No sequence could be held against its column",
            found="\n".join(unknown[:10]),
            hint="an index that begins with the column, and a role that may read it",
        )
    return tuple(unknown)


def _read(
    connection: Connection, batch: Sequence[_Owned], unknown: list[str], deadline: float
) -> Iterator[tuple[_Owned, Any, Any]]:
    """Yield each sequence, its column's farthest number and the one that it gives out next."""
    if time.monotonic() > deadline:
        unknown += [f"{one.label}: no time was left" for one in batch]
        return
    # The columns first: the sequence may only go on in between, which is no fault.
    try:
        farthest = _ask_all(connection, [one.farthest() for one in batch])
        following = _ask_all(connection, [one.next() for one in batch])
    except KEPT_READING as error:
        if len(batch) == 1:
            unknown.append(f"{batch[0].label}: {str(error).strip().splitlines()[0]}")
            return
        for one in batch:
            yield from _read(connection, [one], unknown, deadline)
        return
    except psycopg.Error as error:
        raise explain(connection, error) from error
    yield from zip(batch, farthest, following, strict=True)


def _ask_all(connection: Connection, queries: Sequence[sql.Composed]) -> list[Any]:
    """Return the answers of queries of one value, in their order, in one statement."""
    numbered = [sql.SQL("SELECT {}, ({})").format(sql.Literal(number), query) for number, query in enumerate(queries)]
    with connection.transaction():
        connection.execute("SELECT set_config('statement_timeout', %s, true)", (f"{SECONDS * 1000:.0f}",))
        rows = connection.execute(sql.SQL(" UNION ALL ").join(numbered)).fetchall()
    return [value for _, value in sorted(rows, key=lambda row: int(row[0]))]
