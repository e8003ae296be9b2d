"""What `pg_dump` leaves out of a database: its grants, its comment, and the settings that sessions in it begin with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import psycopg
from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import DatabaseError, DatabaseMissing, PermissionDenied
from opsproof.intent import disclose, enclose, own_comment
from opsproof.system.postgres.server import OWN_SETTINGS, Connection

PRIVILEGES = {"C": "CREATE", "T": "TEMPORARY", "c": "CONNECT"}
ACL_ITEM = re.compile(r'("(?:[^"]|"")*"|[^="]*)=([CTc*]*)/("(?:[^"]|"")*"|[^"]*)', re.DOTALL)
# Settings that are lists of names, each quoted by itself: GUC_LIST_QUOTE in PostgreSQL's source, and in pg_dump's.
LISTS = (
    "local_preload_libraries",
    "search_path",
    "session_preload_libraries",
    "shared_preload_libraries",
    "temp_tablespaces",
    "unix_socket_directories",
)
LIST_ITEM = re.compile(r'\s*("(?:[^"]|"")*"|[^",]*)\s*(?:,|$)', re.DOTALL)


class _Source(Protocol):
    """Whose properties they are: DatabaseFacts, or a manifest's DatabaseRecord."""

    @property
    def owner(self) -> str: ...
    @property
    def acl(self) -> tuple[str, ...]: ...
    @property
    def comment(self) -> str | None: ...
    @property
    def settings(self) -> Sequence[Any]: ...


@dataclass(frozen=True, order=True)
class Grant:
    """A privilege of a role (PUBLIC where that is empty), by whom it was granted, and whether it can be passed on."""

    role: str
    privilege: str
    grantor: str
    passes_on: bool


@dataclass(frozen=True)
class Properties:
    """What is copied: grants, comment, and settings as (role or None, `name=value`)."""

    owner: str
    grants: frozenset[Grant]
    comment: str | None
    settings: tuple[tuple[str | None, str], ...]


def copy_properties(
    connection: Connection, source: str | _Source, database: str, *, roles: Mapping[str, str] | None = None
) -> None:
    """Give a database the grants, the comment and the settings of another, and make sure that it has them.

    All of it is one transaction. What the source's owner had, the database's own owner gets. What opsproof itself
    wrote (an intent) neither comes along nor goes away.

    Args:
        connection: A maintenance connection, of the database's owner; where others than the owner granted something,
            where roles have settings of their own here, or where a setting takes it, of a superuser.
        source: A database on the same server, or what a manifest says of one.
        database: Which is changed.
        roles: Roles of the source that others take the place of.

    Raises:
        DatabaseMissing: One of the databases does not exist.
        PermissionDenied: The role may not; the error says what.
        DatabaseError: A role or a setting does not exist here, or what stands there afterwards is not equal.
    """
    wanted = read_properties(connection, source) if isinstance(source, str) else _stated(source)
    present = read_properties(connection, database)
    wanted = _renamed(wanted, {**(roles or {}), wanted.owner: present.owner})
    with connection.transaction():
        if wanted.grants != present.grants:
            for statement, role in _grant(database, present, wanted):
                _run(connection, database, statement, "" if role == wanted.owner else role)
        if wanted.comment != present.comment:
            _run(connection, database, _comment(connection, database, wanted.comment))
        if wanted.settings != present.settings:
            for statement in _set(database, present, wanted):
                _run(connection, database, statement)
        found = read_properties(connection, database)
        if found != wanted:
            raise DatabaseError(
                f"Database {database!r} did not get the properties that it should",
                expected=repr(wanted),
                found=repr(found),
                kept="nothing was changed",
            )


def read_properties(connection: Connection, database: str) -> Properties:
    """Return what a database on this server has.

    Raises:
        DatabaseMissing: There is none of this name.
    """
    row = connection.execute(
        "SELECT oid, pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'),"
        " (SELECT array_agg(a::text) FROM unnest(coalesce(datacl, acldefault('d', datdba))) a)"
        " FROM pg_database WHERE datname = %s",
        (database,),
    ).fetchone()
    if row is None:
        raise DatabaseMissing(f"Database {database!r} does not exist", kept="nothing was changed")
    settings = connection.execute(
        "SELECT CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole) END, unnest(setconfig)"
        " FROM pg_db_role_setting WHERE setdatabase = %s",
        (row[0],),
    ).fetchall()
    grants, lines = read_acl(row[3] or ()), _own((role, line) for role, line in settings)
    return Properties(row[1], grants, own_comment(row[2]), lines)


def read_acl(items: Iterable[str]) -> frozenset[Grant]:
    """Read an access control list as the server prints it: `role=CTc*/grantor`.

    Raises:
        DatabaseError: It is none of a database.
    """
    grants = set()
    for item in items:
        match = ACL_ITEM.fullmatch(item)
        if match is None:
            raise DatabaseError("A grant of a database cannot be read", expected="role=CTc/grantor", found=repr(item))
        role, letters, grantor = match.groups()
        for letter, star in re.findall(r"([CTc])(\*?)", letters):
            grants.add(Grant(_unquoted(role), PRIVILEGES[letter], _unquoted(grantor), bool(star)))
    return frozenset(grants)


