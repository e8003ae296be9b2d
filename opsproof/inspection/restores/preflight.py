"""Whether a restore could come to its end here: everything that would be in the way, looked for before it begins."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from psycopg import sql

from opsproof.inspection.finding import Finding
from opsproof.inspection.restores.locales import examine_locale
from opsproof.inspection.restores.missingroles import find_missing_roles
from opsproof.inspection.restores.restoreroom import examine_room, examine_room_of_rollback
from opsproof.inspection.restores.situation import Record, Situation
from opsproof.system.postgres import catalog
from opsproof.system.postgres.catalog import Rights
from opsproof.system.postgres.dump import ClientPrograms
from opsproof.system.postgres.dumpfile import MOST_TEXT, DumpFile, read_plain_schema
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.schematext import Schema, quoted_name
from opsproof.system.postgres.server import Connection, DatabaseFacts, Server, connect
from opsproof.target import DatabaseAddress, Target

# What only a superuser may create; an extension says it for itself.
SUPERUSER_KINDS = ("EVENT TRIGGER", "FOREIGN DATA WRAPPER", "ACCESS METHOD", "PROCEDURAL LANGUAGE", "SUBSCRIPTION")
UNREAD = Finding(
    "plain SQL",
    "every role, extension and tablespace that it names",
    f"not looked at: more than {MOST_TEXT >> 20} MiB of it is no data as pg_dump writes it",
    "if one is missing, the restore ends before anything is swapped, and says which",
    blocks=False,
)


def examine(situation: Situation) -> tuple[Finding, ...]:
    """Look at everything, and return what is not as it must be.

    Raises:
        DatabaseError: The server does not answer.
        DumpError: The dump cannot be read, for one because it is newer than the client programs.
    """
    record = situation.backup.manifest
    read = _read_schema(situation)
    schema = read or Schema(0, 0, (), frozenset())
    with maintenance(situation.target.database) as connection:
        rights = catalog.read_rights(connection)
        return (
            *(() if read else (UNREAD,)),
            *_versions(situation.server, situation.clients.programs, record, schema),
            *_privileges(connection, rights, situation, schema),
            *find_missing_roles(connection, situation, schema),
            *_extensions(connection, rights, record, schema),
            *_tablespaces(connection, schema),
            *(examine_locale(connection, situation.server, record.database) if record else ()),
            *(_ties(connection, rights, situation.target.database) if situation.live else ()),
            *examine_room(connection, situation),
        )


def examine_rollback(connection: Connection, target: Target, live: DatabaseFacts) -> tuple[Finding, ...]:
    """Look at everything that a rollback of a live database's schema needs of its server.

    Raises:
        DatabaseError: The server does not answer.
    """
    rights = catalog.read_rights(connection)
    return (
        *_rights_to_swap(connection, rights, live),
        *_ties(connection, rights, target.database),
        *examine_room_of_rollback(connection, target.database, live),
    )


def _read_schema(situation: Situation) -> Schema | None:
    """Return what the dump says; None of plain SQL of which too much would have to be kept for that."""
    if situation.backup.database_format == "custom":
        return DumpFile(situation.dump, situation.clients.programs, situation.clients.host).schema
    schema = read_plain_schema(situation.unpacked or situation.dump)
    # Nothing but the server itself can tell whether it understands another version's SQL.
    return replace(schema, server_major=0, client_major=0) if schema else None


def _versions(server: Server, programs: ClientPrograms, record: Record | None, schema: Schema) -> Iterator[Finding]:
    origin = record.server.version_num // 10000 if record else schema.server_major
    if origin > server.major:
        yield Finding(
            "server", f"PostgreSQL {origin} or newer, as the backup came from {origin}", f"PostgreSQL {server.version}",
            f"restore into a server of PostgreSQL {origin} or newer", blocks=True,
        )  # fmt: skip
    clients = int(programs.version.split(".")[0].rstrip("abcdefghijklmnopqrstuvwxyz") or 0)
    if clients != server.major or clients < schema.client_major:
        wanted = max(server.major, schema.client_major)
        yield Finding(
            "client programs", f"PostgreSQL {wanted}", f"{programs.version} in {programs.bindir or 'PATH'}",
            f"apt-get install postgresql-client-{wanted}, or set pg_bindir in the inventory", blocks=True,
        )  # fmt: skip
    if 0 < origin < server.major:
        yield Finding(
            "server", f"PostgreSQL {origin}, as the backup came from {origin}", f"PostgreSQL {server.version}",
            "the schema's text cannot be compared line by line between major versions", blocks=False,
        )  # fmt: skip


def _privileges(connection: Connection, rights: Rights, situation: Situation, schema: Schema) -> Iterator[Finding]:
    me = quoted_name(rights.user)
    yield from _rights_to_swap(connection, rights, situation.live)
    if rights.is_superuser:
        return
    owners = {situation.roles.get(role, role) for role in schema.owners()} & catalog.read_roles(connection)
    for owner in sorted(owners - rights.may_give_to):
        yield Finding(
            "privileges", f"role {rights.user!r} may make {owner!r} the owner of what it owns in the backup",
            "it is not a member of that role", f"GRANT {quoted_name(owner)} TO {me};", blocks=True,
        )  # fmt: skip
    for kind in SUPERUSER_KINDS:
        if names := schema.named(kind):
            yield Finding(
                "privileges", f"a superuser, for each {kind.lower()} in the dump: {', '.join(names)}",
                f"role {rights.user!r} is none", "restore as a superuser", blocks=True,
            )  # fmt: skip


def _rights_to_swap(connection: Connection, rights: Rights, live: DatabaseFacts | None) -> Iterator[Finding]:
    me = quoted_name(rights.user)
    if rights.is_standby:
        yield Finding("server", "a primary", "a standby, which takes no changes", "do it on the primary", blocks=True)
    if not rights.may_create_databases:
        yield Finding(
            "privileges", f"role {rights.user!r} may create databases", "it has neither CREATEDB nor SUPERUSER",
            f"ALTER ROLE {me} CREATEDB;", blocks=True,
        )  # fmt: skip
    if live and not rights.is_superuser and not catalog.may_act_as(connection, live.owner):
        yield Finding(
            "privileges", f"role {rights.user!r} owns {live.name!r}, or is a member of its owner",
            f"its owner is {live.owner!r}", f"GRANT {quoted_name(live.owner)} TO {me};", blocks=True,
        )  # fmt: skip


def _extensions(connection: Connection, rights: Rights, record: Record | None, schema: Schema) -> Iterator[Finding]:
    versions: dict[str, str] = dict.fromkeys(schema.named("EXTENSION"), "")
    if record:
        versions.update({one.name: one.version for one in record.database.extensions})
    available = catalog.read_available(connection)
    for name, version in sorted(versions.items()):
        extension = available.get(name)
        if extension is None:
            yield Finding(
                "extensions", f"{name} {version}".rstrip() + ", available on the server", "none",
                "install its package on the server; \\dx and pg_available_extensions tell what is there",
                blocks=True,
            )  # fmt: skip
            continue
        if version and version != extension.default:
            yield Finding(
                "extensions", f"{name} {version}", f"the server creates {extension.default}",
                f"compare the two versions of {name}; afterwards ALTER EXTENSION ... UPDATE", blocks=False,
            )  # fmt: skip
        # plpgsql comes with template0.
        if extension.superuser_only and not rights.is_superuser and name != "plpgsql":
            yield Finding(
                "extensions", f"a superuser, who alone may create {name}", f"role {rights.user!r} is none",
                "restore as a superuser", blocks=True,
            )  # fmt: skip


def _tablespaces(connection: Connection, schema: Schema) -> Iterator[Finding]:
    for name in sorted(schema.tablespaces - catalog.read_tablespaces(connection)):
        yield Finding(
            "tablespaces", f"a tablespace {name!r}", "none of that name",
            f"CREATE TABLESPACE {quoted_name(name)} LOCATION '/a/folder/of/postgres';", blocks=True,
        )  # fmt: skip


def _ties(connection: Connection, rights: Rights, address: DatabaseAddress) -> Iterator[Finding]:
    name = address.name
    ties = catalog.read_ties(connection, name)
    for slot in ties.slots:
        drop = sql.SQL("SELECT pg_drop_replication_slot({});").format(sql.Literal(slot)).as_string()
        hint = f"stop what reads it, then {drop} and make it anew after the restore"
        yield Finding("replication", f"no logical slot on {name!r}", f"slot {slot!r}", hint, blocks=True)
    for subscription in ties.subscriptions:
        hint = f"ALTER SUBSCRIPTION {quoted_name(subscription)} DISABLE; then DROP SUBSCRIPTION, and make it anew"
        yield Finding("replication", f"no subscription of {name!r}", repr(subscription), hint, blocks=True)
    for gid in ties.prepared:
        end = sql.SQL("ROLLBACK PREPARED {0}; or COMMIT PREPARED {0};").format(sql.Literal(gid)).as_string()
        found = f"{gid!r} would be left in the old database"
        yield Finding("transactions", f"no prepared transaction in {name!r}", found, f"in {name!r}: {end}", blocks=True)
    for stranger in ties.strangers:
        yield Finding(
            "sessions", f"role {rights.user!r} may end every session of {name!r}", f"a session of {stranger!r}",
            f"end it, or GRANT pg_signal_backend TO {quoted_name(rights.user)}; (a superuser's only he may end)",
            blocks=True,
        )  # fmt: skip
    if not (rights.may_signal or ties.strangers):
        yield Finding(
            "sessions", f"role {rights.user!r} may end every session of {name!r}", "only those of its own roles",
            f"GRANT pg_signal_backend TO {quoted_name(rights.user)};", blocks=False,
        )  # fmt: skip
    with connect(address) as live:
        for publication in catalog.read_names(live, "pg_publication", "pubname"):
            yield Finding(
                "replication", f"nobody subscribes to {name!r}", f"publication {publication!r}",
                "subscribers must be made anew after the restore", blocks=False,
            )  # fmt: skip
