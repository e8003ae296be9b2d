"""What migrations leave in a database, as the inventory's `artifacts` name it: tables by pattern, rows by SQL."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import psycopg
from psycopg import sql

from opsproof.errors import ConfigurationError, ProofError
from opsproof.system.postgres.databases import explained
from opsproof.system.postgres.server import Connection, connect, own_search_path
from opsproof.target import Target

# Tables that make a database what it is; no pattern reaches them.
NEVER = ("alembic_version", "ir_attachment", "ir_config_parameter", "ir_module_module", "res_users")
DEFAULT_SCHEMA = "public"
SHOWN = 60


@dataclass(frozen=True)
class Table:
    """A table that a pattern matches.

    Attributes:
        name: `schema.table`.
        stays: Why it stays all the same; empty where it goes.
    """

    oid: int
    schema: str
    table: str
    rows: int
    bytes: int
    stays: str

    @property
    def name(self) -> str:
        """Return `schema.table`."""
        return f"{self.schema}.{self.table}"


@dataclass(frozen=True)
class Rows:
    """A statement that deletes rows, from which tables, and about how many, as the server's planner expects."""

    statement: str
    tables: tuple[str, ...]
    expected: int

    @property
    def shown(self) -> str:
        """Return the statement in one line, cut."""
        line = " ".join(self.statement.split())
        return line if len(line) <= SHOWN else f"{line[: SHOWN - 3]}..."


@dataclass(frozen=True)
class Found:
    """What there is to clean up in a database."""

    tables: tuple[Table, ...] = ()
    rows: tuple[Rows, ...] = ()

    @property
    def going(self) -> list[Table]:
        """The tables that go."""
        return [one for one in self.tables if not one.stays]

    @property
    def is_anything(self) -> bool:
        """Tell whether a cleanup would change the database."""
        return bool(self.going or self.rows)


def find_artifacts(target: Target) -> Found:
    """Find what the inventory's artifacts are in a target's database; nothing can be written meanwhile.

    Raises:
        ConfigurationError: A pattern matches everything, or a statement does not delete rows.
        DatabaseError: The server refused.
    """
    artifacts = target.policies.artifacts
    for pattern in artifacts.tables:
        if not re.search(r"\w", pattern.rpartition(".")[2].replace("_", "")):
            raise ConfigurationError(
                f"The pattern {pattern!r} of artifacts would match any table",
                expected="letters of the names that migrations leave, as in openupgrade_legacy_*",
                found=repr(pattern),
                kept="nothing was changed",
                hint="correct `artifacts: {tables: [...]}` in the inventory",
            )
    if not (artifacts.tables or artifacts.rows):
        return Found()
    with connect(target.database, lock_timeout=target.lock_timeout) as connection:
        connection.read_only = True
        tables = _find_tables(connection, target) if artifacts.tables else ()
        with own_search_path(connection):
            rows = tuple(_explain(connection, statement) for statement in artifacts.rows)
        connection.rollback()
    return Found(tables, rows)


def drop_tables(target: Target, tables: Sequence[Table], require: Callable[[Connection], None]) -> None:
    """Drop tables, all or none; nothing that depends on one of them goes with it.

    Args:
        target: Whose.
        tables: Which.
        require: Called once nobody can write into them any more; what it raises keeps all of them.

    Raises:
        ProofError: One is another table by now.
        DatabaseError: The server refused: something depends on one, or somebody holds one.
    """
    if not tables:
        return
    names = sql.SQL(", ").join(sql.Identifier(one.schema, one.table) for one in tables)
    with (
        connect(target.database, lock_timeout=target.lock_timeout) as connection,
        explained("The tables that migrations have left cannot be dropped", kept="all of them"),
        connection.transaction(),
    ):
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(names))
        for one in tables:
            row = connection.execute(
                "SELECT c.oid::bigint FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace"
                " WHERE nspname = %s AND relname = %s",
                (one.schema, one.table),
            ).fetchone()
            if row != (one.oid,):
                raise ProofError(
                    f"{one.name} is not dropped: it is another table by now",
                    expected=f"the one that was found, oid {one.oid}",
                    found="none" if row is None else f"oid {row[0]}",
                    kept="all of the tables",
                    hint="run the same command again, and read its plan",
                )
        require(connection)
        connection.execute(sql.SQL("DROP TABLE {} RESTRICT").format(names))


def delete_rows(target: Target, rows: Sequence[Rows]) -> dict[str, int]:
    """Run the statements that delete rows, all or none. Return how many rows each has deleted.

    Raises:
        DatabaseError: The server refused one; none has deleted anything.
    """
    deleted = {}
    kept = "all rows: none of the statements counts"
    with connect(target.database, lock_timeout=target.lock_timeout) as connection, own_search_path(connection):
        for one in rows:
            with explained(f"Rows cannot be deleted by: {one.shown}", kept=kept):
                # A prepared one cannot be two statements, of which the second is no part of the transaction.
                deleted[one.statement] = max(connection.execute(one.statement.encode(), prepare=True).rowcount, 0)
        with explained("Rows cannot be deleted", kept=kept):
            connection.commit()
    return deleted


def find_left(target: Target, tables: Sequence[Table]) -> list[str]:
    """Return those of some tables that are there."""
    with connect(target.database) as connection:
        found = connection.execute(
            "SELECT oid::bigint FROM pg_class WHERE oid::bigint = ANY(%s)", ([one.oid for one in tables],)
        ).fetchall()
    left = {oid for (oid,) in found}
    return [one.name for one in tables if one.oid in left]


