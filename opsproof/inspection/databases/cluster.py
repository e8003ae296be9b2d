"""The server behind a database: it answers, is new enough, and has connections, transaction ids and disk to spare."""

from __future__ import annotations

import re
import shlex

from opsproof.errors import ConfigurationError
from opsproof.inspection.databases.looking import ask, look_at, require_none
from opsproof.system.postgres.server import Connection, Server, read_server
from opsproof.target import DatabaseAddress

VERSION = re.compile(r"(\d{2})(?:\.(\d{1,4}))?")
# Transaction ids and multixact ids are 32 bits wide, and half of them are the past.
IDS = 2**31

# Sessions of others show no backend_type to a role without pg_monitor: those count as clients.
CONNECTIONS = """
WITH client AS (
    SELECT datid, usesysid FROM pg_stat_activity
     WHERE pid <> pg_backend_pid() AND (backend_type = 'client backend' OR backend_type IS NULL AND datid IS NOT NULL))
SELECT 'the server' AS whose,
       current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int AS most,
       (SELECT count(*) FROM client) AS used,
       format('ALTER SYSTEM SET max_connections = %s;   which takes a restart',
              2 * current_setting('max_connections')::int) AS hint
UNION ALL
SELECT format('database %I', datname), datconnlimit, (SELECT count(*) FROM client WHERE datid = d.oid),
       format('ALTER DATABASE %I CONNECTION LIMIT %s;', datname, greatest(2 * datconnlimit, 10))
  FROM pg_database d WHERE datname = current_database() AND datconnlimit >= 0
UNION ALL
SELECT format('role %I', rolname), rolconnlimit, (SELECT count(*) FROM client WHERE usesysid = r.oid),
       format('ALTER ROLE %I CONNECTION LIMIT %s;', rolname, greatest(2 * rolconnlimit, 10))
  FROM pg_roles r
 WHERE rolconnlimit >= 0 AND NOT rolsuper
   AND (rolname = session_user OR oid IN (SELECT c.usesysid FROM client c JOIN pg_database d ON d.oid = c.datid
                                           WHERE d.datname = current_database()))
"""
BUSIEST = """
SELECT format('%s sessions of %s from %s, %s', count(*), coalesce(usename, '?'),
              coalesce(nullif(application_name, ''), '?'), coalesce(state, 'state hidden'))
  FROM pg_stat_activity WHERE datid IS NOT NULL AND pid <> pg_backend_pid()
 GROUP BY usename, application_name, state ORDER BY count(*) DESC LIMIT 5
"""
AGES = """
SELECT datname::text, datname = current_database(), age(datfrozenxid), mxid_age(datminmxid) FROM pg_database
 ORDER BY greatest(age(datfrozenxid), mxid_age(datminmxid)) DESC
"""
OLDEST_TABLES = """
SELECT format('%I.%I', nspname, relname), age(relfrozenxid), mxid_age(relminmxid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 't', 'm')
 ORDER BY greatest(age(relfrozenxid), mxid_age(relminmxid)) DESC LIMIT 3
"""
SLOTS = """
SELECT slot_name::text, slot_type, active, coalesce(database::text, ''), coalesce(wal_status, ''),
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery()
                            THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                            ELSE pg_current_wal_lsn() END, restart_lsn)::bigint,
       format('SELECT pg_drop_replication_slot(%L);', slot_name)
  FROM pg_replication_slots WHERE restart_lsn IS NOT NULL ORDER BY 6 DESC
"""


def check_reachable(address: DatabaseAddress) -> Server:
    """Connect, ask the server for its version, and disconnect.

    Raises:
        DatabaseError: It cannot be reached, has no such database, refuses the login, or is older than PostgreSQL 13.
    """
    with look_at(address) as connection:
        return read_server(connection)


