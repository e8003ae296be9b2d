"""A PostgreSQL server and its databases, through psycopg: connect, describe, and say clearly what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.rows import tuple_row

from opsproof.errors import DatabaseError, OpsproofError
from opsproof.system.diagnosis import database_missing, explain_query_error, no_connection, refused_database
from opsproof.target import DatabaseAddress

OLDEST_MAJOR = 13
CONNECT_SECONDS = 10
# Databases to ask for names from, when the one that is wanted does not answer.
MAINTENANCE_DATABASES = ("postgres", "template1")


Connection = psycopg.Connection[tuple[Any, ...]]

# Text output depends on these; pg_dump pins some of them itself, and gets the others from here.
# The timeouts come first: a role that has its own would be cut short before the rest is set.
PINNED = {
    "statement_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "timezone": "UTC",
    "bytea_output": "hex",
    "xmlbinary": "base64",
    "quote_all_identifiers": "off",
}
SESSION = {
    **PINNED,
    "datestyle": "ISO, YMD",
    "intervalstyle": "postgres",
    "extra_float_digits": "3",
    "row_security": "off",
    "search_path": "",
    "synchronize_seqscans": "off",
}


@dataclass(frozen=True)
class Server:
    """What answered: version and identity of the server, and who we are to it."""

    version: str
    version_num: int
    system_identifier: str
    user: str
    is_superuser: bool

    @property
    def major(self) -> int:
        """The major version: 15 of 15.18."""
        return self.version_num // 10000


@dataclass(frozen=True)
class DatabaseFacts:
    """What `CREATE DATABASE` and `ALTER DATABASE` would have to say to make this database anew.

    `settings` are `name=value` lines of `ALTER DATABASE ... SET`, and of `ALTER ROLE ... IN DATABASE` with the role
    before them; `bytes` is its size on the server's disk.
    """

    name: str
    owner: str
    encoding: str
    collate: str
    ctype: str
    locale_provider: str
    locale: str | None
    connection_limit: int
    bytes: int
    acl: tuple[str, ...]
    comment: str | None
    settings: tuple[tuple[str | None, str], ...]
    extensions: tuple[tuple[str, str, str], ...]


@contextmanager
def connect(
    address: DatabaseAddress, *, database: str | None = None, lock_timeout: float = 60.0
) -> Iterator[Connection]:
    """Connect to a database, with everything pinned that the text of a value depends on.

    Args:
        address: Where and as whom.
        database: Another database on the same server than the address names.
        lock_timeout: Seconds to wait for a lock.

    Raises:
        ConnectionFailed: The server did not answer within 10 seconds, or refused the login.
        DatabaseMissing: The server has no such database.
        PermissionDenied: The role may not connect to it.
    """
    name = address.name if database is None else database
    try:
        connection = _connect(address, name)
    except psycopg.OperationalError as error:
        raise _explain(address, name, error) from error
    try:
        settings = {**SESSION, "lock_timeout": f"{lock_timeout * 1000:.0f}"}
        for setting, value in settings.items():
            connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (setting, value))
        connection.commit()
        yield connection
    except psycopg.Error as error:
        raise explain_query_error(address, error) from error
    finally:
        connection.close()


def read_server(connection: Connection) -> Server:
    """Return version and identity of the server behind a connection.

    Raises:
        DatabaseError: The server is older than PostgreSQL 13.
    """
    row = _row(
        connection,
        "SELECT current_setting('server_version'), current_setting('server_version_num')::int, session_user::text,"
        " (SELECT rolsuper FROM pg_roles WHERE rolname = session_user),"
        " (SELECT system_identifier::text FROM pg_control_system())",
    )
    server = Server(row[0], row[1], row[4], row[2], bool(row[3]))
    if server.major < OLDEST_MAJOR:
        raise DatabaseError(
            f"PostgreSQL {server.version} is older than what opsproof supports",
            expected=f"PostgreSQL {OLDEST_MAJOR} or newer",
            found=server.version,
            kept="nothing was changed",
        )
    return server


@contextmanager
def hold_lock(address: DatabaseAddress) -> Iterator[None]:
    """Keep every other run of opsproof off this database for as long as the block lasts.

    The lock is the server's (an advisory one), so that it ends with the connection, however this process ends; and it
    is taken in one fixed database, since advisory locks are per database and the name of ours may change hands.

    Raises:
        DatabaseError: Another run holds it.
    """
    try:
        with _connect(address, MAINTENANCE_DATABASES[0]) as probe:
            probe.execute("SELECT 1")
        place = MAINTENANCE_DATABASES[0]
    except psycopg.OperationalError:
        place = address.name
    with connect(address, database=place) as connection:
        connection.autocommit = True
        row = connection.execute(
            "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (f"opsproof {address.name}",)
        ).fetchone()
        if row is None or not row[0]:
            raise DatabaseError(
                f"Another run of opsproof is at work on database {address.name!r}",
                expected="one run at a time",
                found="the lock is taken: SELECT * FROM pg_locks WHERE locktype = 'advisory'",
                kept="nothing was changed",
                hint="wait for the other run, or end it, then run this again",
            )
        yield


def list_databases(connection: Connection) -> tuple[str, ...]:
    """Return the names of all databases that are not templates, sorted."""
    rows = connection.execute("SELECT datname FROM pg_database WHERE NOT datistemplate ORDER BY 1").fetchall()
    return tuple(row[0] for row in rows)


def describe_database(connection: Connection) -> DatabaseFacts:
    """Return what would have to be said to make the connection's database anew."""
    version = connection.info.server_version
    provider = "datlocprovider" if version >= 150000 else "'c'"
    # The locale of a provider other than libc: daticulocale in 15 and 16, datlocale from 17 on.
    locale = "datlocale" if version >= 170000 else "daticulocale" if version >= 150000 else "NULL"
    # S608: only the names of catalogue columns are put in, chosen above.
    query = (
        "SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype,"  # noqa: S608
        f" {provider}, {locale}, datconnlimit, pg_database_size(oid),"
        " (SELECT array_agg(a::text) FROM unnest(datacl) a), shobj_description(oid, 'pg_database')"
        " FROM pg_database WHERE datname = current_database()"
    )
    row = _row(connection, query)
    settings = connection.execute(
        "SELECT CASE WHEN setrole = 0 THEN NULL ELSE pg_get_userbyid(setrole) END, unnest(setconfig)"
        " FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())"
        " ORDER BY 1 NULLS FIRST, 2"
    ).fetchall()
    extensions = connection.execute(
        "SELECT extname, extversion, nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace ORDER BY 1"
    ).fetchall()
    return DatabaseFacts(
        name=row[0],
        owner=row[1],
        encoding=row[2],
        collate=row[3],
        ctype=row[4],
        locale_provider={"c": "libc", "i": "icu", "b": "builtin"}[row[5]],
        locale=row[6],
        connection_limit=row[7],
        bytes=row[8],
        acl=tuple(row[9] or ()),
        comment=row[10],
        settings=tuple((role, line) for role, line in settings),
        extensions=tuple((name, extension_version, schema) for name, extension_version, schema in extensions),
    )


def _connect(address: DatabaseAddress, name: str) -> Connection:
    password = address.password.reveal() if address.password else None
    return psycopg.connect(
        address.conninfo(name=name),
        password=password,
        connect_timeout=CONNECT_SECONDS,
        application_name="opsproof",
        client_encoding="UTF8",
        row_factory=tuple_row,
    )


def _explain(address: DatabaseAddress, name: str, error: psycopg.OperationalError) -> OpsproofError:
    """Find out why a connection failed, by asking the same server for its databases."""
    message = str(error).strip()
    # A server that did not answer once is not asked again: each time takes as long.
    for maintenance in () if isinstance(error, pg.ConnectionTimeout) else MAINTENANCE_DATABASES:
        try:
            with _connect(address, maintenance) as connection:
                names = list_databases(connection)
        except psycopg.Error:
            continue
        if name not in names:
            return database_missing(address, name, names)
        return refused_database(address, name, message)
    return no_connection(address, message, CONNECT_SECONDS)


def _row(connection: Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    if row is None:
        raise DatabaseError("The server returned no row about itself", found=query)
    return row
