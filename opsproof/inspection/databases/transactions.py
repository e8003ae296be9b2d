"""Transactions that stay: a long one keeps rows from being vacuumed, a prepared one even outlives its session."""

from __future__ import annotations

import time
from datetime import timedelta

from opsproof.inspection.databases.looking import UNTOUCHED, Unanswered, ask, grant, require_none
from opsproof.system.postgres.server import Connection

LOOK_AGAIN_SECONDS = 2.0
QUERY_LETTERS = 80

# A vacuum may take its time: nothing waits for it.
LONG = """
SELECT pid, coalesce(usename::text, '?'), coalesce(nullif(application_name, ''), '?'),
       coalesce(client_addr::text, 'a socket'), state,
       to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'),
       extract(epoch FROM clock_timestamp() - xact_start)::float8,
       CASE WHEN state LIKE 'idle%%' THEN extract(epoch FROM clock_timestamp() - state_change)::float8 END, query
  FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
   AND xact_start < clock_timestamp() - make_interval(secs => %s)
 ORDER BY xact_start
"""
# Who has track_activities off shows no transaction to anybody.
HIDDEN = """
SELECT string_agg(DISTINCT coalesce(usename::text, '?'), ', '), count(*) FROM pg_stat_activity
 WHERE datname = current_database() AND usesysid IS NOT NULL AND (state = 'disabled'
       OR query = '<insufficient privilege>' AND pg_has_role(usesysid, 'USAGE') IS NOT TRUE)
"""
PREPARED = """
SELECT gid, owner::text, to_char(prepared AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS UTC'),
       format('ROLLBACK PREPARED %L;   or COMMIT PREPARED %L;', gid, gid)
  FROM pg_prepared_xacts WHERE database = current_database() ORDER BY prepared
"""


def check_long_transactions(connection: Connection, longest: timedelta) -> None:
    """Make sure that no session of the database has had a transaction open for long, at work or idle.

    Args:
        connection: To the database.
        longest: How long one may be.

    Raises:
        ProofError: One is longer.
        Unanswered: None is that we see, but there are sessions of other roles that we do not see into.
    """
    rows = ask(connection, LONG, longest.total_seconds())
    roles, hidden = ask(connection, HIDDEN)[0]
    unseen = f"{hidden} sessions of {roles} are hidden from {connection.info.user}" if hidden else ""
    require_none(
        "Transactions have been open for long",
        f"none for longer than {longest}",
        [_session(*row) for row in rows],
        [f"SELECT pg_terminate_backend({row[0]});" for row in rows],
        [unseen] if unseen else [],
    )
    if unseen:
        raise Unanswered(
            "How long transactions have been open is not known of all",
            expected="a role that sees every session's transaction",
            found=unseen,
            kept=UNTOUCHED,
            hint=f"{grant('pg_monitor', connection)}   and track_activities = on",
        )


def check_prepared(connection: Connection) -> None:
    """Make sure that no prepared transaction is left in the database: it holds its locks, and back every vacuum.

    One that a transaction manager is about to end is gone at a second look, two seconds later.

    Raises:
        ProofError: One is there at both.
    """
    rows = ask(connection, PREPARED)
    if rows:
        time.sleep(LOOK_AGAIN_SECONDS)
        still = {row[:3] for row in ask(connection, PREPARED)}
        rows = [row for row in rows if row[:3] in still]
    require_none(
        "Prepared transactions were left behind",
        "none for longer than a moment",
        [f"{gid!r} of {owner}, prepared {when}" for gid, owner, when, _ in rows],
        [row[3] for row in rows],
    )


def _session(
    pid: int,
    user: str,
    application: str,
    client: str,
    state: str,
    since: str,
    age: float,
    idle: float | None,
    query: str,
) -> str:
    words = " ".join(query.split())
    begin = words[:QUERY_LETTERS] + ("..." if len(words) > QUERY_LETTERS else "")
    resting = "" if idle is None else f" for {timedelta(seconds=round(idle))}"
    told = f"pid {pid}, {user} ({application}) from {client}: open for {timedelta(seconds=round(age))} since {since}"
    return f"{told}, {state}{resting}: {begin}"
