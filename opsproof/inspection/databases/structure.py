"""Whether a database's tables and indexes are sound in themselves, as PostgreSQL's own extension amcheck sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Lock

import psycopg
from psycopg import sql

from opsproof.errors import DatabaseError
from opsproof.inspection.restores.sameness import list_first
from opsproof.system.postgres import catalog
from opsproof.system.postgres.server import Connection, connect
from opsproof.target import DatabaseAddress

CANCEL_SECONDS = 0.2
EXTENSION, SCHEMA = "amcheck", "opsproof_amcheck"
INDEXES = """
SELECT c.oid, c.oid::regclass::text, pg_relation_size(c.oid) FROM pg_class c JOIN pg_index i ON i.indexrelid = c.oid
  JOIN pg_am a ON a.oid = c.relam
 WHERE c.relkind = 'i' AND a.amname = 'btree' AND i.indisvalid AND i.indisready AND c.relpersistence <> 't'
"""
TABLES = """
SELECT c.oid, c.oid::regclass::text, pg_relation_size(c.oid) FROM pg_class c JOIN pg_am a ON a.oid = c.relam
 WHERE c.relkind IN ('r', 'm', 't') AND a.amname = 'heap' AND c.relpersistence <> 't'
"""


@dataclass(frozen=True)
class Sound:
    """How much was looked at and found sound; `unverified` says why nothing was."""

    indexes: int = 0
    tables: int = 0
    unverified: str = ""


@dataclass(frozen=True)
class _Relation:
    """A table or an index, and what looks through it."""

    query: sql.Composed
    oid: int
    label: str
    bytes: int


def check_structure(address: DatabaseAddress) -> Sound:
    """Look through every B-tree and every table of a database of one's own, which gets the extension for that.

    Args:
        address: Of a scratch database.

    Raises:
        DatabaseError: Something is not sound; it was written a moment ago, so the server or its disk is at fault.
    """
    with checking_structure(address) as finish:
        return finish()


@contextmanager
def checking_structure(address: DatabaseAddress, *, rows: bool = True) -> Iterator[Callable[[], Sound]]:
    """Do the same while the block does something else; what this yields waits for the end, and tells it.

    What has not come to its end when the block ends is cancelled.

    Args:
        address: Of a scratch database.
        rows: Whether every row is looked for in every index, too: nine tenths of the time.
    """
    with connect(address) as first, connect(address) as second:
        first.autocommit = second.autocommit = True
        schema = _install(first)
        if schema is None:
            who = catalog.read_rights(first).user
            sound = Sound(unverified=f"amcheck: it is not on the server, or role {who!r} may not create it")
            yield lambda: sound
            return
        relations = _list_relations(first, schema, rows=rows)
        left, lock, over = list(relations), Lock(), Event()

        def look_through(connection: Connection) -> list[str]:
            problems = []
            while not over.is_set():
                with lock:
                    if not left:
                        break
                    one = left.pop()
                problems += _look_through(connection, one)
            return problems

        with ThreadPoolExecutor(2, "opsproof amcheck") as pool:
            looks = [pool.submit(look_through, connection) for connection in (first, second)]
            try:
                yield lambda: _told(relations, sorted(problem for look in looks for problem in look.result()))
            finally:
                over.set()
                # Again and again: what is cancelled before the server has begun it would run to its end.
                while not all(look.done() for look in looks):
                    for connection in (first, second):
                        with suppress(psycopg.Error):
                            connection.cancel()
                    wait(looks, CANCEL_SECONDS)


def _list_relations(connection: Connection, schema: str, *, rows: bool) -> list[_Relation]:
    """Return what is to be looked through, the biggest last, which is the first to be taken."""
    index_check = sql.SQL("SELECT NULL, NULL FROM {}(%s::regclass, {})").format(
        sql.Identifier(schema, "bt_index_check"), sql.Literal(rows)
    )
    heap_check = sql.SQL("SELECT coalesce(blkno::text, '?'), msg FROM {}(%s::regclass) LIMIT 1").format(
        sql.Identifier(schema, "verify_heapam")
    )
    kinds = [(index_check, INDEXES)]
    if connection.info.server_version >= 140000:
        kinds.append((heap_check, TABLES))
    found = [_Relation(check, *row) for check, query in kinds for row in connection.execute(query.encode()).fetchall()]
    return sorted(found, key=lambda one: one.bytes)


def _look_through(connection: Connection, one: _Relation) -> list[str]:
    try:
        row = connection.execute(one.query, (one.oid,)).fetchone()
    except psycopg.Error as error:
        if connection.closed:
            raise DatabaseError(
                "The server ended the connection while it looked through a database",
                found=str(error).strip(),
                hint="look at the server's log, then run it again",
            ) from error
        return [f"{one.label}: {str(error).strip().splitlines()[0]}"]
    return [f"{one.label}: block {row[0]}: {row[1]}"] if row and row[1] else []


def _told(relations: list[_Relation], problems: list[str]) -> Sound:
    indexes = sum("bt_index_check" in one.query.as_string() for one in relations)
    tables = len(relations) - indexes
    if problems:
        raise DatabaseError(
            "What the server has just built from the backup is not sound",
            expected=f"{indexes:,} indexes and {tables:,} tables without a complaint of amcheck",
            found=list_first(problems),
            kept="the backup and the live database are as they were",
            hint="test the server's memory and disks, and what orders the values of these indexes",
        )
    return Sound(indexes, tables)


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
