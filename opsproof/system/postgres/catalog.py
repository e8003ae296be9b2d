"""What a server has, what a role may do there, and what stands in a database."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import HostError
from opsproof.system.postgres.dump import Clients, explain_dump_error
from opsproof.system.postgres.schematext import Schema, decode_schema, parse_schema
from opsproof.system.postgres.server import Connection


@dataclass(frozen=True)
class Rights:
    """What our role may do on the server.

    `may_give_to` are the roles that it may make owners of something; `is_standby` is the server's state.
    """

    user: str
    is_superuser: bool
    may_create_databases: bool
    may_signal: bool
    is_standby: bool
    may_give_to: frozenset[str]


@dataclass(frozen=True)
class Available:
    """An extension that the server could install: its default version, all versions, and who may create it."""

    default: str
    versions: frozenset[str]
    superuser_only: bool


@dataclass(frozen=True)
class Ties:
    """What holds on to a database and would be left behind by a swap of names, and the sessions we may not end."""

    slots: tuple[str, ...]
    subscriptions: tuple[str, ...]
    prepared: tuple[str, ...]
    strangers: tuple[str, ...]


def read_schema(clients: Clients) -> Schema:
    """Return the schema of a database, read by pg_dump.

    Raises:
        OpsproofError: pg_dump failed.
    """
    pieces = []
    try:
        with clients.start("pg_dump", "--schema-only", "--no-password", f"--dbname={clients.conninfo()}") as pipe:
            while data := pipe.read():
                pieces.append(data)
            pipe.finish()
    except HostError as error:
        raise explain_dump_error(error, clients.address) from error
    return parse_schema(decode_schema(b"".join(pieces)))


def read_rights(connection: Connection) -> Rights:
    """Return what our role may do."""
    # From 16 on it takes the SET option of a membership to make a role the owner of something.
    kind = "SET" if connection.info.server_version >= 160000 else "MEMBER"
    row = _rows(
        connection,
        "SELECT rolname::text, rolsuper, rolcreatedb, pg_has_role(oid, 'pg_signal_backend', 'USAGE'),"
        " pg_is_in_recovery(), (SELECT array_agg(rolname::text) FROM pg_roles r WHERE pg_has_role(me.oid, r.oid, %s))"
        " FROM pg_roles me WHERE rolname = session_user",
        kind,
    )[0]
    return Rights(row[0], row[1], row[2] or row[1], row[3] or row[1], row[4], frozenset(row[5] or ()))


def read_roles(connection: Connection) -> frozenset[str]:
    """Return the names of all roles of the server."""
    return frozenset(row[0] for row in _rows(connection, "SELECT rolname::text FROM pg_roles"))


def read_tablespaces(connection: Connection) -> frozenset[str]:
    """Return the names of all tablespaces of the server."""
    return frozenset(row[0] for row in _rows(connection, "SELECT spcname::text FROM pg_tablespace"))


def read_available(connection: Connection) -> dict[str, Available]:
    """Return the extensions that the server could install."""
    rows = _rows(
        connection,
        "SELECT name::text, default_version, array_agg(version), bool_or(superuser AND NOT trusted)"
        " FROM pg_available_extensions JOIN pg_available_extension_versions USING (name) GROUP BY 1, 2",
    )
    return {row[0]: Available(row[1], frozenset(row[2]), row[3]) for row in rows}


def read_ties(connection: Connection, database: str) -> Ties:
    """Return what would hold a swap of a database's name up, or be stranded by it."""
    queries = (
        "SELECT slot_name::text FROM pg_replication_slots WHERE slot_type = 'logical' AND database = %s",
        "SELECT subname::text FROM pg_subscription JOIN pg_database d ON d.oid = subdbid WHERE datname = %s",
        "SELECT gid FROM pg_prepared_xacts WHERE database = %s",
        # Superusers' sessions are ended by superusers only; others' by their own roles' members and pg_signal_backend.
        "SELECT DISTINCT usename::text FROM pg_stat_activity a JOIN pg_roles other ON other.oid = usesysid,"
        " pg_roles me WHERE me.rolname = session_user AND datname = %s AND NOT me.rolsuper AND (other.rolsuper OR NOT"
        " (pg_has_role(me.oid, 'pg_signal_backend', 'USAGE') OR pg_has_role(me.oid, other.oid, 'USAGE')))",
    )
    return Ties(*(tuple(sorted(row[0] for row in _rows(connection, query, database))) for query in queries))


def read_data_folders(connection: Connection, database: str | None) -> tuple[str, ...]:
    """Return where on its disks the server keeps a database, or would keep a new one; () where we may not know."""
    row = _rows(
        connection,
        "SELECT (SELECT setting FROM pg_settings WHERE name = 'data_directory'),"
        " (SELECT pg_tablespace_location(dattablespace) FROM pg_database WHERE datname = %s)",
        database,
    )[0]
    return tuple(folder for folder in ((row[1] or row[0]),) if folder)