def check_version(connection: Connection, floor: str) -> str:
    """Make sure that the server's version is at or above a floor; return the version.

    Args:
        connection: To any of its databases.
        floor: `15.18`, or a major version alone.

    Raises:
        ProofError: It is below.
        ConfigurationError: The floor is no version.
    """
    shape = VERSION.fullmatch(floor.strip())
    if shape is None:
        raise ConfigurationError(
            f"minimum_version: {floor!r} is no version of PostgreSQL",
            expected="major and minor, or a major alone",
            found=repr(floor),
            hint='minimum_version: "15.18"',
        )
    version = str(ask(connection, "SELECT current_setting('server_version')")[0][0])
    is_old = connection.info.server_version < int(shape[1]) * 10_000 + int(shape[2] or 0)
    require_none(
        f"PostgreSQL {version} is older than what the inventory asks for",
        f"{floor} or newer",
        [version] if is_old else [],
        [f"apt-get install --only-upgrade postgresql-{connection.info.server_version // 10_000}   then restart it"],
    )
    return version


def check_connections(connection: Connection, most: float) -> tuple[str, ...]:
    """Make sure that connections are far from the limits of the server, of the database and of the roles in it.

    What is reserved for superusers does not count as the server's; this session is not counted.

    Args:
        connection: To the database.
        most: The share of a limit from which it is too near.

    Returns:
        A line for each limit.

    Raises:
        ProofError: One is near.
    """
    rows = ask(connection, CONNECTIONS)
    near = [row for row in rows if row[2] >= row[1] * most]
    require_none(
        "Connections are near their limit",
        f"fewer than {most:.0%} of each limit in use",
        [_used(row) for row in near],
        ["SELECT pid, usename, application_name, state FROM pg_stat_activity;", *(row[3] for row in near)],
        [line for (line,) in ask(connection, BUSIEST)] if near else [],
    )
    return tuple(map(_used, rows))


def check_wraparound(connection: Connection, most: float) -> float:
    """Make sure that no database of the server is near the end of its transaction ids, when it takes no more writes.

    Args:
        connection: To the database.
        most: The share of 2^31 that an age may reach, of transactions and of multixacts.

    Returns:
        The greatest share.

    Raises:
        ProofError: One is nearer.
    """
    rows = ask(connection, AGES)
    old = [(name, is_ours, xid, multi) for name, is_ours, xid, multi in rows if max(xid, multi) > most * IDS]
    found, hints, beside = [], [], []
    for name, is_ours, xid, multi in old:
        found.append(
            f"database {name!r}: {xid:,} transactions ({xid / IDS:.1%}), {multi:,} multixacts ({multi / IDS:.1%})"
        )
        hints.append(f"vacuumdb --freeze --dbname={shlex.quote(name)}")
        if is_ours:
            tables = ask(connection, OLDEST_TABLES)
            beside = [
                f"oldest here: {table}, {xid:,} transactions, {multi:,} multixacts" for table, xid, multi in tables
            ]
            hints.append(f"VACUUM (FREEZE, VERBOSE) {tables[0][0]};   and look for what holds old snapshots")
    require_none(
        "Transaction ids are running out",
        f"ages of at most {most:.0%} of 2^31, which is {most * IDS:,.0f}",
        found,
        hints,
        beside,
    )
    return max((max(xid, multi) / IDS for _, _, xid, multi in rows), default=0.0)


def check_slots(connection: Connection, most: int) -> tuple[str, ...]:
    """Make sure that no replication slot of the server holds back more WAL than it may: it fills the disk.

    Args:
        connection: To any of its databases.
        most: Bytes.

    Returns:
        A line for each slot that nobody reads from, though it holds little yet.

    Raises:
        ProofError: One holds more.
    """
    rows = ask(connection, SLOTS)
    holding = [row for row in rows if row[5] > most]
    require_none(
        "Replication slots hold back WAL",
        f"at most {most:,} bytes held by each",
        [_slot(row) for row in holding],
        [f"start its reader, or, if it is gone for good: {row[6]}" for row in holding],
    )
    return tuple(_slot(row) for row in rows if not row[2])


def _used(row: tuple[str, int, int, str]) -> str:
    share = f" ({row[2] / row[1]:.0%})" if row[1] else ""
    return f"{row[0]}: {row[2]} of {row[1]} connections{share}"


def _slot(row: tuple[str, str, bool, str, str, int, str]) -> str:
    name, kind, is_active, database, status, held, _ = row
    of = f" of database {database}" if database else ""
    return f"{kind} slot {name}{of}, {'active' if is_active else 'inactive'}: {held:,} bytes of WAL ({status})"
