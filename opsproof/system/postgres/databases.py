"""Databases as things on a server: their names, making and dropping them, and the intent that one bears.

Everything here is said from a maintenance connection, never from the database itself. What it takes, seen on
PostgreSQL 15 and 18: the owner of a database, or a member of the owning role, may do all of it but create and rename,
which take CREATEDB besides; a superuser may do anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from hashlib import sha256
from typing import Protocol

import psycopg
from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import ConnectionFailed, DatabaseError, DatabaseMissing, LockTimeout, PermissionDenied
from opsproof.intent import MARK, Intent, disclose, enclose
from opsproof.system.postgres.dropping import drop
from opsproof.system.postgres.server import NAME_BYTES, Connection

STAMP = "%Y%m%d%H%M%S"
OURS = re.compile(r".+__(side|before|scratch)_\d{14}", re.DOTALL)
HASH_DIGITS = 8
# Errors after which there is no connection: of the connection itself, of an operator, of a timeout between statements.
LOST = ("08", "57P", "25P03", "25P04")


class _Shape(Protocol):
    """What a new database is made like: DatabaseFacts, or a manifest's DatabaseRecord."""

    @property
    def owner(self) -> str: ...
    @property
    def encoding(self) -> str: ...
    @property
    def collate(self) -> str: ...
    @property
    def ctype(self) -> str: ...
    @property
    def locale_provider(self) -> str: ...
    @property
    def locale(self) -> str | None: ...
    @property
    def icu_rules(self) -> str | None: ...


def side_name(database: str, moment: datetime) -> str:
    """Return the name of a side database, `{db}__side_{YYYYMMDDHHMMSS}` in UTC, in 63 bytes at most."""
    return _named(database, "side", moment)


def scratch_name(database: str, moment: datetime) -> str:
    """Return the name of a scratch database, `{db}__scratch_{YYYYMMDDHHMMSS}` in UTC, in 63 bytes at most."""
    return _named(database, "scratch", moment)


def parked_name(database: str, moment: datetime) -> str:
    """Return the name of a parked database, `{db}__before_{YYYYMMDDHHMMSS}` in UTC, in 63 bytes at most."""
    return _named(database, "before", moment)


def oid_of(connection: Connection, name: str) -> int | None:
    """Return what tells a database from all others whatever its name is; None where there is none of this name."""
    row = connection.execute("SELECT oid::bigint FROM pg_database WHERE datname = %s", (name,)).fetchone()
    return None if row is None else int(row[0])


def database_exists(connection: Connection, name: str) -> bool:
    """Tell whether there is a database of this name, whether or not it can be connected to."""
    return oid_of(connection, name) is not None