def may_act_as(connection: Connection, role: str) -> bool:
    """Tell whether we have the privileges of a role; False where there is no such role."""
    return bool(_rows(connection, "SELECT FROM pg_roles WHERE rolname = %s AND pg_has_role(oid, 'USAGE')", role))


def knows_encoding(connection: Connection, encoding: str) -> bool:
    """Tell whether the server has an encoding."""
    return bool(_rows(connection, "SELECT pg_char_to_encoding(%s) >= 0", encoding)[0][0])


def try_collation(connection: Connection, provider: str, **locale: str) -> str:
    """Return why the server does not take a locale, in its own words; empty where it does.

    A collation is made in the session's temporary schema and rolled back.

    Args:
        connection: To any database.
        provider: `libc` or `icu`.
        locale: The options of CREATE COLLATION: `lc_collate` and `lc_ctype`, or `locale`.

    Raises:
        psycopg.Error: It could not be tried.
    """
    options = [
        sql.SQL("{} = {}").format(sql.SQL(name), sql.Literal(value))
        for name, value in {"provider": provider, **locale}.items()
    ]
    statement = sql.SQL("CREATE COLLATION pg_temp.opsproof_trial ({})").format(sql.SQL(", ").join(options))
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)
    except (pg.InsufficientPrivilege, psycopg.OperationalError):
        raise
    except psycopg.Error as error:
        return str(error).splitlines()[0]
    return ""


def read_names(connection: Connection, catalogue: str, column: str) -> tuple[str, ...]:
    """Return the values of a name column of a catalogue: `pg_publication`, `pubname`."""
    query = sql.SQL("SELECT {}::text FROM pg_catalog.{} ORDER BY 1").format(
        sql.Identifier(column), sql.Identifier(catalogue)
    )
    return tuple(row[0] for row in connection.execute(query))


def find_not_valid(connection: Connection) -> frozenset[str]:
    """Return the constraints that were not validated, as `table constraint`; those that nobody enforces apart."""
    enforced = "conenforced" if connection.info.server_version >= 180000 else "true"
    # S608: only the name of a catalogue's column is put in, chosen above.
    query = (
        "SELECT CASE WHEN conrelid <> 0 THEN format('%I.%I', n.nspname, c.relname)"  # noqa: S608
        " ELSE format('%I.%I', tn.nspname, typname) END || ' ' ||"
        " quote_ident(conname) FROM pg_constraint LEFT JOIN pg_class c ON c.oid = conrelid"
        " LEFT JOIN pg_namespace n ON n.oid = relnamespace LEFT JOIN pg_type t ON t.oid = contypid"
        " LEFT JOIN pg_namespace tn ON tn.oid = typnamespace"
        f" WHERE NOT convalidated AND conislocal AND conparentid = 0 AND {enforced}"
    )
    return frozenset(row[0] for row in _rows(connection, query))


def find_broken_indexes(connection: Connection) -> tuple[str, ...]:
    """Return the indexes that are not valid, not ready or on their way out; a partitioned one has no rows to index."""
    query = (
        "SELECT format('%I.%I', nspname, relname) FROM pg_index JOIN pg_class c ON c.oid = indexrelid"
        " JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind = 'i' AND NOT (indisvalid AND indisready AND indislive) ORDER BY 1"
    )
    return tuple(row[0] for row in _rows(connection, query))


def find_unlogged(connection: Connection) -> tuple[str, ...]:
    """Return the tables that a crash of the server empties."""
    query = (
        "SELECT format('%I.%I', nspname, relname) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace"
        " WHERE relkind = 'r' AND relpersistence = 'u' ORDER BY 1"
    )
    return tuple(row[0] for row in _rows(connection, query))


def read_descending(connection: Connection) -> frozenset[str]:
    """Return the sequences that count down."""
    query = "SELECT format('%I.%I', schemaname, sequencename) FROM pg_sequences WHERE increment_by < 0"
    return frozenset(row[0] for row in _rows(connection, query))


def read_extensions(connection: Connection) -> dict[str, str]:
    """Return the version of each extension of the database."""
    return dict(_rows(connection, "SELECT extname::text, extversion FROM pg_extension"))


def read_object_owners(connection: Connection) -> dict[int, str]:
    """Return the owner of each large object."""
    return dict(_rows(connection, "SELECT oid::bigint, pg_get_userbyid(lomowner)::text FROM pg_largeobject_metadata"))


def read_object_grants(connection: Connection) -> frozenset[tuple[int, str, str]]:
    """Return large object, role and privilege of each grant to somebody other than the owner."""
    query = (
        "SELECT oid::bigint, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(grantee)::text END, privilege_type"
        " FROM pg_largeobject_metadata, aclexplode(lomacl) WHERE grantee <> lomowner"
    )
    return frozenset((oid, role, privilege) for oid, role, privilege in _rows(connection, query))


def _rows(connection: Connection, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), arguments or None).fetchall()
