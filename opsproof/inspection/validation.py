"""What has to hold of a database once it was replaced or changed: tables with rows, relations, answers to queries."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import psycopg
from psycopg import sql

from opsproof.errors import ProofError
from opsproof.inspection.restores.sameness import list_first
from opsproof.system.postgres.server import Connection, own_search_path
from opsproof.target import Relation, ValidationSettings


@dataclass(frozen=True)
class Validated:
    """How much was looked at, and found in order."""

    tables: int
    relations: int
    queries: int


@dataclass(frozen=True)
class _Key:
    """Columns of one table whose values have to be found in columns of another."""

    name: str
    child: sql.Identifier
    columns: tuple[str, ...]
    parent: sql.Identifier
    parent_columns: tuple[str, ...]


def find_orphans(connection: Connection, *, unproven: bool = False) -> frozenset[str]:
    """Return the foreign keys of a database that do not hold, a line each: as may be of one that is NOT VALID.

    Args:
        connection: To the database.
        unproven: Look only at those that the server itself has not looked at: of a database that was just loaded.
    """
    keys = _foreign_keys(connection, unproven=unproven)
    return frozenset(fault for key in keys for fault in _look_for_orphans(connection, key))


def validate(
    connection: Connection,
    settings: ValidationSettings,
    known: frozenset[str] = frozenset(),
    *,
    foreign_keys: bool = True,
) -> Validated:
    """Look at all that the settings name, and at every foreign key.

    Args:
        connection: To the database.
        settings: Of the inventory.
        known: The orphans that were there before, as `find_orphans` told them: those are no fault of anybody now.
        foreign_keys: Whether those are looked at, too: not where `find_orphans` has just done that.

    Raises:
        ProofError: Something does not hold; everything that does not is told at once.
    """
    keys = [*(_foreign_keys(connection) if foreign_keys else ()), *map(_key_of, settings.relations)]
    with own_search_path(connection):
        faults = [
            *_look_at_tables(connection, settings.tables),
            *(fault for key in keys for fault in _look_for_orphans(connection, key)),
            *_ask(connection, settings),
        ]
    faults = [fault for fault in faults if fault not in known]
    if faults:
        raise ProofError(
            f"The database does not hold what it must: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}",
            expected="tables with rows, no orphans, and the expected answers (`validation` in the inventory)",
            found=list_first(faults, 20),
            hint="look at the faults; correct `validation` where it is what is wrong",
        )
    return Validated(len(settings.tables), len(keys), len(settings.queries))


def _look_at_tables(connection: Connection, tables: tuple[str, ...]) -> Iterator[str]:
    for table in tables:
        name = _identifier(table)
        found = _value(connection, sql.SQL("SELECT to_regclass({})").format(sql.Literal(name.as_string())))
        if found is None:
            yield f"table {table} is not there"
        elif not _value(connection, sql.SQL("SELECT EXISTS (SELECT FROM {})").format(name)):
            yield f"table {table} is empty"


def _look_for_orphans(connection: Connection, key: _Key) -> Iterator[str]:
    pairs = zip(key.columns, key.parent_columns, strict=True)
    joined = sql.SQL(" AND ").join(
        sql.SQL("p.{} = c.{}").format(sql.Identifier(parent), sql.Identifier(child)) for child, parent in pairs
    )
    given = sql.SQL(" AND ").join(sql.SQL("c.{} IS NOT NULL").format(sql.Identifier(column)) for column in key.columns)
    query = sql.SQL("SELECT count(*) FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})").format(
        key.child, given, key.parent, joined
    )
    try:
        with connection.transaction():
            orphans = _value(connection, query)
    except psycopg.Error as error:
        yield f"{key.name}: {_first_line(error)}"
        return
    if orphans:
        yield f"{key.name}: {orphans:,} rows point to nothing"


def _ask(connection: Connection, settings: ValidationSettings) -> Iterator[str]:
    for query in settings.queries:
        try:
            # Whatever it does is undone: it is there to look.
            with connection.transaction(force_rollback=True):
                connection.execute("SET TRANSACTION READ ONLY")
                # Prepared, so that it is one statement: a COMMIT before another would end the transaction.
                rows = connection.execute(query.sql.encode(), prepare=True).fetchmany(2)
        except psycopg.Error as error:
            yield f"{query.sql}: {_first_line(error)}"
            continue
        found = "no row" if not rows else "several rows" if len(rows) > 1 else _shown(rows[0][0])
        if found != query.expected:
            yield f"{query.sql}: {found}, where {query.expected} is expected"


def _foreign_keys(connection: Connection, *, unproven: bool = False) -> list[_Key]:
    rows = connection.execute(
        "SELECT conname::text, cn.nspname::text, c.relname::text, pn.nspname::text, p.relname::text,"
        " ARRAY(SELECT attname::text FROM unnest(conkey) WITH ORDINALITY k (num, place) JOIN pg_attribute"
        " ON attrelid = conrelid AND attnum = num ORDER BY place),"
        " ARRAY(SELECT attname::text FROM unnest(confkey) WITH ORDINALITY k (num, place) JOIN pg_attribute"
        " ON attrelid = confrelid AND attnum = num ORDER BY place)"
        " FROM pg_constraint JOIN pg_class c ON c.oid = conrelid JOIN pg_namespace cn ON cn.oid = c.relnamespace"
        " JOIN pg_class p ON p.oid = confrelid JOIN pg_namespace pn ON pn.oid = p.relnamespace"
        " WHERE contype = 'f' AND conparentid = 0 AND (NOT %s OR NOT convalidated)"
        # One over periods (PostgreSQL 18) asks for overlap, not for the same value: that the server keeps by itself.
        " AND NOT coalesce((to_jsonb(pg_constraint) ->> 'conperiod')::boolean, false) ORDER BY 2, 3, 1",
        (unproven,),
    ).fetchall()
    return [
        _Key(
            f"foreign key {name} of {child_schema}.{child}",
            sql.Identifier(child_schema, child),
            tuple(columns),
            sql.Identifier(parent_schema, parent),
            tuple(parent_columns),
        )
        for name, child_schema, child, parent_schema, parent, columns, parent_columns in rows
    ]


def _key_of(relation: Relation) -> _Key:
    child, _, column = relation.child.rpartition(".")
    parent, _, parent_column = relation.parent.rpartition(".")
    name = f"relation {relation.child} to {relation.parent}"
    return _Key(name, _identifier(child), (column,), _identifier(parent), (parent_column,))


def _identifier(name: str) -> sql.Identifier:
    schema, dot, table = name.rpartition(".")
    return sql.Identifier(schema, table) if dot else sql.Identifier(table)


def _value(connection: Connection, query: sql.Composed) -> object:
    row = connection.execute(query).fetchone()
    return row[0] if row else None


def _shown(value: object) -> str:
    """Return a value as psql shows it, and as a person writes it into the inventory."""
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().splitlines()[0]