def read_list(value: str) -> list[str]:
    """Split a setting that is a list of names: `public, "odd, path"`."""
    items, position = [], 0
    while position < len(value):
        match = LIST_ITEM.match(value, position)
        if match is None or match.end() == position:
            return [value]
        items.append(_unquoted(match[1].strip()))
        position = match.end()
    return items


def _stated(source: _Source) -> Properties:
    own = source.owner
    default = (f"=Tc/{_quoted(own)}", f"{_quoted(own)}=CTc/{_quoted(own)}")
    lines = (one if isinstance(one, tuple) else (one.role, one.setting) for one in source.settings)
    return Properties(own, read_acl(source.acl or default), source.comment, _own(lines))


def _own(lines: Iterable[tuple[str | None, str]]) -> tuple[tuple[str | None, str], ...]:
    kept = [(role, line) for role, line in lines if not line.startswith(OWN_SETTINGS)]
    return tuple(sorted(kept, key=lambda one: (one[0] or "", one[1])))


def _renamed(properties: Properties, names: Mapping[str, str]) -> Properties:
    grants = {
        Grant(names.get(one.role, one.role), one.privilege, names.get(one.grantor, one.grantor), one.passes_on)
        for one in properties.grants
    }
    # Two roles that become one may hold the same twice: with and without the right to pass it on.
    strongest = frozenset(
        one for one in grants if one.passes_on or Grant(one.role, one.privilege, one.grantor, True) not in grants
    )
    lines = ((None if role is None else names.get(role, role), line) for role, line in properties.settings)
    return Properties(names[properties.owner], strongest, properties.comment, _own(set(lines)))


def _grant(database: str, present: Properties, wanted: Properties) -> list[tuple[sql.Composed, str]]:
    """Return statements, each with the role that says it, that turn one set of grants into another."""
    name, owner = sql.Identifier(database), wanted.owner
    said = [
        (sql.SQL("REVOKE ALL ON DATABASE {} FROM {} CASCADE").format(name, _role(role)), owner)
        for role in sorted({one.role for one in present.grants if one.grantor == owner})
    ]
    waiting, able = sorted(wanted.grants), {(owner, privilege) for privilege in PRIVILEGES.values()}
    while ready := [one for one in waiting if (one.grantor, one.privilege) in able]:
        for one in ready:
            ending = sql.SQL(" WITH GRANT OPTION" if one.passes_on else "")
            words = sql.SQL(one.privilege), name, _role(one.role), ending
            said.append((sql.SQL("GRANT {} ON DATABASE {} TO {}{}").format(*words), one.grantor))
            if one.passes_on:
                able.add((one.role, one.privilege))
        waiting = [one for one in waiting if one not in ready]
    return said


def _set(database: str, present: Properties, wanted: Properties) -> list[sql.Composed]:
    name = sql.Identifier(database)

    def subject(role: str | None) -> sql.Composed:
        if role is None:
            return sql.SQL("ALTER DATABASE {}").format(name)
        return sql.SQL("ALTER ROLE {} IN DATABASE {}").format(sql.Identifier(role), name)

    said = []
    for role, line in set(present.settings) - set(wanted.settings):
        words = subject(role), sql.Identifier(line.partition("=")[0])
        said.append(sql.SQL("{} RESET {}").format(*words))
    for role, line in sorted(set(wanted.settings) - set(present.settings), key=lambda one: (one[0] or "", one[1])):
        setting, _, value = line.partition("=")
        values = read_list(value) if setting.lower() in LISTS else [value]
        shown = sql.SQL(", ").join(map(sql.Literal, values or [""]))
        said.append(sql.SQL("{} SET {} TO {}").format(subject(role), sql.Identifier(setting), shown))
    return said


def _comment(connection: Connection, database: str, comment: str | None) -> sql.Composed:
    row = connection.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,)
    ).fetchone()
    _, intent = disclose(row[0] if row else None)
    text = comment if intent is None else enclose(comment, intent)
    return sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(text))


def _run(connection: Connection, database: str, statement: sql.Composed, role: str = "") -> None:
    """Run a statement; as another role where it is that role's grant."""
    try:
        if role:
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(role)))
        connection.execute(statement)
        if role:
            connection.execute("RESET ROLE")
    except psycopg.Error as error:
        kind = PermissionDenied if isinstance(error, pg.InsufficientPrivilege) else DatabaseError
        raise kind(
            f"Database {database!r} cannot be given all the properties that it should have",
            expected=f"{statement.as_string(connection)};" + (f" said by role {role!r}" if role else ""),
            found=str(error).strip().splitlines()[0],
            kept="nothing was changed",
            hint="run it as a role that may, or take this property off the database that it comes from",
        ) from error


def _role(name: str) -> sql.Composable:
    return sql.Identifier(name) if name else sql.SQL("PUBLIC")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name
