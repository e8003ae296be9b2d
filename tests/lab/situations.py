"""Restores of a real database that nothing is in the way of, and what a test puts in their way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from opsproof.archive.manifest import Extension, Manifest, Member, ServerRecord
from opsproof.inspection.finding import Finding
from opsproof.inspection.restores.preflight import examine
from opsproof.inspection.restores.situation import Situation
from opsproof.system.postgres.server import connect, describe_database, read_server
from opsproof.target import DatabaseAddress, DirectoryStoreSettings, Target
from tests.lab.captured import clients_of, run_client
from tests.lab.manifests import database_record, manifest_of
from tests.lab.postgres_server import PostgresServer

LIVE = "preflight live"
SECRET = "preflight-secret"


@dataclass(frozen=True)
class Stored:
    """A backup, as far as preflight looks at it."""

    manifest: Manifest | None
    database_bytes: int = 1000
    files_bytes: int = 0
    database_format: str = "custom"
    members: tuple[Member, ...] = ()
    saved_roles: bytes | None = field(default=None)

    def file_members(self) -> tuple[Member, ...]:
        return self.members

    def roles(self) -> bytes | None:
        return self.saved_roles


@pytest.fixture
def live(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    yield postgres.create_database(LIVE, "CREATE TABLE t (a int)", "CREATE EXTENSION hstore")
    postgres.drop_database(LIVE)


@pytest.fixture
def situation(postgres: PostgresServer, live: DatabaseAddress, tmp_path: Path) -> Situation:
    """A restore that nothing is in the way of."""
    return situation_of(postgres, live, tmp_path)


def situation_of(server: PostgresServer, address: DatabaseAddress, folder: Path) -> Situation:
    with connect(address) as connection:
        version, facts = read_server(connection), describe_database(connection)
    manifest = manifest_of(
        server=ServerRecord(
            version=version.version, version_num=version.version_num, system_identifier="1", client_version="1"
        ),
        database=database_record(
            owner="postgres",
            acl=("=Tc/postgres", "postgres=CTc/postgres"),
            collate=facts.collate,
            ctype=facts.ctype,
            extensions=tuple(Extension(name=n, version=v, schema_name=s) for n, v, s in facts.extensions),
        ),
    )
    return Situation(
        target=Target("erp", "prod", address, DirectoryStoreSettings(folder), "acme"),
        server=version,
        live=facts,
        clients=clients_of(server, server.address(address.name)),
        backup=Stored(manifest),
        dump=dump(server, address.name, folder),
    )


def dump(server: PostgresServer, name: str, folder: Path) -> Path:
    path = folder / "database"
    run_client(server, [server.bindir / "pg_dump", "-Fc", "-f", path, "-d", server.address(name).conninfo()])
    return path


def of_manifest(situation: Situation, **changes: Any) -> Situation:
    """Return the same with another database in the manifest."""
    backup = situation.backup
    assert isinstance(backup, Stored)
    assert backup.manifest is not None
    database = backup.manifest.database.model_copy(update=changes)
    return replace(
        situation, backup=replace(backup, manifest=backup.manifest.model_copy(update={"database": database}))
    )


def of_backup(situation: Situation, **changes: Any) -> Situation:
    assert isinstance(situation.backup, Stored)
    return replace(situation, backup=replace(situation.backup, **changes))


def the_finding(situation: Situation, subject: str, *, blocks: bool = True) -> Finding:
    """Return the only finding, which is about a subject."""
    (finding,) = examine(situation)
    assert (finding.subject, finding.blocks) == (subject, blocks), finding
    assert finding.hint
    return finding


@contextmanager
def ordinary_role(server: PostgresServer, *options: str) -> Iterator[str]:
    """Make a role that is no superuser; what it owns in the live database goes with it."""
    role = "preflight ordinary"
    with server.connect() as connection:
        words = sql.SQL(" ".join(("CREATE ROLE {} LOGIN PASSWORD {}", *options)))
        connection.execute(words.format(sql.Identifier(role), SECRET))
    try:
        yield role
    finally:
        server.drop_database(LIVE)
        with server.connect() as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def as_role(situation: Situation, server: PostgresServer, role: str) -> Situation:
    address = server.address(situation.target.database.name, role, SECRET)
    return replace(situation, target=replace(situation.target, database=address))


def run_sql(server: PostgresServer, *statements: str, database: str = LIVE) -> None:
    with server.connect(database) as connection:
        for statement in statements:
            connection.execute(statement.encode())
