"""Whether a database's tables and indexes are sound in themselves, as PostgreSQL's own extension amcheck sees it."""

from __future__ import annotations

from dataclasses import dataclass

import psycopg
from psycopg import sql

from opsproof.errors import DatabaseError
from opsproof.inspection.sameness import list_first
from opsproof.system import catalog
from opsproof.system.postgres import Connection

EXTENSION, SCHEMA = "amcheck", "opsproof_amcheck"
INDEXES = """
SELECT c.oid, c.oid::regclass::text FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
  JOIN pg_am a ON a.oid = c.relam
 WHERE c.relkind = 'i' AND a.amname = 'btree' AND i.indisvalid AND i.indisready AND c.relpersistence <> 't' ORDER BY 1
"""
TABLES = """
SELECT c.oid, c.oid::regclass::text FROM pg_class c JOIN pg_am a ON a.oid = c.relam
 WHERE c.relkind IN ('r', 'm', 't') AND a.amname = 'heap' AND c.relpersistence <> 't' ORDER BY 1
"""


@dataclass(frozen=True)
class Sound:
    """How much was looked at and found sound; `unverified` says why nothing was."""

    indexes: int = 0
    tables: int = 0
    unverified: str = ""


def check_structure(connection: Connection) -> Sound:
    """Look through every B-tree and every table of a database of one's own, which gets the extension for that.

    Args:
        connection: To a scratch database.

    Raises:
        DatabaseError: Something is not sound; it was written a moment ago, so the server or its disk is at fault.
    """
    connection.autocommit = True
    schema = _install(connection)
    if schema is None:
        who = catalog.read_rights(connection).user
        return Sound(unverified=f"amcheck: it is not on the server, or role {who!r} may not create it")
    has_heap = connection.info.server_version >= 140000
    index_check = sql.SQL("SELECT {}(%s::regclass, true)").format(sql.Identifier(schema, "bt_index_check"))
    heap_check = sql.SQL("SELECT coalesce(blkno::text, '?') || ': ' || msg FROM {}(%s::regclass) LIMIT 1").format(
        sql.Identifier(schema, "verify_heapam")
    )
    problems = []
    indexes = connection.execute(INDEXES).fetchall()
    tables = connection.execute(TABLES).fetchall() if has_heap else []
    for query, relations in ((index_check, indexes), (heap_check, tables)):
        for oid, label in relations:
            try:
                row = connection.execute(query, (oid,)).fetchone()
            except psycopg.Error as error:
                if connection.closed:
                    raise DatabaseError(
                        "The server ended the connection while it looked through a database",
                        found=str(error).strip(),
                        hint="look at the server's log, then run it again",
                    ) from error
                problems.append(f"{label}: {str(error).strip().splitlines()[0]}")
            else:
                problems += [f"{label}: block {row[0]}"] if query is heap_check and row else []
    if problems:
        raise DatabaseError(
            "What the server has just built from the backup is not sound",
            expected=f"{len(indexes):,} indexes and {len(tables):,} tables without a complaint of amcheck",
            found=list_first(problems),
            kept="the backup and the live database are as they were",
            hint="test the server's memory and disks, and what orders the values of these indexes",
        )
    return Sound(len(indexes), len(tables))


def _install(connection: Connection) -> str | None:
    """Return the schema of the extension; None where there is none to be had."""
    query = "SELECT nspname::text FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = %s"
    there = connection.execute(query, (EXTENSION,)).fetchone()
    if there is not None:
        return str(there[0])
    if EXTENSION not in catalog.read_available(connection):
        return None
    try:
        with connection.transaction():
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(SCHEMA)))
            connection.execute(
                sql.SQL("CREATE EXTENSION {} SCHEMA {}").format(sql.Identifier(EXTENSION), sql.Identifier(SCHEMA))
            )
    except psycopg.Error:
        return None
    return SCHEMA
