"""A PostgreSQL server and its databases, through psycopg: connect, describe, and say clearly what is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import tuple_row

from opsproof.errors import DatabaseError, OpsproofError
from opsproof.intent import own_comment
from opsproof.system.hosts.tunnel import through_tunnel
from opsproof.system.postgres.diagnosis import database_missing, explain_query_error, no_connection, refused_database
from opsproof.target import DatabaseAddress

OLDEST_MAJOR = 13
CONNECT_SECONDS = 10
# Databases to ask for names from, when the one that is wanted does not answer.
MAINTENANCE_DATABASES = ("postgres", "template1")
NAME_BYTES = 63
# What libpq says where a relay ended before the server had said anything.
CLOSED = "server closed the connection unexpectedly"
# What opsproof itself writes on a database is no part of it.
OWN_SETTINGS = "opsproof."


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
    before them; `bytes` is its size on the server's disk; `icu_rules` is empty where the collation has none.
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
    icu_rules: str


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
        connection = open_connection(address, name)
    except psycopg.OperationalError as error:
        raise explain_refusal(address, name, error) from error
    try:
        settings = {**SESSION, "lock_timeout": f"{lock_timeout * 1000:.0f}"}
        for setting, value in settings.items():
            connection.execute("SELECT pg_catalog.set_config(%s, %s, false)", (setting, value))
        connection.commit()
        yield connection
    except psycopg.Error as error:
        raise explain_query_error(address, error) from error
    finally:
        try:
            _end_statement(connection)
        finally:
            connection.close()


@contextmanager
def own_search_path(connection: Connection) -> Iterator[None]:
    """Let names without a schema mean, for a block, what they mean to the application's own sessions."""
    query = "SELECT pg_catalog.set_config('search_path', {}, false)"
    connection.execute(query.format("(SELECT reset_val FROM pg_catalog.pg_settings WHERE name = 'search_path')"))
    try:
        yield
    finally:
        if connection.info.transaction_status != TransactionStatus.INERROR:
            connection.execute(query.format("''"))


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
    rules = "daticurules" if version >= 160000 else "NULL"
    # S608: only the names of catalogue columns are put in, chosen above.
    query = (
        "SELECT datname, pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datcollate, datctype,"  # noqa: S608
        f" {provider}, {locale}, datconnlimit, pg_database_size(oid),"
        " (SELECT array_agg(a::text) FROM unnest(datacl) a), shobj_description(oid, 'pg_database'),"
        f" coalesce({rules}, '') FROM pg_database WHERE datname = current_database()"
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
        comment=own_comment(row[10]),
        settings=tuple((role, line) for role, line in settings if not line.startswith(OWN_SETTINGS)),
        extensions=tuple((name, extension_version, schema) for name, extension_version, schema in extensions),
        icu_rules=row[11],
    )


def open_connection(address: DatabaseAddress, name: str) -> Connection:
    """Connect to a database of the address's server, with nothing pinned yet.

    Raises:
        psycopg.OperationalError: The server did not answer within 10 seconds, or refused.
    """
    password = address.password.reveal() if address.password else None
    here, tunnel = through_tunnel(address)
    try:
        return psycopg.connect(
            here.conninfo(name=name),
            password=password,
            connect_timeout=CONNECT_SECONDS,
            application_name="opsproof",
            client_encoding="UTF8",
            row_factory=tuple_row,
        )
    except psycopg.OperationalError as error:
        said = tunnel.complaint() if tunnel is not None and CLOSED in str(error) else ""
        if not said:
            raise
        raise type(error)(said) from error


def _end_statement(connection: Connection) -> None:
    """Have the server end a statement that a signal has left running.

    Without its client it would go on for a while: a database would come into being, or change its name, after the
    undo had looked for it.
    """
    copying = (ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH)
    if connection.closed or connection.pgconn.transaction_status != TransactionStatus.ACTIVE:
        return
    with suppress(psycopg.Error):
        connection.cancel_safe(timeout=CONNECT_SECONDS)
        while (result := connection.pgconn.get_result()) is not None and result.status not in copying:
            pass


def explain_refusal(address: DatabaseAddress, name: str, error: psycopg.OperationalError) -> OpsproofError:
    """Find out why a connection failed, by asking the same server for its databases."""
    message = str(error).strip()
    # A server that did not answer once is not asked again: each time takes as long.
    for other in () if isinstance(error, pg.ConnectionTimeout) else MAINTENANCE_DATABASES:
        try:
            with open_connection(address, other) as connection:
                names = list_databases(connection)
        except psycopg.Error:
            continue
        if name not in names:
            return database_missing(address, name, names)
        try:
            open_connection(address, name).close()
        except psycopg.OperationalError as again:
            return refused_database(address, name, str(again).strip())
        break  # it was starting, or stopping, a moment ago: nobody is refused anything
    return no_connection(address, message, CONNECT_SECONDS)


def _row(connection: Connection, query: str) -> tuple[Any, ...]:
    row = connection.execute(query.encode()).fetchone()
    if row is None:
        raise DatabaseError("The server returned no row about itself", found=query)
    return row
