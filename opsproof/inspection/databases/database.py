"""A database as it stands: its size, its collations, its constraints, and tables that a crash would empty."""

from __future__ import annotations

from datetime import datetime

from opsproof.inspection.databases.looking import UNTOUCHED, Unanswered, ask, explained, require_none
from opsproof.system.postgres.catalog import find_unlogged
from opsproof.system.postgres.server import Connection

SIZE = "SELECT pg_database_size(current_database()), quote_ident(current_database())"
BIGGEST = """
SELECT format('%I.%I', nspname, relname), pg_total_relation_size(c.oid)
  FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'm')
 ORDER BY 2 DESC NULLS LAST LIMIT 3
"""
# 18 knows constraints that nobody enforces: those are not to be validated.
CONSTRAINTS = """
SELECT CASE WHEN conrelid <> 0 THEN format('ALTER TABLE %I.%I', n.nspname, c.relname)
            ELSE format('ALTER DOMAIN %I.%I', tn.nspname, typname) END, quote_ident(conname),
       pg_get_constraintdef(o.oid)
  FROM pg_constraint o LEFT JOIN pg_class c ON c.oid = conrelid LEFT JOIN pg_namespace n ON n.oid = relnamespace
  LEFT JOIN pg_type t ON t.oid = contypid LEFT JOIN pg_namespace tn ON tn.oid = typnamespace
 WHERE NOT convalidated AND conislocal AND conparentid = 0 AND {enforced}
 ORDER BY 1, 2
"""
OWN_COLLATION = """
SELECT quote_ident(datname), datcollate, coalesce(datcollversion, ''),
       coalesce(pg_database_collation_actual_version(oid), '') FROM pg_database WHERE datname = current_database()
"""
OLDER_COLLATION = "SELECT quote_ident(datname), datcollate FROM pg_database WHERE datname = current_database()"
# Those alone that something is sorted by: a server has some eight hundred.
COLLATIONS = """
SELECT format('%I.%I', nspname, collname), collversion, coalesce(pg_collation_actual_version(c.oid), 'none')
  FROM pg_collation c JOIN pg_namespace n ON n.oid = collnamespace
 WHERE collversion IS NOT NULL
   AND (c.oid IN (SELECT unnest(indcollation) FROM pg_index) OR c.oid IN (SELECT attcollation FROM pg_attribute)
        OR c.oid IN (SELECT unnest(partcollation) FROM pg_partitioned_table)
        OR c.oid IN (SELECT typcollation FROM pg_type) OR c.oid IN (SELECT rngcollation FROM pg_range))
   AND collversion IS DISTINCT FROM pg_collation_actual_version(c.oid)
 ORDER BY 1
"""
UNVERSIONED = ("C", "POSIX")


def measure_database(connection: Connection) -> int:
    """Return the database's size on the server's disk, in bytes."""
    return int(ask(connection, SIZE)[0][0])


def check_growth(connection: Connection, bytes_then: int, taken: datetime, most: float) -> float:
    """Make sure that the database has not grown beyond measure since a backup.

    Args:
        connection: To the database.
        bytes_then: Its size when the backup was taken.
        taken: When that was.
        most: The share of its size then by which it may have grown.

    Returns:
        That share; negative if it shrank.

    Raises:
        ProofError: It has grown by more.
    """
    now, name = ask(connection, SIZE)[0]
    grown = (now - bytes_then) / max(bytes_then, 1)
    biggest = ask(connection, BIGGEST) if grown > most else []
    require_none(
        f"Database {name} has grown by {grown:.0%} since the newest backup",
        f"at most {most:.0%} more than the {bytes_then:,} bytes of {taken:%Y-%m-%d %H:%M:%S} UTC",
        [f"{now:,} bytes"] if grown > most else [],
        ["SELECT relname, n_live_tup, n_dead_tup, last_autovacuum FROM pg_stat_user_tables ORDER BY n_dead_tup DESC;"],
        [f"biggest: {table}, {size:,} bytes" for table, size in biggest],
    )
    return float(grown)


def check_constraints(connection: Connection) -> None:
    """Make sure that every constraint was validated: one that is NOT VALID says nothing about older rows.

    Raises:
        ProofError: One was not.
    """
    enforced = "conenforced" if connection.info.server_version >= 180000 else "true"
    rows = ask(connection, CONSTRAINTS.format(enforced=enforced))
    require_none(
        "Constraints were never validated",
        "every constraint holds for every row",
        [f"{owner.split(' ', 2)[2]} {name}: {definition}" for owner, name, definition in rows],
        [f"{owner} VALIDATE CONSTRAINT {name};" for owner, name, _ in rows],
    )


def check_unlogged(connection: Connection) -> None:
    """Make sure that no table is UNLOGGED: a crash of the server empties it, and no replica has its rows.

    Raises:
        ProofError: One is.
    """
    with explained(connection):
        tables = find_unlogged(connection)
    require_none(
        "Tables are not logged",
        "tables that a crash of the server does not empty",
        [f"{table} is UNLOGGED" for table in tables],
        [f"ALTER TABLE {table} SET LOGGED;" for table in tables],
    )


def check_collations(connection: Connection) -> None:
    """Make sure that the operating system sorts as it did when the indexes were built; else they miss rows.

    Raises:
        ProofError: The versions of a collation differ.
        Unanswered: None differs, but nobody has recorded the version of the database's own.
    """
    found, hints, unknown = [], [], ""
    if connection.info.server_version >= 150000:
        name, collate, recorded, actual = ask(connection, OWN_COLLATION)[0]
        if recorded and recorded != actual:
            found.append(f"database {name}, {collate}: built with version {recorded}, now {actual or 'none'}")
            hints += [f"REINDEX DATABASE {name};", f"ALTER DATABASE {name} REFRESH COLLATION VERSION;"]
        elif actual and not recorded:
            unknown = f"no version was recorded for {collate}, which is {actual} now"
            way = f"REINDEX DATABASE {name};   then ALTER DATABASE {name} REFRESH COLLATION VERSION;"
    else:
        name, collate = ask(connection, OLDER_COLLATION)[0]
        if collate.partition(".")[0] not in UNVERSIONED:
            unknown = f"PostgreSQL before 15 records no version of a database's own collation, {collate}"
            way = f"REINDEX DATABASE {name};   after each upgrade of the operating system"
    for label, recorded, actual in ask(connection, COLLATIONS):
        found.append(f"collation {label}: built with version {recorded}, now {actual}")
        hints += [f"REINDEX DATABASE {name};", f"ALTER COLLATION {label} REFRESH VERSION;"]
    require_none(
        "Collations have changed since indexes were built: they may miss rows and let duplicates in",
        "the versions that the indexes were built with",
        found,
        hints,
        [unknown] if unknown else [],
    )
    if unknown:
        raise Unanswered(
            "Whether the database's own collation has changed cannot be told",
            expected="a recorded version",
            found=unknown,
            kept=UNTOUCHED,
            hint=way,
        )