def create_side(connection: Connection, name: str, shape: _Shape, *, owner: str = "", like: str = "") -> None:
    """Create an empty database that no application sees, from template0: nothing of template1 gets in.

    It is a template from its first moment on. Odoo's cron, for one, runs on every connectable database of its role
    that is none.

    Args:
        connection: A maintenance connection, of a role with CREATEDB that is the owner's or a member of it.
        name: Its name.
        shape: Whose encoding, locale and owner it gets.
        owner: Another owner than the shape's.
        like: The live database, whose tablespace it gets, and whose collation rules where the shape does not say any;
            the server's default where there is none.

    Raises:
        PermissionDenied: The role may not create databases, or not for this owner.
        DatabaseError: The name is taken, or the server does not know the owner, the locale or the encoding.
    """
    version = connection.info.server_version
    words: dict[str, str | bool] = {"ENCODING": shape.encoding, "LC_COLLATE": shape.collate, "LC_CTYPE": shape.ctype}
    if version >= 150000:
        words["LOCALE_PROVIDER"] = shape.locale_provider
    if shape.locale is not None and shape.locale_provider in ("icu", "builtin"):
        words[f"{shape.locale_provider.upper()}_LOCALE"] = shape.locale
    rules = "daticurules" if version >= 160000 else "NULL::text"
    row = connection.execute(
        sql.SQL(
            # template0's own tablespace is what a new database gets; to say it takes rights that nobody needs.
            "SELECT CASE WHEN d.dattablespace <> (SELECT dattablespace FROM pg_database WHERE datname = 'template0')"
            " THEN spcname END, {} FROM pg_database d JOIN pg_tablespace t ON t.oid = dattablespace WHERE datname = %s"
        ).format(sql.SQL(rules)),
        (like,),
    ).fetchone()
    tablespace, like_rules = row or (None, None)
    icu_rules = like_rules if shape.icu_rules is None else shape.icu_rules
    if icu_rules and shape.locale_provider == "icu":
        words["ICU_RULES"] = icu_rules
    options = [sql.SQL("{} {}").format(sql.SQL(word), sql.Literal(value)) for word, value in words.items()]
    if tablespace:
        options.append(sql.SQL("TABLESPACE {}").format(sql.Identifier(tablespace)))
    query = sql.SQL("CREATE DATABASE {} TEMPLATE template0 OWNER {} IS_TEMPLATE true {}").format(
        sql.Identifier(name), sql.Identifier(owner or shape.owner), sql.SQL(" ").join(options)
    )
    with explained(f"Database {name!r} cannot be created", hint="ALTER ROLE ... CREATEDB; or a role that may do it"):
        connection.execute(query)


def drop_database(connection: Connection, name: str, *, even_live: bool = False) -> None:
    """Drop a side or a parked database and end its sessions; one that is gone already is no error.

    Args:
        connection: A maintenance connection, of the owner or a superuser.
        name: Its name, as `side_name` or `parked_name` made it.
        even_live: Any other name, too.

    Raises:
        DatabaseError: The name is another one; or a replication slot, a subscription or a prepared transaction is in
            it, which would be lost.
        PermissionDenied: The role is not its owner, or may not end the sessions in it.
    """
    if not even_live and not OURS.fullmatch(name):
        raise DatabaseError(
            f"Database {name!r} is not dropped: it is neither a side nor a parked database",
            expected="a name like app__side_20260131020000 or app__before_20260131020000",
            found=repr(name),
            kept="nothing was changed",
        )
    row = connection.execute("SELECT datistemplate FROM pg_database WHERE datname = %s", (name,)).fetchone()
    if row is None:
        return
    # DROP DATABASE takes an idle slot with it without a word.
    slots = connection.execute(
        "SELECT slot_name::text FROM pg_replication_slots WHERE database = %s ORDER BY 1", (name,)
    ).fetchall()
    if slots:
        raise DatabaseError(
            f"Database {name!r} is not dropped: replication slots would be lost with it",
            expected="no replication slot",
            found=", ".join(repr(slot) for (slot,) in slots),
            kept="nothing was changed",
            hint=f"SELECT pg_drop_replication_slot({sql.Literal(slots[0][0]).as_string()}); once nobody needs it",
        )
    sessions = sql.SQL("SELECT pid, usename FROM pg_stat_activity WHERE datname = {}").format(sql.Literal(name))
    remedy = f"as its owner or a superuser; a superuser's session only he may end: {sessions.as_string()}"
    with explained(f"Database {name!r} cannot be dropped", hint=remedy):
        if row[0]:
            # Not a template any more, it must not be seen for the moment that it still has.
            connection.execute(
                sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false IS_TEMPLATE false").format(sql.Identifier(name))
            )
        drop(connection, name)


def write_intent(connection: Connection, database: str, intent: Intent) -> None:
    """Put an intent on a database, in the place of any that it bears; its own comment is kept inside.

    Raises:
        DatabaseMissing: There is no such database.
        PermissionDenied: The role is not its owner.
    """
    own, _ = disclose(read_comment(connection, database))
    write_comment(connection, database, enclose(own, intent))


def read_intent(connection: Connection, database: str) -> Intent | None:
    """Return the intent that a database bears.

    Raises:
        DatabaseMissing: There is no such database.
        DatabaseError: The intent cannot be read.
    """
    return disclose(read_comment(connection, database))[1]


