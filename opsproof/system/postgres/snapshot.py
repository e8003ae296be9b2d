"""One snapshot of a database, exported: the dump, the counts and the list of files all come from it.

The snapshot lives as long as the transaction that exported it. Every table is locked against being rewritten or
emptied (ACCESS SHARE, which stops no reader and no writer) before anything is read from it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import psycopg
from psycopg import sql

from opsproof.system.postgres.copytext import Content
from opsproof.system.postgres.server import Connection

# The tables whose rows pg_dump dumps, as pg_dump itself chooses them: ordinary ones outside the system schemas, those
# of an extension only where it registered them as configuration, then with the condition it gave.
TABLES = """
SELECT nspname, relname, format('%I.%I', nspname, relname),
       convert_to(format('COPY %I.%I %s FROM stdin;', nspname, relname, columns), getdatabaseencoding()),
       convert_to(CASE WHEN coalesce(condition, '') = '' THEN
                       format('COPY %I.%I %s TO STDOUT;', nspname, relname, columns)
                       ELSE format('COPY (SELECT %s FROM %I.%I %s) TO STDOUT;',
                                   trim(columns, '()'), nspname, relname, condition) END, getdatabaseencoding())
  FROM (SELECT n.nspname, c.relname, config.condition, coalesce(
               (SELECT '(' || string_agg(quote_ident(attname), ', ' ORDER BY attnum) || ')' FROM pg_attribute
                 WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = ''), '') AS columns
          FROM pg_class c
          JOIN pg_namespace n ON n.oid = c.relnamespace
          LEFT JOIN (SELECT unnest(extconfig) AS oid, unnest(extcondition) AS condition FROM pg_extension) config
                 ON config.oid = c.oid
         WHERE c.relkind = 'r' AND c.relpersistence <> 't'
           AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
           AND (config.oid IS NOT NULL OR NOT EXISTS (
                SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype = 'e'))
       ) tables
 ORDER BY nspname, relname
"""
LOCKED_AT_ONCE = 500
BIG_OBJECT_BYTES = 64 << 20
PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class Table:
    """A table whose rows the dump holds.

    `label` is schema and name, quoted where SQL needs it: unique in its database, and what people read. `header` is the
    line before its rows in a plain dump, and `statement` what prints the same rows, both in the database's encoding.
    """

    schema: str
    name: str
    label: str
    header: bytes
    statement: bytes


@dataclass(frozen=True)
class Sequence:
    """A sequence's value when the snapshot was taken. Sequences are not transactional: a copy has at least this."""

    label: str
    last_value: int | None


class Snapshot:
    """An exported snapshot, and what can be read in it.

    Attributes:
        id: What other sessions import it by.
        taken: When the server took it, UTC.
        encoding: The database's encoding.
        oid: The database's.
        oldest_unseen: The 64-bit id of the first transaction that it may not see: rows of it, and of later ones.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        row = self._query(
            "SELECT pg_export_snapshot(), transaction_timestamp(), pg_encoding_to_char(encoding), oid::bigint,"
            " txid_snapshot_xmin(txid_current_snapshot())::text FROM pg_database WHERE datname = current_database()"
        )[0]
        self.id: str = row[0]
        self.taken: datetime = row[1].astimezone(UTC)
        self.encoding: str = row[2]
        self.oid: int = row[3]
        self.oldest_unseen: str = row[4]
        self.tables = self._lock_tables()

    def count_rows(self) -> dict[str, Content]:
        """Count every table without reading its content: what `fingerprint: counts` asks for."""
        counts = {}
        for table in self.tables:
            name = sql.Identifier(table.schema, table.name)
            count = self._connection.execute(sql.SQL("SELECT count(*) FROM ONLY {}").format(name)).fetchone()
            counts[table.label] = Content(count[0] if count else 0, None)
        return counts

    def sequences(self) -> tuple[Sequence, ...]:
        """Return every sequence and its value; None where it was never used."""
        rows = self._query("SELECT quote_ident(schemaname), quote_ident(sequencename), last_value FROM pg_sequences")
        return tuple(sorted((Sequence(f"{row[0]}.{row[1]}", row[2]) for row in rows), key=lambda one: one.label))

    def large_objects(self) -> dict[int, Content]:
        """Return size and SHA-256 of every large object: computed by the server, but of big ones here, in pieces."""
        rows = self._query(
            "SELECT oid::bigint, length(content), encode(sha256(content), 'hex')"
            " FROM (SELECT oid, CASE WHEN length(lo_get(oid, %s::bigint, 1)) = 0 THEN lo_get(oid) END AS content"
            " FROM pg_largeobject_metadata) objects",
            BIG_OBJECT_BYTES,
        )
        return {oid: Content(size, digest) if digest else self._read_object(oid) for oid, size, digest in rows}

    def has_column(self, schema: str, table: str, column: str) -> bool:
        """Tell whether a table has a column; False where there is no such table either."""
        return bool(
            self._query(
                "SELECT FROM pg_attribute WHERE attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text))"
                " AND attname = %s AND NOT attisdropped",
                schema,
                table,
                column,
            )
        )

    def column(self, schema: str, table: str, column: str, where: str = "true") -> list[Any]:
        """Return the values of one column that are not NULL, without repeating any."""
        query = sql.SQL("SELECT DISTINCT {0} FROM {1} WHERE {0} IS NOT NULL AND ({2})").format(
            sql.Identifier(column), sql.Identifier(schema, table), sql.SQL(where)
        )
        return [row[0] for row in self._connection.execute(query)]

    def rows(self, schema: str, table: str, columns: tuple[str, ...], where: str = "true") -> list[tuple[Any, ...]]:
        """Return some columns of the rows that a condition selects."""
        query = sql.SQL("SELECT {} FROM {} WHERE {} ORDER BY 1").format(
            sql.SQL(", ").join(map(sql.Identifier, columns)), sql.Identifier(schema, table), sql.SQL(where)
        )
        return self._connection.execute(query).fetchall()

    def tables_named(self, name: str) -> list[str]:
        """Return the schemas that have a table of this name."""
        return [table.schema for table in self.tables if table.name == name]

    def _read_object(self, oid: int) -> Content:
        # lo_get returns at most a gigabyte, and the server holds all of it.
        digest, size = hashlib.sha256(), 0
        while piece := self._query("SELECT lo_get(%s::oid, %s::bigint, %s)", oid, size, PIECE_BYTES)[0][0]:
            digest.update(piece)
            size += len(piece)
        return Content(size, digest.hexdigest())

    def _lock_tables(self) -> tuple[Table, ...]:
        tables = tuple(Table(*row) for row in self._query(TABLES))
        for start in range(0, len(tables), LOCKED_AT_ONCE):
            names = sql.SQL(", ").join(
                sql.SQL("ONLY {}").format(sql.Identifier(table.schema, table.name))
                for table in tables[start : start + LOCKED_AT_ONCE]
            )
            self._connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS SHARE MODE").format(names))
        return tables

    def _query(self, query: str, *arguments: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(query.encode(), arguments or None).fetchall()


@contextmanager
def open_snapshot(connection: Connection) -> Iterator[Snapshot]:
    """Open a read-only REPEATABLE READ transaction and export its snapshot; both end with the block.

    Raises:
        psycopg.Error: A table cannot be locked in time, or may not be read.
    """
    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    connection.read_only = True
    try:
        yield Snapshot(connection)
    finally:
        if not connection.closed:
            connection.rollback()