def _find_tables(connection: Connection, target: Target) -> tuple[Table, ...]:
    matched = [
        (oid, schema, table, size, why)
        for oid, schema, table, size, why in connection.execute(
            "SELECT c.oid::bigint, nspname::text, relname::text, pg_total_relation_size(c.oid), CASE"
            " WHEN relispartition OR EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.oid)"
            " THEN 'it is a part of another table'"
            " WHEN EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid"
            " AND deptype = 'e') THEN 'it belongs to an extension' ELSE '' END"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p')"
            " AND relpersistence <> 't' AND nspname <> 'information_schema' AND nspname !~ '^pg_' ORDER BY 2, 3"
        ).fetchall()
        if any(_matches(pattern, schema, table) for pattern in target.policies.artifacts.tables)
    ]
    known = {oid: f"{schema}.{table}" for oid, schema, table, _, _ in matched}
    stays = {oid: why for oid, _, _, _, why in matched if why}
    needed = _needed(target)
    stays |= {oid: needed[name] for oid, name in known.items() if oid not in stays and name in needed}
    dependents = {oid: list(_dependents(connection, oid)) for oid in known}
    # What stays keeps what it depends on, which keeps what that depends on.
    while added := {
        oid: f"{text} depends on it"
        for oid, found in dependents.items()
        if oid not in stays
        for other, text in found
        if other not in known or other in stays
    }:
        stays |= added
    return tuple(
        Table(oid, schema, table, _count(connection, schema, table), size, stays.get(oid, ""))
        for oid, schema, table, size, _ in matched
    )


def _matches(pattern: str, schema: str, table: str) -> bool:
    # Brackets are letters here: `[` of a name that has one.
    letters = pattern.replace("[", "[[]")
    name = table if schema == DEFAULT_SCHEMA and "." not in pattern else f"{schema}.{table}"
    return fnmatchcase(name, letters)


def _needed(target: Target) -> dict[str, str]:
    """Return the tables that are never dropped, and why."""
    validation = target.validation
    named = [*validation.tables]
    for relation in validation.relations:
        named += [relation.child.rpartition(".")[0], relation.parent.rpartition(".")[0]]
    needed = {f"{DEFAULT_SCHEMA}.{name}": "the application cannot do without it" for name in NEVER}
    for name in named:
        plain = name.replace('"', "")
        needed[plain if "." in plain else f"{DEFAULT_SCHEMA}.{plain}"] = "the inventory's validation names it"
    return needed


def _dependents(connection: Connection, oid: int) -> Iterator[tuple[int, str]]:
    """Yield what would not let a table go: the table that it is or is a part of (0: none), and what it is."""
    rows = connection.execute(
        "SELECT DISTINCT CASE classid WHEN 'pg_constraint'::regclass THEN"
        " (SELECT conrelid::bigint FROM pg_constraint WHERE oid = objid)"
        " WHEN 'pg_class'::regclass THEN objid::bigint WHEN 'pg_attrdef'::regclass THEN"
        " (SELECT adrelid::bigint FROM pg_attrdef WHERE oid = objid) ELSE 0 END, pg_describe_object(classid, objid, 0)"
        " FROM pg_depend WHERE deptype = 'n' AND (refclassid = 'pg_class'::regclass AND (refobjid = %(oid)s::oid"
        " OR refobjid IN (SELECT d.objid FROM pg_depend d WHERE d.refclassid = 'pg_class'::regclass"
        " AND d.refobjid = %(oid)s::oid AND d.classid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')))"
        " OR refclassid = 'pg_type'::regclass AND refobjid IN (SELECT t.oid FROM pg_type t WHERE t.typrelid ="
        " %(oid)s::oid OR t.typelem IN (SELECT reltype FROM pg_class WHERE pg_class.oid = %(oid)s::oid)))",
        {"oid": oid},
    ).fetchall()
    for other, text in rows:
        if other != oid:
            yield int(other or 0), str(text)


def _count(connection: Connection, schema: str, table: str) -> int:
    row = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, table))).fetchone()
    return int(row[0]) if row else 0


def _explain(connection: Connection, statement: str) -> Rows:
    """Ask the server what a statement would do; it does not do it.

    Raises:
        ConfigurationError: It cannot be planned, or does something else than delete rows.
    """
    hint = "correct `artifacts: {rows: [...]}` in the inventory: DELETE FROM ... WHERE ..., one statement each"
    try:
        # As no two statements can be prepared as one, nothing but the first is looked at, and nothing is run.
        row = connection.execute(b"EXPLAIN (FORMAT JSON, COSTS) " + statement.encode(), prepare=True).fetchone()
    except psycopg.Error as error:
        raise ConfigurationError(
            "A statement of artifacts cannot be run",
            expected="one statement that deletes rows",
            found=f"{' '.join(statement.split())}\n{str(error).strip()}",
            kept="nothing was changed",
            hint=hint,
        ) from error
    plan = row[0][0]["Plan"] if row else {}
    changes = [node for node in _nodes(plan) if node.get("Node Type") == "ModifyTable"]
    if plan.get("Node Type") != "ModifyTable" or any(node.get("Operation") != "Delete" for node in changes):
        raise ConfigurationError(
            "A statement of artifacts does something else than delete rows",
            expected="one statement that deletes rows",
            found=" ".join(statement.split()),
            kept="nothing was changed",
            hint=hint,
        )
    tables = dict.fromkeys(str(node.get("Relation Name", "?")) for node in changes)
    expected = sum(int(each.get("Plan Rows", 0)) for each in plan.get("Plans", ())[:1])
    return Rows(statement, tuple(tables), expected)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for each in plan.get("Plans", ()):
        yield from _nodes(each)
