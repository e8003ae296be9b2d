"""Why a server or a database said no, and what to type: the texts for `opsproof.system.postgres.server` and `dump`."""

from __future__ import annotations

import difflib

import psycopg
from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import (
    ConnectionFailed,
    DatabaseError,
    DatabaseMissing,
    LockTimeout,
    OpsproofError,
    PermissionDenied,
)
from opsproof.target import DatabaseAddress

# The server's words for a database with ALLOW_CONNECTIONS false.
CLOSED = "not currently accepting connections"


def permission_hint(address: DatabaseAddress, message: str) -> str:
    """Return what to type where the server refused a role something."""
    role = sql.Identifier(address.user).as_string() if address.user else "CURRENT_USER"
    if "row-level security" in message:
        return f"ALTER ROLE {role} BYPASSRLS; or back up as the owner of the tables"
    return f"GRANT pg_read_all_data TO {role}; or back up as the owner of the database"


def explain_query_error(address: DatabaseAddress, error: psycopg.Error) -> OpsproofError:
    """Turn an error of the server into one that says what to do."""
    message = str(error).strip()
    kept = "nothing was changed"
    if isinstance(error, pg.InsufficientPrivilege):
        return PermissionDenied(
            f"Permission denied in database {address.name!r}: {message.splitlines()[0]}",
            expected=f"role {address.user!r} may read every table that a backup holds",
            found=message,
            kept=kept,
            hint=permission_hint(address, message),
        )
    if isinstance(error, pg.LockNotAvailable):
        return LockTimeout(
            f"A lock in database {address.name!r} was not to be had in time",
            found=message,
            kept=kept,
            hint="SELECT pid, query FROM pg_stat_activity WHERE state <> 'idle'; then end the session that holds it",
        )
    if isinstance(error, psycopg.OperationalError):
        return ConnectionFailed(
            f"The connection to {address.server} was lost",
            found=message,
            kept=kept,
            hint="look at the server's log, then run it again",
        )
    if isinstance(error, pg.CharacterNotInRepertoire):
        return DatabaseError(
            f"Database {address.name!r} has a name in it that is not UTF-8",
            expected="names that can be written down; rows may hold any bytes",
            found=message,
            kept=kept,
            hint="rename the table, column or schema: ALTER TABLE ... RENAME",
        )
    return DatabaseError(f"Database {address.name!r}: {message.splitlines()[0]}", found=message, kept=kept)


def refused_database(address: DatabaseAddress, name: str, message: str) -> OpsproofError:
    """Say why a database that is there cannot be connected to."""
    if CLOSED in message:
        return ConnectionFailed(
            f"Database {name!r} on {address.server} takes no connections",
            expected="a database that is open",
            found=message,
            kept="nothing was changed",
            hint=sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true; but first find out who closed it, and why")
            .format(sql.Identifier(name))
            .as_string(),
        )
    return PermissionDenied(
        f"Role {address.user!r} cannot connect to database {name!r} on {address.server}",
        found=message,
        kept="nothing was changed",
        hint=sql.SQL("GRANT CONNECT ON DATABASE {} TO {}")
        .format(sql.Identifier(name), sql.Identifier(address.user))
        .as_string(),
    )


def no_connection(address: DatabaseAddress, message: str, seconds: float) -> ConnectionFailed:
    """Say why no database of a server can be connected to."""
    psql = f"psql -h {address.host or '/var/run/postgresql'} -p {address.port} -U {address.user or 'postgres'}"
    hints = {
        "password": "check db_password in odoo.conf, DATABASE_URL or PGPASSWORD",
        "no pg_hba.conf entry": "add a line for this role and address to pg_hba.conf on the server",
        "timeout": f"check the network and the firewall: {psql} -c 'SELECT 1'",
        "refused": f"is the server running, and on this port? {psql} -c 'SELECT 1'",
        "No such file": "is the server running? pg_lsclusters tells its port and state",
        "not exist": "check the role's name in odoo.conf or DATABASE_URL",
    }
    hint = next((text for word, text in hints.items() if word in message), f"{psql} -c 'SELECT 1'")
    return ConnectionFailed(
        f"No connection to PostgreSQL on {address.server} as {address.user or 'the default role'}",
        expected=f"an answer within {seconds} seconds",
        found=message,
        kept="nothing was changed",
        hint=hint,
    )


def database_missing(address: DatabaseAddress, name: str, names: tuple[str, ...]) -> DatabaseMissing:
    """Say that a database is not there, and which are."""
    near = difflib.get_close_matches(name, names, n=1)
    nearest = f"; the nearest is {near[0]!r}" if near else ""
    return DatabaseMissing(
        f"Database {name!r} does not exist on {address.server}",
        expected="a database of that name",
        found=f"{', '.join(map(repr, names)) or 'no database at all'}{nearest}",
        kept="nothing was changed",
        hint="check that dbname in hosts.yml, or db_name in odoo.conf, is the actual name",
    )
