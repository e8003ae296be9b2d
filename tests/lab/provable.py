"""A real dump with what was counted beside it, restored into a copy that a test may spoil, for proofs of restores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from opsproof.archive import manifest as records
from opsproof.archive.manifest import Manifest, Member, TableRecord
from opsproof.system.postgres.server import connect, describe_database, read_server
from opsproof.system.postgres.snapshot import open_snapshot
from opsproof.target import DatabaseAddress
from tests.lab.captured import clients_of, make_database, print_fingerprints, run_client
from tests.lab.manifests import database_record, manifest_of
from tests.lab.postgres_server import PostgresServer

ROLES = ("proof owner", "proof_reader", "proof_other")
SOURCE, COPY = "proof source", "proof copy"
RICH = (
    "CREATE TABLE t (id serial PRIMARY KEY, state varchar CHECK (state IN ('a', 'b')), n int NOT NULL)",
    "INSERT INTO t (state, n) SELECT 'a', n FROM generate_series(1, 50) n",
    "CREATE INDEX by_n ON t (n) WHERE state IN ('a', 'b')",
    "ALTER TABLE t ADD CONSTRAINT never_looked_at CHECK (n < 10) NOT VALID",
    "ALTER TABLE t ADD CONSTRAINT positive CHECK (n > 0)",
    'ALTER TABLE t OWNER TO "proof owner"',
    "GRANT SELECT, UPDATE (n) ON t TO proof_reader WITH GRANT OPTION",
    "SET ROLE proof_reader",
    "GRANT SELECT ON t TO PUBLIC",
    "RESET ROLE",
    'CREATE POLICY "mine; TO you" ON t FOR SELECT TO proof_reader, "proof owner" USING (n > 1)',
    'ALTER DEFAULT PRIVILEGES FOR ROLE "proof owner" GRANT SELECT ON TABLES TO proof_reader',
    "CREATE VIEW w AS SELECT * FROM t WHERE state IN ('a', 'b')",
    "CREATE SEQUENCE down INCREMENT -1",
    "SELECT nextval('down') FROM generate_series(1, 3)",
    "CREATE SEQUENCE unused",
    "SELECT lo_from_bytea(4001, 'abc'), lo_from_bytea(4002, 'def')",
    'ALTER LARGE OBJECT 4001 OWNER TO "proof owner"',
    "GRANT SELECT ON LARGE OBJECT 4001 TO proof_reader",
    "CREATE EXTENSION hstore",
    "CREATE PUBLICATION news FOR TABLE t",
    "CREATE FUNCTION watch() RETURNS event_trigger LANGUAGE plpgsql AS $$BEGIN END$$",
    "CREATE EVENT TRIGGER watching ON ddl_command_end EXECUTE FUNCTION watch()",
)


@dataclass(frozen=True)
class TakenBackup:
    """A real dump, and what was counted beside it."""

    manifest: Manifest | None
    dump: Path
    contents: tuple[TableRecord, ...]
    database_format: str = "custom"

    def tables(self) -> tuple[TableRecord, ...]:
        """Return what was counted."""
        return self.contents


@contextmanager
def having_roles(server: PostgresServer) -> Iterator[None]:
    """Make the roles that are not there, and drop them and the databases afterwards."""
    with server.connect() as connection:
        there = {row[0] for row in connection.execute("SELECT rolname::text FROM pg_roles")}
        made = [sql.Identifier(role) for role in ROLES if role not in there]
        for role in made:
            connection.execute(sql.SQL("CREATE ROLE {}").format(role))
    try:
        yield
    finally:
        server.drop_database(SOURCE)
        with server.connect() as connection:
            for role in made:
                connection.execute(sql.SQL("DROP ROLE {}").format(role))


def take(
    server: PostgresServer, folder: Path, *statements: str, counts: bool = False, encoding: str = "UTF8"
) -> TakenBackup:
    """Make the source database, dump it, and describe it as a backup does."""
    server.drop_database(SOURCE)
    address = make_database(server, SOURCE, encoding)
    with server.connect(SOURCE) as connection:
        for statement in ("SET client_encoding = 'UTF8'", *statements):
            connection.execute(statement.encode())
    clients, dump = clients_of(server, address), folder / "database"
    run_client(server, [server.bindir / "pg_dump", "-Fc", "-f", dump, "-d", address.conninfo()])
    with connect(address) as connection:
        facts, version = describe_database(connection), read_server(connection)
        connection.rollback()
        with open_snapshot(connection) as snapshot:
            contents = snapshot.count_rows() if counts else print_fingerprints(clients, snapshot)
            objects, sequences = snapshot.large_objects(), snapshot.sequences()
    manifest = manifest_of(
        fingerprint="counts" if counts else "full",
        server=records.ServerRecord(
            version=version.version,
            version_num=version.version_num,
            system_identifier=version.system_identifier,
            client_version=version.version,
        ),
        database=database_record(
            extensions=tuple(
                records.Extension(name=name, version=number, schema_name=schema)
                for name, number, schema in facts.extensions
            )
        ),
        dump=Member(path="x.dump", bytes=dump.stat().st_size, sha256="d" * 64),
        totals=manifest_of().totals.model_copy(
            update={
                "large_objects": len(objects),
                "large_object_bytes": sum(one.rows or 0 for one in objects.values()),
            }
        ),
        sequences=tuple(records.SequenceRecord(sequence=one.label, last_value=one.last_value) for one in sequences),
    )
    return TakenBackup(manifest, dump, tuple(records.table_records(contents)))


def load(server: PostgresServer, address: DatabaseAddress, backup: TakenBackup, *options: str) -> None:
    """Restore it into a database."""
    argv = [server.bindir / "pg_restore", "--exit-on-error", *options, f"--dbname={address.conninfo()}", backup.dump]
    run_client(server, list(argv))


def spoil(server: PostgresServer, *statements: str) -> None:
    """Run statements on the copy as a superuser."""
    with server.connect(COPY) as connection:
        for statement in ("SET client_encoding = 'UTF8'", *statements):
            connection.execute(statement.encode())
