"""What an SQL statement takes away, and whether it can be part of a transaction."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

# It says aloud which statements it does not take apart; that is told as `opaque`.
logging.getLogger("sqlglot").setLevel(logging.ERROR)

SHOWN = 60
# What holds rows; anything else that is dropped can be made anew from its definition.
HOLDS_ROWS = {"TABLE"}
MAY_HOLD_ROWS = {"SCHEMA", "EXTENSION", "DATABASE"}
# What columns may be made of: with CASCADE they go, too.
MAY_HOLD_COLUMNS = {"TYPE", "DOMAIN", "FUNCTION"}
# Statements that PostgreSQL refuses within a transaction, or that end one.
ON_THEIR_OWN = ("VACUUM", "REINDEX", "CLUSTER", "BEGIN", "START", "ABORT", "PREPARE TRANSACTION", "DISCARD",
                "ALTER SYSTEM")  # fmt: skip
CREATED_ON_THEIR_OWN = ("CREATE DATABASE", "CREATE TABLESPACE", "CREATE SUBSCRIPTION")
# What sqlglot does not take apart, and which takes nothing away.
HARMLESS = ("ALTER TYPE", "ALTER INDEX", "ALTER SEQUENCE", "ALTER VIEW", "ALTER FUNCTION", "ALTER TRIGGER",
            "ALTER DOMAIN", "ALTER DEFAULT", "ALTER SCHEMA", "ALTER EXTENSION", "ALTER POLICY", "LOCK", "ANALYZE",
            "GRANT", "REVOKE", "COMMENT", "CREATE", "SET", "RESET", "REFRESH", "DROP OPERATOR", "DROP CAST",
            "DROP AGGREGATE", "DROP RULE", "DROP POLICY", "DROP DOMAIN", "SAVEPOINT", "NOTIFY", "LISTEN",
            "UNLISTEN")  # fmt: skip


@dataclass(frozen=True)
class Loss:
    """What is taken away.

    Attributes:
        kind: `table` and `column` are dropped; `rows` of a table are deleted or changed.
        schema: None where the search path finds it.
        table: Its name.
        column: Its name; of a column only.
    """

    kind: Literal["table", "column", "rows"]
    schema: str | None
    table: str
    column: str | None = None

    @property
    def shown(self) -> str:
        """Return it as a plan shows it."""
        return ".".join(part for part in (self.schema, self.table, self.column) if part)


@dataclass
class Statements:
    """What a text of SQL does, as `Reading` has it, without lines."""

    losses: list[Loss] = field(default_factory=list)
    opaque: list[str] = field(default_factory=list)
    not_atomic: list[str] = field(default_factory=list)


def read_statements(text: str) -> Statements:
    """Return what statements of SQL take away.

    >>> [one.shown for one in read_statements("DROP TABLE a; ALTER TABLE s.b DROP COLUMN c").losses]
    ['a', 's.b.c']
    """
    found = Statements()
    try:
        statements = sqlglot.parse(text, read="postgres")
    except SqlglotError:
        found.opaque.append(_shown(text))
        return found
    for one in statements:
        if one is not None and not isinstance(one, exp.Semicolon):
            _read(one, found)
    return found


def _read(one: exp.Expr, found: Statements) -> None:
    text = one.sql(dialect="postgres", comments=False)
    if isinstance(one, exp.Alias | exp.Column):
        # What sqlglot does not know as a statement it may take for an expression: `CLUSTER t`, `ABORT`.
        _read_command(found, text.replace(" AS ", " ", 1))
        return
    shown = _shown(text)
    if isinstance(one, exp.Commit | exp.Rollback | exp.Transaction) or _is_concurrent(one):
        found.not_atomic.append(shown)
    elif isinstance(one, exp.Drop):
        kind = str(one.args.get("kind", "")).upper()
        if kind in HOLDS_ROWS:
            found.losses += [_loss("table", table) for table in _dropped(one)]
        elif kind in MAY_HOLD_ROWS or (kind in MAY_HOLD_COLUMNS and one.args.get("cascade")):
            found.opaque.append(shown)
    elif isinstance(one, exp.Alter):
        _read_alter(one, found, shown)
    elif isinstance(one, exp.Command):
        _read_command(found, text)
    else:
        _read_query(one, found, shown)


def _read_alter(one: exp.Alter, found: Statements, shown: str) -> None:
    table = one.this
    for action in one.args.get("actions") or ():
        if isinstance(action, exp.Drop) and str(action.args.get("kind")).upper() == "COLUMN":
            schema, name = _names(table)
            columns = [column.this for column in action.find_all(exp.Column)] or [action.this]
            found.losses += [Loss("column", schema, name, _folded(column)) for column in columns]
        elif isinstance(action, exp.AlterColumn) and action.args.get("dtype"):
            found.opaque.append(shown)


def _read_command(found: Statements, text: str) -> None:
    words = " ".join(text.upper().split())
    is_cascade = words.startswith("DROP") and words.endswith(" CASCADE")
    if words.startswith((*ON_THEIR_OWN, *CREATED_ON_THEIR_OWN)) or "CONCURRENTLY" in words.split():
        found.not_atomic.append(_shown(text))
    elif is_cascade or not words.startswith(HARMLESS):
        found.opaque.append(_shown(text))


def _read_query(one: exp.Expr, found: Statements, shown: str) -> None:
    for part in one.find_all(exp.Delete, exp.Update, exp.Merge):
        if isinstance(part.this, exp.Table):
            found.losses.append(_loss("rows", part.this))
    for part in one.find_all(exp.Insert):
        conflict, table = part.args.get("conflict"), part.this.find(exp.Table)
        if conflict is not None and conflict.expressions and table is not None:
            found.losses.append(_loss("rows", table))
    if isinstance(one, exp.TruncateTable):
        found.losses += [_loss("rows", table) for table in one.expressions if isinstance(table, exp.Table)]
        if one.args.get("option") == "CASCADE":
            found.opaque.append(shown)
    if shown.upper().startswith(CREATED_ON_THEIR_OWN):
        found.not_atomic.append(shown)
    # A function may do anything; those that PostgreSQL brings along are known by sqlglot, most of them.
    if isinstance(one, exp.Select) and one.find(exp.Anonymous):
        found.opaque.append(shown)


def _dropped(one: exp.Drop) -> Iterator[exp.Table]:
    listed = one.args.get("tables") or [one.this]
    yield from (table for table in listed if isinstance(table, exp.Table))


def _is_concurrent(one: exp.Expr) -> bool:
    return isinstance(one, exp.Drop | exp.Create) and bool(one.args.get("concurrently"))


def _loss(kind: Literal["table", "rows"], table: exp.Table) -> Loss:
    return Loss(kind, *_names(table))


def _names(table: exp.Table) -> tuple[str | None, str]:
    schema = table.args.get("db")
    return (None if schema is None else _folded(schema)), _folded(table.this)


def _folded(name: exp.Expression) -> str:
    """Return a name as the server has it: in lower case, but for one in quotes."""
    return name.name if name.args.get("quoted") else name.name.lower()


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."
