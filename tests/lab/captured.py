"""Captures of real databases, their restored copies, and what a run of ours would leave behind."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.archive.writing.capture import Capture, Capturing
from opsproof.inspection.restores.sameness import compare_contents, compare_objects
from opsproof.journal import Journal
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.copytext import Content, CopyStream
from opsproof.system.postgres.dump import Clients, find_client_programs
from opsproof.system.postgres.server import connect, read_server
from opsproof.system.postgres.snapshot import Snapshot, open_snapshot
from opsproof.target import Connection, DatabaseAddress
from tests.lab.postgres_server import PostgresServer

LOCAL = Host(Connection())
SMALL = "CREATE TABLE small AS SELECT n, repeat(md5(n::text), 8) AS x FROM generate_series(1, 4000) n"


def clients_of(server: PostgresServer, address: DatabaseAddress, bindir: Path | None = None) -> Clients:
    """Return the server's own client programs, or those of a folder, for one database."""
    with connect(address) as connection:
        major = read_server(connection).major
    return Clients(LOCAL, find_client_programs(LOCAL, major, str(bindir or server.bindir)), address)


@contextmanager
def captured(
    clients: Clients, *, full: bool = True, lock_timeout: float = 5.0, journal: Journal | None = None
) -> Iterator[Capture]:
    """Capture a database as a backup does; the capture is closed with the block."""
    with (
        connect(clients.address, lock_timeout=lock_timeout) as connection,
        open_snapshot(connection) as snapshot,
        Capturing(clients, snapshot, journal or Journal(), lock_timeout=lock_timeout, full=full) as capturing,
    ):
        capture = capturing.run(0)
    try:
        yield capture
    finally:
        capture.close()


def read_fingerprints(clients: Clients) -> dict[str, Content]:
    """Return every table of a database, read in a snapshot of its own."""
    with connect(clients.address) as connection, open_snapshot(connection) as snapshot:
        return print_fingerprints(clients, snapshot)


def print_fingerprints(clients: Clients, snapshot: Snapshot) -> dict[str, Content]:
    """Return every table of a snapshot."""
    tables = CopyStream([table.label for table in snapshot.tables])
    with clients.print_tables(snapshot, 5.0) as psql:
        while data := psql.read():
            tables.feed(data)
        psql.finish()
    return tables.finish()


def restore(server: PostgresServer, capture: Capture, name: str, encoding: str = "UTF8") -> DatabaseAddress:
    """Restore a captured dump into a new database, by the server's own pg_restore."""
    address = make_database(server, name, encoding)
    with tempfile.NamedTemporaryFile(prefix="opg-", suffix=".dump") as file:
        for chunk in capture.dump.unpacked():
            file.write(chunk)
        file.flush()
        argv = [server.bindir / "pg_restore", "--exit-on-error", f"--dbname={address.conninfo()}", file.name]
        run_client(server, argv)
    return address


def replay(server: PostgresServer, capture: Capture, name: str, encoding: str = "UTF8") -> DatabaseAddress:
    """Run the captured plain SQL in a new database, by the server's own psql."""
    address = make_database(server, name, encoding)
    argv = [server.bindir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-1", "-f", "-", "-d", address.conninfo()]
    run_client(server, argv, b"".join(capture.sql.unpacked()))
    return address


def make_database(
    server: PostgresServer, name: str, encoding: str = "UTF8", owner: str = "postgres"
) -> DatabaseAddress:
    """Create an empty database of an encoding, sorted by bytes."""
    with server.connect() as connection:
        query = "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING {} LC_COLLATE 'C' LC_CTYPE 'C'"
        connection.execute(sql.SQL(query).format(sql.Identifier(name), sql.Identifier(owner), encoding))
    return server.address(name)


def run_client(server: PostgresServer, argv: list[object], stdin: bytes = b"") -> bytes:
    """Run a client program of the server as its superuser."""
    environ = {"PATH": os.environ["PATH"], "PGPASSWORD": server.password, "LC_ALL": "C"}
    done = subprocess.run(list(map(str, argv)), input=stdin, capture_output=True, timeout=120, env=environ)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


def contents_of(capture: Capture) -> Mapping[str, Content]:
    """Return what a capture dumped, once it is certain that it is what the snapshot has."""
    compare_contents(capture.counted, capture.dumped, "the dump")
    compare_objects(capture.counted_objects, capture.dumped_objects)
    return capture.counted


def children() -> set[int]:
    """Return the processes that this one has started and that are not reaped yet."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        try:
            found.update(map(int, (task / "children").read_text().split()))
        except OSError:
            continue  # a thread that has ended meanwhile
    return found


def nameless_files() -> int:
    """Return how many files without a name this process holds open: the spools."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += str(descriptor.readlink()).endswith(" (deleted)")
        except OSError:
            continue  # the descriptor that lists them
    return count


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A temporary folder of its own, so that nothing can hide in it: for every test of a module that imports it."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


@pytest.fixture(scope="module")
def small(wheel_postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    """A database of 1 MB, with the one table small."""
    yield wheel_postgres.create_database("small", SMALL)
    wheel_postgres.drop_database("small")


@contextmanager
def leaving_nothing(folder: Path) -> Iterator[None]:
    """Check that a block leaves no process, no open spool, and nothing in the temporary folder."""
    before = children(), nameless_files()
    yield
    assert (children(), nameless_files()) == before
    assert list(folder.iterdir()) == []
