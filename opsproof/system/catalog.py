"""What a server has and a role may do there; what stands in a database; and the same as a dump's text tells it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import psycopg
from psycopg import errors as pg
from psycopg import sql

from opsproof.errors import CommandFailed, DumpError, HostError
from opsproof.system.copytext import Content, PlainDump
from opsproof.system.dump import ClientPrograms, Clients, explain_dump_error
from opsproof.system.host import Host
from opsproof.system.postgres import Connection

SCHEMA_SECONDS = 1800.0
NAME = r'(?:"(?:[^"]|"")+"|[^\s",;()]+)'
QUALIFIED = rf"(?:{NAME}\.)?{NAME}"
HEADING = re.compile(r"^-- Name: (.*); Type: ([A-Z ]+); Schema: (.*?); Owner:.*$", re.M)
# What pg_dump prints between two entries, as it turns to another tablespace: it belongs to neither.
BETWEEN = re.compile(r"(?:--.*|SET default_\w+ = .*;|\\unrestrict .*)?")
DATA_ENTRY = re.compile(r"\d+; \d+ \d+ (TABLE DATA|SEQUENCE SET|BLOBS|MATERIALIZED VIEW DATA|STATISTICS DATA) ")
OBJECT_ENTRY = re.compile(r"\d+; \d+ \d+ (BLOBS|BLOB METADATA|BLOB) ")
# Where the names of roles stand in an entry; its last statement says whose it is.
OWNER = re.compile(rf" OWNER TO ({NAME});\Z")
OBJECT_OWNER = re.compile(rf"^ALTER LARGE OBJECT (?P<oid>\d+) OWNER TO ({NAME});$", re.M)
OBJECT_GRANT = re.compile(rf"^GRANT (ALL|[A-Z,]+) ON LARGE OBJECT (\d+) TO ({NAME})(?: WITH GRANT OPTION)?;$", re.M)
OBJECT_PRIVILEGES = ("SELECT", "UPDATE")
GRANTS = re.compile(
    rf"(?:^SET SESSION AUTHORIZATION| FOR ROLE| TO| FROM) ({NAME})"
    r"(?:(?= IN SCHEMA | GRANT | REVOKE )|(?: WITH GRANT OPTION)?;$)",
    re.M,
)
USER_MAPPING = re.compile(rf"\ACREATE USER MAPPING FOR ({NAME}) SERVER ")
POLICY = re.compile(
    rf"\ACREATE POLICY {NAME} ON {QUALIFIED}(?: AS RESTRICTIVE)?(?: FOR \w+)? TO "
    rf"({NAME}(?:, {NAME})*)(?= USING | WITH CHECK |;)"
)
ROLES = {"ACL": GRANTS, "DEFAULT ACL": GRANTS, "USER MAPPING": USER_MAPPING, "POLICY": POLICY}
NOT_VALID = re.compile(
    rf"\AALTER (?:TABLE|DOMAIN) (?:ONLY )?({QUALIFIED})\s+ADD CONSTRAINT ({NAME}) .* NOT VALID;", re.S
)
NOBODY = frozenset({"PUBLIC", "CURRENT_USER", "SESSION_USER", "CURRENT_ROLE"})


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


@dataclass(frozen=True)
class Block:
    """An entry of a schema's text: kind (`TABLE`, `ACL`, ...), schema, name, and the statements."""

    kind: str
    schema: str
    name: str
    body: str

    @property
    def label(self) -> str:
        """What an error calls it."""
        return f"{self.kind} {self.name if self.schema in ('', '-') else f'{self.schema}.{self.name}'}"

    @property
    def is_large_object(self) -> bool:
        """Tell whether it is about large objects, which pg_dump prints only with their content."""
        return self.kind.startswith("BLOB") or self.name.startswith("LARGE OBJECT")

    @property
    def owner(self) -> str:
        """Whose it is, as the text says; empty where it does not."""
        match = OWNER.search(self.body)
        return plain_name(match[1]) if match else ""

    def role_spans(self) -> Iterator[tuple[int, int]]:
        """Yield where in the body the names of roles stand, quoted or not."""
        owner = OBJECT_OWNER if self.is_large_object else OWNER
        for pattern in (ROLES[self.kind], owner) if self.kind in ROLES else (owner,):
            for match in pattern.finditer(self.body):
                start, stop = match.span(pattern.groups)
                for name in re.compile(NAME).finditer(self.body, start, stop):
                    if name[0] not in NOBODY:
                        yield name.span()

    def roles(self) -> frozenset[str]:
        """Return the roles that it names."""
        return frozenset(plain_name(self.body[start:stop]) for start, stop in self.role_spans())

    def without_owner(self) -> Block:
        """Return the same without the statement that says whose it is."""
        return replace(self, body=re.sub(rf"\n+ALTER [^\n]* OWNER TO {NAME};\Z", "", self.body))

    def with_roles(self, role_map: Mapping[str, str]) -> Block:
        """Return the same with other roles in the places of some, and every role's name quoted."""
        pieces, end = [], 0
        for start, stop in sorted(self.role_spans()):
            old = plain_name(self.body[start:stop])
            pieces += [self.body[end:start], quoted_name(role_map.get(old, old))]
            end = stop
        return replace(self, body="".join([*pieces, self.body[end:]]))


