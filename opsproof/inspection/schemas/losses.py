"""What a downgrade takes away, counted in the live database beforehand, and on the one that has gone through it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from psycopg import sql

from opsproof.system.postgres.copytext import Content
from opsproof.system.postgres.server import Connection, own_search_path
from opsproof.system.postgres.statement import Loss

WORDS = {"table": "table {}: {:,} rows", "column": "column {}: {:,} values", "rows": "rows of {}: up to {:,} change"}


@dataclass(frozen=True)
class Counted:
    """A loss, and how many rows of a table, or values of a column that are not NULL; None where it is not there."""

    loss: Loss
    count: int | None

    @property
    def shown(self) -> str:
        """Return it as a plan shows it."""
        if self.count is None:
            return f"{self.loss.kind} {self.loss.shown}: not there now, so counted on the rehearsal"
        return WORDS[self.loss.kind].format(self.loss.shown, self.count)


@dataclass(frozen=True)
class TableShape:
    """A table and its columns."""

    schema: str
    table: str
    columns: frozenset[str]


def count_losses(connection: Connection, losses: Iterable[Loss]) -> tuple[Counted, ...]:
    """Count what would be lost. Each is counted once, by the largest of its kinds.

    Args:
        connection: To the database that would lose it.
        losses: As the scripts name them.
    """
    wanted = tuple(dict.fromkeys(losses))
    with own_search_path(connection):
        return tuple(Counted(one, _count(connection, one)) for one in wanted)


def read_shape(connection: Connection) -> dict[str, TableShape]:
    """Return the tables of a database by their labels: schema and name, quoted where SQL needs it."""
    rows = connection.execute(
        "SELECT format('%I.%I', nspname, relname), nspname::text, relname::text,"
        " coalesce(array_agg(attname::text) FILTER (WHERE attnum > 0"
        " AND NOT attisdropped), '{}') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
        " LEFT JOIN pg_attribute ON attrelid = c.oid WHERE relkind IN ('r', 'p') AND nspname !~ '^pg_'"
        " AND nspname <> 'information_schema' GROUP BY 1, 2, 3"
    ).fetchall()
    return {label: TableShape(schema, table, frozenset(columns)) for label, schema, table, columns in rows}


def losses_between(before: Mapping[str, TableShape], after: Mapping[str, TableShape]) -> tuple[Loss, ...]:
    """Return the tables and columns that are gone."""
    lost: list[Loss] = []
    for label, one in sorted(before.items()):
        if label not in after:
            lost.append(Loss("table", one.schema, one.table))
            continue
        gone = one.columns - after[label].columns
        lost += [Loss("column", one.schema, one.table, column) for column in sorted(gone)]
    return tuple(lost)


def changed_rows(
    before: Mapping[str, Content], after: Mapping[str, Content], tables: Mapping[str, TableShape]
) -> tuple[Counted, ...]:
    """Return the tables whose rows are others afterwards, and how many rows they had.

    Args:
        before: Content of every table, by its label.
        after: The same after the downgrade.
        tables: Those whose columns are the same: only of those can the rows be compared.
    """
    return tuple(
        Counted(Loss("rows", one.schema, one.table), max(before[label].rows or 0, 1))
        for label, one in sorted(tables.items())
        if label in before and label in after and before[label] != after[label]
    )


def _count(connection: Connection, loss: Loss) -> int | None:
    row = connection.execute("SELECT to_regclass(%s)::text", (_name(loss).as_string(),)).fetchone()
    if row is None or row[0] is None:
        return None
    if loss.column is None:
        query = sql.SQL("SELECT count(*) FROM {}").format(_name(loss))
    else:
        there = connection.execute(
            "SELECT FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s AND NOT attisdropped",
            (row[0], loss.column),
        ).fetchone()
        if there is None:
            return None
        query = sql.SQL("SELECT count({}) FROM {}").format(sql.Identifier(loss.column), _name(loss))
    found = connection.execute(query).fetchone()
    return int(found[0]) if found else 0


def _name(loss: Loss) -> sql.Identifier:
    return sql.Identifier(loss.schema, loss.table) if loss.schema else sql.Identifier(loss.table)
