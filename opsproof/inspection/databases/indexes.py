"""Indexes that are there and are not used: what a failed CREATE INDEX CONCURRENTLY leaves behind."""

from __future__ import annotations

import re
import time

from opsproof.inspection.databases.looking import UNTOUCHED, Unanswered, ask, grant, require_none
from opsproof.system.postgres.server import Connection

LOOK_AGAIN_SECONDS = 1.0
# What a REINDEX CONCURRENTLY that was cut short leaves: the index that it was to replace is still in use.
LEFT_BEHIND = re.compile(r'_cc(?:new|old)\d*"?$')

# Who builds one shows its table's lock to everybody, but which index it is only to pg_monitor. REINDEX CONCURRENTLY
# makes and drops more than the one that it shows. DROP INDEX CONCURRENTLY has a lock on the index itself.
BROKEN = """
WITH building AS (
    SELECT nullif(p.index_relid, 0) AS index, l.relation AS on_table
      FROM pg_stat_progress_create_index p
      LEFT JOIN pg_locks l ON l.pid = p.pid AND l.locktype = 'relation' AND l.granted
                          AND l.mode = 'ShareUpdateExclusiveLock' AND l.database = p.datid
     WHERE p.datname = current_database())
SELECT i.indexrelid::bigint, format('%I.%I', n.nspname, c.relname), format('%I.%I', tn.nspname, t.relname), indisunique,
       c.relkind = 'I',
       CASE WHEN NOT indislive THEN 'half dropped' WHEN NOT indisready THEN 'not kept up to date'
            ELSE 'kept up to date, but not valid' END,
       pg_get_indexdef(i.indexrelid),
       EXISTS (SELECT FROM building b WHERE b.index IS NULL AND b.on_table = i.indrelid)
  FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  JOIN pg_class t ON t.oid = i.indrelid JOIN pg_namespace tn ON tn.oid = t.relnamespace
 WHERE NOT (indisvalid AND indisready AND indislive) AND c.relpersistence <> 't'
   AND NOT EXISTS (SELECT FROM building b WHERE b.index = i.indexrelid
                      OR b.on_table IN (i.indrelid, (SELECT oid FROM pg_class r WHERE reltoastrelid = i.indrelid))
                         AND b.index IS NOT NULL AND c.relname ~ '_cc(new|old)[0-9]*$')
   AND NOT EXISTS (SELECT FROM pg_locks l WHERE l.locktype = 'relation' AND l.relation = i.indexrelid
                      AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND l.mode IN ('ShareUpdateExclusiveLock', 'AccessExclusiveLock'))
 ORDER BY 2
"""


def check_indexes(connection: Connection) -> None:
    """Make sure that every index is valid; one that is being built or dropped right now is left out.

    Raises:
        ProofError: One is not: it serves no query, costs every write, and a unique one lets duplicates in.
        Unanswered: The only ones are of tables on which a role whose work we do not see builds an index.
    """
    rows = ask(connection, BROKEN)
    if rows:
        # One that has become valid since the look began is no fault.
        time.sleep(LOOK_AGAIN_SECONDS)
        still = {row[0] for row in ask(connection, BROKEN)}
        rows = [row for row in rows if row[0] in still]
    broken, doubtful = [row for row in rows if not row[7]], [row for row in rows if row[7]]
    require_none(
        "Indexes are not valid",
        "every index valid and kept up to date",
        [f"{name} of {table}: {state}: {text}" for _, name, table, _, _, state, text, _ in broken],
        [_remedy(row[1], is_unique=row[3], is_partitioned=row[4]) for row in broken],
    )
    if doubtful:
        raise Unanswered(
            "Whether indexes are broken or being built cannot be told",
            expected="a role that sees what builds an index",
            found=", ".join(row[1] for row in doubtful),
            kept=UNTOUCHED,
            hint=grant("pg_monitor", connection),
        )


def _remedy(name: str, *, is_unique: bool, is_partitioned: bool) -> str:
    if is_partitioned:
        return f"ALTER INDEX {name} ATTACH PARTITION ...;   the index of each partition"
    if LEFT_BEHIND.search(name):
        return f"DROP INDEX CONCURRENTLY {name};   then REINDEX ... CONCURRENTLY again"
    first = "remove the duplicates, then " if is_unique else ""
    return f"{first}REINDEX INDEX CONCURRENTLY {name};   or DROP INDEX CONCURRENTLY {name};"