@dataclass(frozen=True)
class Schema:
    """A schema as pg_dump or pg_restore print it; majors of the server and of the pg_dump that it came from."""

    server_major: int
    client_major: int
    blocks: tuple[Block, ...]
    tablespaces: frozenset[str]

    def named(self, kind: str) -> list[str]:
        """Return the names of all entries of a kind."""
        return [block.name for block in self.blocks if block.kind == kind]

    def with_roles(self, role_map: Mapping[str, str]) -> Schema:
        """Return the same with other roles in the places of some, and every role's name quoted."""
        return replace(self, blocks=tuple(block.with_roles(role_map) for block in self.blocks))

    def owners(self) -> frozenset[str]:
        """Return the roles that own something."""
        return frozenset(block.owner for block in self.blocks if block.owner) | {*self.object_owners().values()}

    def roles(self) -> frozenset[str]:
        """Return the roles that own something, are granted something, or have a policy."""
        return frozenset(role for block in self.blocks for role in block.roles())

    def not_valid(self) -> frozenset[str]:
        """Return the constraints that were never validated, as `table constraint`."""
        matches = (NOT_VALID.match(block.body) for block in self.blocks if block.kind.endswith("CONSTRAINT"))
        return frozenset(f"{match[1]} {match[2]}" for match in matches if match)

    def object_owners(self) -> dict[int, str]:
        """Return the owner of each large object."""
        bodies = (block.body for block in self.blocks if block.is_large_object)
        return {int(oid): plain_name(role) for body in bodies for oid, role in OBJECT_OWNER.findall(body)}

    def object_grants(self) -> frozenset[tuple[int, str, str]]:
        """Return large object, role and privilege of each grant to somebody other than the owner."""
        owners = self.object_owners()
        return frozenset(
            (int(oid), plain_name(role), one)
            for block in self.blocks
            if block.is_large_object
            for privileges, oid, role in OBJECT_GRANT.findall(block.body)
            for one in (OBJECT_PRIVILEGES if privileges == "ALL" else privileges.split(","))
            if plain_name(role) != owners.get(int(oid))
        )


def parse_schema(text: str) -> Schema:
    """Cut the text of a schema at its headings."""
    headings = list(HEADING.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]

    def major(words: str) -> int:
        match = re.search(rf"^-- Dumped {words} (\d+)", text, re.M)
        return int(match[1]) if match else 0

    spaces = re.findall(rf"^SET default_tablespace = ({NAME});$", text, re.M)
    return Schema(
        server_major=major("from database version"),
        client_major=major("by pg_dump version"),
        blocks=tuple(
            Block(heading[2], heading[3], heading[1], _without_margins(text[heading.end() : end]))
            for heading, end in zip(headings, ends, strict=False)
        ),
        tablespaces=frozenset(plain_name(name) for name in spaces if name != "''"),
    )


