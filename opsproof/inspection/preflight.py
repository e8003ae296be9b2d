"""Whether a restore could come to its end here: everything that would be in the way, looked for before it begins."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg import sql

from opsproof.errors import ProofError
from opsproof.inspection.room import COMPRESSED_SHARE
from opsproof.system import catalog
from opsproof.system.catalog import DumpFile, Rights, Schema, plain_name, quoted_name
from opsproof.system.dump import ClientPrograms, Clients
from opsproof.system.host import Host
from opsproof.system.postgres import Connection, DatabaseFacts, Server, connect, maintenance
from opsproof.target import Target

LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")
# How much bigger than its dump a database is at most, where nobody wrote down how big it was.
UNPACKED = {"custom": 5, "plain": 2}
# What only a superuser may create; an extension says it for itself.
SUPERUSER_KINDS = ("EVENT TRIGGER", "FOREIGN DATA WRAPPER", "ACCESS METHOD", "PROCEDURAL LANGUAGE", "SUBSCRIPTION")
BUILTIN_LOCALES = {"C": 17, "C.UTF-8": 17, "PG_UNICODE_FAST": 18}
ACL_ROLES = re.compile(r'\A("(?:[^"]|"")*"|[^=]*)=[^/]*/(.*)\Z', re.S)


@dataclass(frozen=True)
class Finding:
    """Something that is not as a restore needs it; what does not block is only worth knowing."""

    subject: str
    expected: str
    found: str
    hint: str
    blocks: bool


class _Extension(Protocol):
    name: str
    version: str


class _Setting(Protocol):
    role: str | None


class _Origin(Protocol):
    version: str
    version_num: int


class _Database(Protocol):
    owner: str
    encoding: str
    collate: str
    ctype: str
    locale_provider: str
    locale: str | None
    bytes: int
    acl: tuple[str, ...]

    @property
    def settings(self) -> Sequence[_Setting]: ...
    @property
    def extensions(self) -> Sequence[_Extension]: ...


class Record(Protocol):
    """What a manifest says, as far as it matters here."""

    @property
    def server(self) -> _Origin:
        """The server that it came from."""

    @property
    def database(self) -> _Database:
        """What it takes to make the database anew."""


class _Member(Protocol):
    path: str
    bytes: int


class Material(Protocol):
    """An opened backup, as far as it matters here."""

    @property
    def manifest(self) -> Record | None:
        """What it says of itself; None where others made it."""

    @property
    def database_format(self) -> str:
        """`custom` or `plain`."""

    @property
    def database_bytes(self) -> int:
        """Bytes of the dump."""

    @property
    def files_bytes(self) -> int:
        """Bytes of the files."""

    def file_members(self) -> Iterable[_Member]:
        """Yield the files."""

    def roles(self) -> bytes | None:
        """Return the roles as SQL."""


@dataclass(frozen=True)
class Situation:
    """What is to be restored, and where.

    `live` is None where no database is live yet; `dump` is the extracted dump, on the host; `roles` maps roles of the
    backup to those that take their place.
    """

    target: Target
    server: Server
    live: DatabaseFacts | None
    clients: Clients
    backup: Material
    dump: Path
    roles: Mapping[str, str] = field(default_factory=dict)
    in_place: bool = False


def examine(situation: Situation) -> tuple[Finding, ...]:
    """Look at everything, and return what is not as it must be.

    Raises:
        DatabaseError: The server does not answer.
        DumpError: The dump cannot be read, for one because it is newer than the client programs.
    """
    backup, record = situation.backup, situation.backup.manifest
    schema = Schema(0, 0, (), frozenset())
    if backup.database_format == "custom":
        schema = DumpFile(situation.dump, situation.clients.programs, situation.clients.host).schema
    with maintenance(situation.target.database) as connection:
        rights = catalog.read_rights(connection)
        return (
            *_versions(situation.server, situation.clients.programs, record, schema),
            *_privileges(connection, rights, situation, schema),
            *_roles(connection, situation, schema),
            *_extensions(connection, rights, record, schema),
            *_tablespaces(connection, schema),
            *(_locale(connection, situation.server, record.database) if record else ()),
            *_ties(connection, rights, situation),
            *_room(connection, situation),
        )


def require(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return the findings that do not block, if none does.

    Raises:
        ProofError: Some do; all of them are listed.
    """
    known = tuple(findings)
    blocking = [finding for finding in known if finding.blocks]
    if blocking:
        numbered = list(enumerate(blocking, 1))
        raise ProofError(
            f"{len(blocking)} {'thing stands' if len(blocking) == 1 else 'things stand'} in the way of a restore",
            expected="\n".join(f"{number}. {one.subject}: {one.expected}" for number, one in numbered),
            found="\n".join(f"{number}. {one.subject}: {one.found}" for number, one in numbered),
            kept="nothing was changed",
            hint="\n".join(f"{number}. {one.hint}" for number, one in numbered),
        )
    return known


