"""The swap: the side database becomes the live one, and back again, each in one transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

from psycopg import sql

from opsproof.errors import DatabaseError
from opsproof.intent import Intent, disclose, enclose
from opsproof.system.postgres.databases import oid_of, read_comment, write_comment, write_intent
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.renaming import SwapResult, rename_together
from opsproof.system.postgres.server import Connection, connect
from opsproof.target import DatabaseAddress

__all__ = ["Identity", "SwapResult", "identity", "rows_written_since", "swap", "swap_back"]

SWAP_SECONDS = 30.0
# Further back than this, a row's 32-bit transaction id may be one of another turn of the counter.
OLDEST_XID = 1 << 31


@dataclass(frozen=True)
class Identity:
    """Which database it is, and the state of its files as the catalogue tells it: no row is read.

    `fingerprint` is a SHA-256 over every relation's name and file, and every sequence's value; `files` leaves out the
    values, for a server that crashed goes on with later ones. The size of a file is no part of either: autovacuum,
    which works on a parked database as well, may cut off the empty end of one.
    """

    oid: int
    fingerprint: str
    files: str


def swap(
    address: DatabaseAddress,
    live: str,
    side: str,
    parked: str,
    intent: Intent,
    *,
    timeout: float = SWAP_SECONDS,
    connection_limit: int | None = None,
) -> SwapResult:
    """Make the side database the live one, and park what was live; without a live one only the first.

    The new live database is no template any more, and has the connection limit of the old one. The parked one takes no
    connections. Both bear the intent, at its stage `swapped` and with the transaction's id.

    Args:
        address: The server, and who does it: the owner of both with CREATEDB, or a superuser.
        live: The name that is to change hands.
        side: What takes it.
        parked: What the old one is called from then on.
        intent: What is going on; its names and its stage are set here.
        timeout: Seconds until it gives up, with live as it was.
        connection_limit: Of the new live database, where there was no old one to have it from.

    Raises:
        DatabaseMissing: There is no side database.
        PermissionDenied: The role may not.
        DatabaseError: Somebody who cannot be ended held one of them all the time.
        ConnectionFailed: The connection was lost; `kept` says whether the swap took place.
    """
    with maintenance(address) as connection:
        had_live = oid_of(connection, live) is not None
    moves = ((live, parked), (side, live)) if had_live else ((side, live),)
    parked = parked if had_live else ""

    def finish(connection: Connection, xid: str) -> None:
        limit = connection_limit
        if parked:
            limit = _connection_limit(connection, parked)
            _alter(connection, parked, sql.SQL("ALLOW_CONNECTIONS false"))
        if limit is not None:
            _alter(connection, live, sql.SQL("CONNECTION LIMIT {}").format(sql.Literal(limit)))
        _alter(connection, live, sql.SQL("IS_TEMPLATE false ALLOW_CONNECTIONS true"))
        stated = replace(intent, live=live, side=side, parked=parked, stage="swapped", swap_xid=xid)
        write_intent(connection, live, stated)
        if parked:
            # Around whatever stands there, so that the way back finds it as it was.
            write_comment(connection, parked, enclose(read_comment(connection, parked), stated))

    return rename_together(address, moves, finish, live, timeout)


def swap_back(
    address: DatabaseAddress, live: str, parked: str, failed_name: str, *, timeout: float = SWAP_SECONDS
) -> SwapResult:
    """Make the parked database the live one again; what is live becomes a side database, to be dropped.

    The parked one takes connections again; its connection limit and its comment, with whatever intent was in it, are as
    they were before the swap. The failed one is a template, and bears the intent at its stage `stopping`.

    Args:
        address: The server, and who does it: the owner of both with CREATEDB, or a superuser.
        live: The name that is to change hands.
        parked: What takes it; empty where there was no live database before.
        failed_name: What is live now is called from then on: a side database's name.
        timeout: Seconds until it gives up, with everything as it was.

    Raises:
        DatabaseMissing: One of them does not exist.
        PermissionDenied: The role may not.
        DatabaseError: Somebody who cannot be ended held one of them all the time.
        ConnectionFailed: The connection was lost; `kept` says whether the names are changed.
    """

    def finish(connection: Connection, xid: str) -> None:
        del xid
        _, intent = disclose(read_comment(connection, failed_name))
        _alter(connection, failed_name, sql.SQL("IS_TEMPLATE true"))
        if parked:
            before, parked_intent = disclose(read_comment(connection, live))
            intent = intent or parked_intent
            write_comment(connection, live, before)
            _alter(connection, live, sql.SQL("ALLOW_CONNECTIONS true"))
        if intent is not None:
            stated = replace(intent, stage="stopping", live=live, side=failed_name, swap_xid="")
            write_intent(connection, failed_name, stated)

    moves = ((live, failed_name), (parked, live)) if parked else ((live, failed_name),)
    return rename_together(address, moves, finish, live if parked else failed_name, timeout)


def identity(address: DatabaseAddress, database: str) -> Identity:
    """Return what a database is, and a fingerprint of its state that costs no reading of rows.

    Raises:
        DatabaseMissing: There is none of this name.
        ConnectionFailed: It takes no connections.
    """
    with connect(address, database=database) as connection:
        rows = connection.execute(
            "SELECT n.nspname, c.relname, c.relkind::text, pg_relation_filenode(c.oid)::bigint,"
            " CASE WHEN c.relkind = 'S' AND has_sequence_privilege(c.oid, 'USAGE, SELECT')"
            " THEN pg_sequence_last_value(c.oid) END"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
            " WHERE n.nspname <> 'pg_catalog' AND n.nspname !~ '^pg_(toast_)?temp_' ORDER BY 1, 2"
        ).fetchall()
        oid = connection.execute("SELECT oid::bigint FROM pg_database WHERE datname = current_database()").fetchone()
    digests = (sha256(repr(one).encode()).hexdigest() for one in (rows, [row[:-1] for row in rows]))
    return Identity(int(oid[0]) if oid else 0, *digests)


def rows_written_since(connection: Connection, xid: str, within: Sequence[int] | None = None) -> dict[str, int]:
    """Return the tables of a database that were written into since a swap, and how many of their rows are new.

    A row is new where it was inserted or changed by that transaction or a later one; a row that was deleted is not
    seen. It reads every table once.

    Args:
        connection: To the database.
        xid: The swap's transaction, or another.
        within: The oids of the tables that are looked at, with their partitions; None for all.

    Raises:
        DatabaseError: So much has happened since that the server cannot tell any more.
    """
    row = connection.execute(
        "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::numeric - %s::numeric", (xid,)
    ).fetchone()
    if row is None or not 0 <= row[0] < OLDEST_XID:
        raise DatabaseError(
            "What was written since the swap cannot be told any more",
            expected=f"fewer than {OLDEST_XID:,} transactions since transaction {xid}",
            found=f"{row[0]:,}" if row else "no answer",
            kept="nothing was changed",
        )
    tables = connection.execute(
        "WITH RECURSIVE wanted(oid) AS (SELECT unnest(%(within)s::bigint[])::oid"
        " UNION SELECT inhrelid FROM pg_inherits JOIN wanted ON inhparent = wanted.oid)"
        " SELECT nspname, relname, format('%%I.%%I', nspname, relname) FROM pg_class c"
        " JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' AND relpersistence <> 't'"
        " AND (%(within)s::bigint[] IS NULL OR c.oid IN (SELECT oid FROM wanted))"
        " AND nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1, 2",
        {"within": None if within is None else list(within)},
    ).fetchall()
    written = {}
    for schema, table, label in tables:
        # age() counts back from now, so that the counter may have turned over in between.
        # Without parameters: with them psycopg reads a % in the table's own name as a placeholder.
        query = sql.SQL("SELECT count(*) FROM ONLY {} WHERE age(xmin) <= age({}::text::xid8::xid)")
        count = connection.execute(query.format(sql.Identifier(schema, table), sql.Literal(xid))).fetchone()
        if count and count[0]:
            written[label] = count[0]
    return written


def park(connection: Connection, database: str) -> None:
    """Let nobody connect to a database that is kept.

    Raises:
        PermissionDenied: The role is not its owner.
    """
    _alter(connection, database, sql.SQL("ALLOW_CONNECTIONS false IS_TEMPLATE false"))


def _connection_limit(connection: Connection, database: str) -> int | None:
    row = connection.execute("SELECT datconnlimit FROM pg_database WHERE datname = %s", (database,)).fetchone()
    return None if row is None else int(row[0])


def _alter(connection: Connection, database: str, options: sql.Composable) -> None:
    connection.execute(sql.SQL("ALTER DATABASE {} WITH {}").format(sql.Identifier(database), options))
