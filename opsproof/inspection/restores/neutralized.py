"""Whether a database is Odoo's, who it says that it is, and whether nothing of it reaches the world outside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from opsproof.errors import ProofError
from opsproof.inspection.restores.sameness import list_first
from opsproof.neutralizing import BASE_URL, IS_NEUTRALIZED, SECRET, SINK, UUID
from opsproof.odoo import MODULE_TABLE, ODOO_COLUMNS, PARAMETER_TABLE
from opsproof.system.postgres.server import Connection

SHOWN = 10
# What must not be found: what it is, its table, the columns that the condition needs, the condition.
_FORBIDDEN: tuple[tuple[str, str, tuple[str, ...], str], ...] = (
    ("active scheduled action", "ir_cron", ("active",), "active"),
    (
        "active outgoing mail server", "ir_mail_server", ("active", "smtp_host"),
        f"active AND smtp_host IS DISTINCT FROM '{SINK}'",
    ),
    ("active incoming mail server", "fetchmail_server", ("active",), "active"),
    ("payment provider in production", "payment_acquirer", ("state",), "state = 'enabled'"),
    ("payment provider in production", "payment_provider", ("state",), "state = 'enabled'"),
    ("payment provider in production", "payment_provider", ("is_live",), "is_live"),
)  # fmt: skip


@dataclass(frozen=True)
class Identity:
    """Who an Odoo database says that it is; an empty text is a parameter that it has not.

    `version` is that of its module base.
    """

    uuid: str
    secret: str
    base_url: str
    is_neutralized: bool
    version: str


def read_identity(connection: Connection) -> Identity | None:
    """Return who an Odoo database says that it is; None for a database that is none of Odoo's."""
    known = read_columns(connection, (PARAMETER_TABLE, MODULE_TABLE))
    if any(not {*ODOO_COLUMNS[table]} <= known.get(table, frozenset()) for table in (PARAMETER_TABLE, MODULE_TABLE)):
        return None
    rows = connection.execute(f"SELECT key, value FROM public.{PARAMETER_TABLE}".encode()).fetchall()  # noqa: S608 - constants
    values = {key: value or "" for key, value in rows}
    base = connection.execute(
        f"SELECT latest_version FROM public.{MODULE_TABLE} WHERE name = 'base' AND state = 'installed'".encode()  # noqa: S608
    ).fetchone()
    return Identity(
        uuid=values.get(UUID, ""),
        secret=values.get(SECRET, ""),
        base_url=values.get(BASE_URL, ""),
        is_neutralized=values.get(IS_NEUTRALIZED, "").lower() in ("true", "1", "t"),
        version=(base[0] if base else None) or "",
    )


def read_columns(connection: Connection, tables: Iterable[str]) -> Mapping[str, frozenset[str]]:
    """Return the columns of those of these tables that the schema public has."""
    rows = connection.execute(
        "SELECT relname, array_agg(attname::text) FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relnamespace = to_regnamespace('public') AND relkind IN ('r', 'p') AND relname = ANY(%s)"
        " AND attnum > 0 AND NOT attisdropped GROUP BY 1",
        (list(dict.fromkeys(tables)),),
    )
    return {table: frozenset(columns) for table, columns in rows}


def check_neutralized(connection: Connection, before: Identity) -> Identity:
    """Look whether an Odoo database is neutralized, and is no longer the one that it was. Return who it is now.

    Args:
        connection: To the database.
        before: Who it was in the backup.

    Raises:
        ProofError: Something of it would still act; all of it is told at once.
    """
    known = read_columns(connection, [table for _, table, _, _ in _FORBIDDEN])
    problems = []
    for what, table, columns, condition in _FORBIDDEN:
        if {*columns} <= known.get(table, frozenset()):
            query = f"SELECT id::text FROM public.{table} WHERE {condition} ORDER BY id"  # noqa: S608 - constants
            problems += [f"{what}: row {row[0]} of {table}" for row in connection.execute(query.encode())]
    now = read_identity(connection)
    if now is None:
        problems.append("it is no Odoo database any more")
    else:
        problems += [] if now.is_neutralized else [f"{IS_NEUTRALIZED} is not set"]
        same = {UUID: (before.uuid, now.uuid), SECRET: (before.secret, now.secret)}
        problems += [f"{key} is that of the backup" for key, (old, new) in same.items() if new in ("", old)]
    if problems or now is None:
        raise ProofError(
            f"{connection.info.dbname!r} was neutralized, but would still act",
            expected="no active scheduled action, mail server or payment provider; an identity of its own",
            found=list_first(problems, SHOWN),
            kept="the live database is as it was",
            hint="a trigger, or SQL of `neutralize` in the inventory, puts it back: correct that, and run it again",
        )
    return now