def roles_needed(dump: Path, programs: ClientPrograms, host: Host) -> frozenset[str]:
    """Return the roles that own something in a custom dump, or are granted something, or have a policy.

    Raises:
        DumpError: The dump cannot be read.
    """
    return DumpFile(dump, programs, host).schema.roles()


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
    me, live = quoted_name(rights.user), situation.live
    if rights.is_standby:
        yield Finding("server", "a primary", "a standby, which takes no changes", "restore on the primary", blocks=True)
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


def _roles(connection: Connection, situation: Situation, schema: Schema) -> Iterator[Finding]:
    record, there = situation.backup.manifest, catalog.read_roles(connection)
    needed = set(schema.roles())
    if record:
        needed.add(record.database.owner)
        needed.update(one.role for one in record.database.settings if one.role is not None)
        needed.update(*map(_acl_roles, record.database.acl))
    saved = (situation.backup.roles() or b"").decode(errors="surrogateescape")
    for role in sorted(needed):
        name = situation.roles.get(role, role)
        if name in there:
            continue
        other = shlex.quote(f"{role}=ANOTHER")
        if name != role:
            found, hint = f"none, though --map-role puts it in the place of {role!r}", "name a role that is there"
        elif role.startswith("pg_"):
            found, hint = "none; PostgreSQL of another version brings it", f"--map-role {other}"
        else:
            found = "none, and the backup owns, grants or sets something for it"
            hint = f"{_create_role(role, saved)} or put another in its place: --map-role {other}"
        yield Finding("roles", f"a role {name!r}", found, hint, blocks=True)
    for role in sorted(set(situation.roles) - needed) if record and schema.blocks else ():
        yield Finding(
            "roles", f"a role {role!r} in the backup, for --map-role", f"only {', '.join(sorted(needed))}",
            "leave out that --map-role, or correct its name", blocks=False,
        )  # fmt: skip


def _create_role(role: str, saved: str) -> str:
    """Return what makes a role, with its attributes where the backup has them."""
    name = quoted_name(role)
    saved_name = f"(?:{re.escape(name)}|{re.escape(role)})"
    pattern = rf"^(?:CREATE ROLE {saved_name};|ALTER ROLE {saved_name} WITH [A-Z -]+?(?= VALID UNTIL|;))"
    lines = [line.rstrip(";") + ";" for line in re.findall(pattern, saved, re.M)]
    return " ".join(lines) or f"CREATE ROLE {name} NOLOGIN;"


def _acl_roles(item: str) -> set[str]:
    match = ACL_ROLES.match(item)
    return {plain_name(role) for role in match.groups() if role} if match else set()


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