def clear_intent(connection: Connection, database: str) -> None:
    """Take every intent off a database; its own comment is as before.

    Raises:
        DatabaseMissing: There is no such database.
        PermissionDenied: The role is not its owner.
    """
    comment = read_comment(connection, database)
    own, intent = disclose(comment)
    while intent is not None:
        comment, (own, intent) = own, disclose(own)
        if intent is None:
            write_comment(connection, database, comment)


def find_intents(connection: Connection) -> tuple[tuple[str, Intent], ...]:
    """Return all databases of the server that bear an intent, and it, sorted by name.

    Raises:
        DatabaseError: One cannot be read.
    """
    # starts_with compares bytes: a comment in another encoding than this database's is not looked into.
    rows = connection.execute(
        "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"
        " WHERE starts_with(shobj_description(oid, 'pg_database'), %s) ORDER BY 1",
        (MARK,),
    ).fetchall()
    found = []
    for name, comment in rows:
        try:
            intent = disclose(comment)[1]
        except DatabaseError as error:
            raise DatabaseError(
                f"The intent of opsproof on database {name!r} cannot be read",
                expected=error.expected,
                found=error.found,
                kept="nothing was changed",
                hint=sql.SQL("look at what it says, then: COMMENT ON DATABASE {} IS NULL")
                .format(sql.Identifier(name))
                .as_string(),
            ) from error
        if intent is not None:
            found.append((name, intent))
    return tuple(found)


def read_comment(connection: Connection, database: str) -> str | None:
    """Return the comment of a database as it stands there.

    Raises:
        DatabaseMissing: There is no such database.
    """
    row = connection.execute(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (database,)
    ).fetchone()
    if row is None:
        raise DatabaseMissing(f"Database {database!r} does not exist", kept="nothing was changed")
    comment: str | None = row[0]
    return comment


def write_comment(connection: Connection, database: str, comment: str | None) -> None:
    """Write the comment of a database, with any intent that is in it."""
    query = sql.SQL("COMMENT ON DATABASE {} IS {}").format(sql.Identifier(database), sql.Literal(comment))
    with explained(f"Database {database!r} cannot be given a comment"):
        connection.execute(query)


@contextmanager
def explained(summary: str, *, kept: str = "nothing was changed", hint: str = "") -> Iterator[None]:
    """Turn what the server says no to into an error that begins with a sentence of ours.

    Raises:
        PermissionDenied: The role may not.
        LockTimeout: Somebody held a lock for too long.
        ConnectionFailed: The connection is lost.
        DatabaseError: Anything else.
    """
    try:
        yield
    except psycopg.Error as error:
        kind: type[DatabaseError] = DatabaseError
        if isinstance(error, pg.InsufficientPrivilege):
            kind = PermissionDenied
        elif isinstance(error, pg.LockNotAvailable):
            kind = LockTimeout
        elif error.sqlstate is None or error.sqlstate.startswith(LOST):
            kind = ConnectionFailed
        found = "\n".join(filter(None, [str(error).strip().splitlines()[0], error.diag.message_detail]))
        remedy = error.diag.message_hint or (hint if kind is PermissionDenied else "")
        if kind is ConnectionFailed and not remedy:
            remedy = "look at the server's log, then run it again"
        raise kind(summary, found=found, kept=kept, hint=remedy) from error


def _named(database: str, kind: str, moment: datetime) -> str:
    ending = f"__{kind}_{moment.astimezone(UTC).strftime(STAMP)}"
    room = NAME_BYTES - len(ending)
    name = database.encode()
    if len(name) > room:
        # Of two long names the beginnings may be equal: the hash tells them apart.
        digest = sha256(name).hexdigest()[:HASH_DIGITS]
        name = name[: room - HASH_DIGITS - 1].decode(errors="ignore").encode() + f"_{digest}".encode()
    return name.decode() + ending