@dataclass(frozen=True)
class DumpFile:
    """A custom dump on the host, read by pg_restore of one version without touching any server."""

    path: Path
    programs: ClientPrograms
    host: Host

    @cached_property
    def schema(self) -> Schema:
        """All but the rows and the content of large objects.

        Raises:
            DumpError: It is no dump that this pg_restore can read.
        """
        entries = [line for line in self._entries if not DATA_ENTRY.match(line)]
        text = self._restore("--use-list=/dev/stdin", "--file=-", stdin=entries)
        return parse_schema(_decoded(text.encode(errors="surrogateescape")))

    def large_objects(self) -> dict[int, Content]:
        """Return size and SHA-256 of every large object.

        Raises:
            DumpError: The dump cannot be read to its end.
        """
        entries = [line for line in self._entries if OBJECT_ENTRY.match(line)]
        if not entries:
            return {}
        text = PlainDump({})
        arguments = ("--use-list=/dev/stdin", "--file=-", str(self.path))
        with self.host.pipe(self._program, *arguments, stdin="\n".join(entries).encode()) as pipe:
            while data := pipe.read():
                text.feed(data)
            try:
                pipe.finish()
            except CommandFailed as error:
                raise self._unreadable(error) from error
        text.finish()
        return text.large_objects

    @cached_property
    def _entries(self) -> list[str]:
        return self._restore("--list").splitlines()

    @property
    def _program(self) -> str:
        return self.programs.path("pg_restore")

    def _restore(self, *arguments: str, stdin: list[str] | None = None) -> str:
        given = "\n".join(stdin or ()).encode(errors="surrogateescape")
        try:
            done = self.host.run(self._program, *arguments, str(self.path), stdin=given, timeout=SCHEMA_SECONDS)
        except CommandFailed as error:
            raise self._unreadable(error) from error
        return done.stdout

    def _unreadable(self, error: CommandFailed) -> DumpError:
        return DumpError(
            f"pg_restore {self.programs.version} cannot read the dump {self.path.name}",
            expected="a custom dump, of a pg_dump that is not newer than this pg_restore",
            found=error.found,
            kept="nothing was changed",
            hint="restore into a server that is not older than the one that the backup came from",
        )


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
    return parse_schema(_decoded(b"".join(pieces)))


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


def plain_name(quoted: str) -> str:
    """Return a name as it is, of one as SQL writes it."""
    return quoted[1:-1].replace('""', '"') if quoted.startswith('"') else quoted


def plain_label(label: str) -> str:
    """Return a label without quotes that only some major versions need: each has key words of its own."""
    return re.sub(r'(?<!")"([a-z_][a-z0-9_$]*)"(?!")', r"\1", label)


def quoted_name(name: str) -> str:
    """Return a name as SQL takes it, whatever is in it."""
    return sql.Identifier(name).as_string()


def _without_margins(text: str) -> str:
    lines = text.split("\n")
    start, stop = 0, len(lines)
    while start < stop and BETWEEN.fullmatch(lines[start]):
        start += 1
    while stop > start and BETWEEN.fullmatch(lines[stop - 1]):
        stop -= 1
    return "\n".join(lines[start:stop])


def _decoded(data: bytes) -> str:
    """Return the text, in the encoding that it says it has."""
    match = re.search(rb"^SET client_encoding = '(\w+)';$", data, re.M)
    encoding = re.sub(r"^WIN", "cp", match[1].decode()) if match else "UTF8"
    try:
        return data.decode(encoding)
    except (LookupError, UnicodeError):
        return data.decode(errors="surrogateescape")


def _rows(connection: Connection, query: str, *arguments: object) -> list[tuple[Any, ...]]:
    return connection.execute(query.encode(), arguments or None).fetchall()