def _locale(connection: Connection, server: Server, database: _Database) -> Iterator[Finding]:
    if not catalog.knows_encoding(connection, database.encoding):
        yield Finding(
            "encoding", database.encoding, "the server does not know it", "restore into a newer server", blocks=True
        )
        return
    provider, locale = database.locale_provider, database.locale or ""
    oldest = {"icu": 15, "builtin": BUILTIN_LOCALES.get(locale, 17)}.get(provider, 0)
    if server.major < oldest:
        yield Finding(
            "locale", f"provider {provider}, locale {locale}: PostgreSQL {oldest} or newer",
            f"PostgreSQL {server.version}", f"restore into PostgreSQL {oldest} or newer", blocks=True,
        )  # fmt: skip
        return
    wanted = [("libc", {"lc_collate": database.collate, "lc_ctype": database.ctype})]
    wanted += [("icu", {"locale": locale})] if provider == "icu" else []
    # A collation is made in the encoding of the database that it is made in, which must be the backup's for this.
    here = connection.info.parameter_status("server_encoding")
    for kind, words in wanted:
        if {*words.values()} <= {"C", "POSIX"}:
            continue
        shown = f"{kind} {', '.join(sorted({*words.values()}))} for {database.encoding}"
        if kind == "libc" and here != database.encoding:
            yield Finding(
                "locale", shown, f"not looked at: {connection.info.dbname!r} has encoding {here}",
                "locale -a on the server tells", blocks=False,
            )  # fmt: skip
            continue
        try:
            refused = catalog.try_collation(connection, kind, **words)
        except psycopg.errors.InsufficientPrivilege as error:
            hint = "locale -a on the server tells"
            yield Finding("locale", shown, f"not looked at: {str(error).splitlines()[0]}", hint, blocks=False)
            continue
        if refused:
            hint = "apt-get install locales; dpkg-reconfigure locales; then restart PostgreSQL"
            hint = hint if kind == "libc" else "restore into a server that is built with ICU and has this locale"
            yield Finding("locale", shown, refused, hint, blocks=True)


def _ties(connection: Connection, rights: Rights, situation: Situation) -> Iterator[Finding]:
    if situation.live is None:
        return
    name = situation.live.name
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
    with connect(situation.target.database) as live:
        for publication in catalog.read_names(live, "pg_publication", "pubname"):
            yield Finding(
                "replication", f"nobody subscribes to {name!r}", f"publication {publication!r}",
                "subscribers must be made anew after the restore", blocks=False,
            )  # fmt: skip


def _room(connection: Connection, situation: Situation) -> Iterator[Finding]:
    """Yield the disks that are too small; what falls on one disk is added up."""
    needed: dict[int, list[tuple[str, Path, int]]] = defaultdict(list)
    target, live, backup = situation.target, situation.live, situation.backup
    temporary = Path(tempfile.gettempdir())
    if live:
        spool = int(live.bytes * COMPRESSED_SHARE)
        needed[temporary.stat().st_dev].append(("the safety backup", temporary, spool))
    if target.filestore:
        folder = _existing(Path(target.filestore.path))
        missing = _missing_bytes(
            backup, Path(target.filestore.path), content_addressed=target.filestore.content_addressed
        )
        needed[folder.stat().st_dev].append(("files", folder, missing))
    copy = _database_bytes(situation)
    folders = catalog.read_data_folders(connection, live.name if live else None)
    is_here = target.database.host in LOCAL_HOSTS or target.database.host.startswith("/")
    try:
        if not is_here or not folders:
            raise FileNotFoundError
        data = Path(folders[0])
        needed[data.stat().st_dev].append(("the database", data, copy))
    except OSError:
        yield Finding(
            "room", f"{copy:,} bytes free where the server keeps its data", "its disk cannot be looked at from here",
            "df on the server, in the folder that SHOW data_directory tells a superuser", blocks=False,
        )  # fmt: skip
    for purposes in needed.values():
        disk = os.statvfs(purposes[0][1])
        free, total = disk.f_bavail * disk.f_frsize, sum(size for _, _, size in purposes)
        if free < total:
            shown = "; ".join(f"{size:,} for {purpose} in {folder}" for purpose, folder, size in purposes)
            yield Finding(
                "room", f"{total:,} bytes free: {shown}", f"{free:,} bytes free",
                "remove what is not needed there, such as databases that earlier restores parked", blocks=True,
            )  # fmt: skip


def _database_bytes(situation: Situation) -> int:
    """Return what the restored database takes more on the server's disk than is taken now, at most."""
    backup, live = situation.backup, situation.live.bytes if situation.live else 0
    if backup.manifest:
        size = backup.manifest.database.bytes
    else:
        size = max(live, backup.database_bytes * UNPACKED[backup.database_format])
    return max(0, size - live) if situation.in_place else size


def _missing_bytes(backup: Material, root: Path, *, content_addressed: bool) -> int:
    if not content_addressed:
        return backup.files_bytes
    return sum(member.bytes for member in backup.file_members() if not (root / member.path).exists())


def _existing(folder: Path) -> Path:
    return next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
