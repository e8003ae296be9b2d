"""Dumps that fail: each is an error that says what to do, and nothing of it is left."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from opsproof.errors import (
    ArchiveError,
    ConnectionFailed,
    DatabaseMissing,
    DumpError,
    LockTimeout,
    OpsproofError,
    PermissionDenied,
)
from opsproof.system.postgres.dump import Clients
from opsproof.target import DatabaseAddress
from tests.lab.captured import SMALL, captured, children, clients_of, contents_of, leaving_nothing, small, temporary
from tests.lab.moment import at_the_moment
from tests.lab.postgres_server import PostgresServer
from tests.lab.watcher import ProcessWatcher

__all__ = ["small", "temporary"]

REPOSITORY = Path(__file__).parents[2]
BIG = "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 16) AS x FROM generate_series(1, 150000) n"


@pytest.fixture(scope="module")
def big(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    """A database of some 80 MB, in one table: there is time to do something to its dump."""
    yield postgres.create_database("big", BIG)
    postgres.drop_database("big")


def process_named(name: str) -> int | None:
    """Return the process of ours that runs a program and has moved a megabyte, or None."""
    for pid in children():
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
            counts = dict(line.split(": ") for line in Path(f"/proc/{pid}/io").read_text().splitlines())
            if command.endswith(f"/{name}") and int(counts["rchar"]) + int(counts["wchar"]) > 1 << 20:
                return pid
    return None


@pytest.mark.parametrize("program", ["pg_dump", "pg_restore", "psql"])
def test_a_program_that_is_killed_while_it_works(
    program: str, postgres: PostgresServer, big: DatabaseAddress, temporary: Path
) -> None:
    clients = clients_of(postgres, big)

    def kill() -> None:
        os.kill(process_named(program) or 0, signal.SIGKILL)

    with leaving_nothing(temporary):
        with (
            at_the_moment(lambda: process_named(program) is not None, kill),
            pytest.raises(DumpError, match=f"{program} was killed by signal 9") as caught,
            captured(clients),
        ):
            pass
        assert "no backup was written" in caught.value.kept


# The server's own autovacuum may be at work there, too.
OURS = "datname = 'big' AND backend_type = 'client backend'"
COPYING = f"FROM pg_stat_activity WHERE {OURS} AND state = 'active' AND query LIKE"


@pytest.mark.parametrize(
    ("session", "error"),
    [
        ("query LIKE '%TO stdout;'", DumpError),
        ("query LIKE '%TO STDOUT;'", DumpError),
        (f"xact_start = (SELECT min(xact_start) FROM pg_stat_activity WHERE {OURS})", OpsproofError),
    ],
    ids=["pg_dump's", "psql's", "the snapshot's"],
)
def test_a_connection_that_is_cut(
    session: str, error: type[OpsproofError], postgres: PostgresServer, big: DatabaseAddress, temporary: Path
) -> None:
    clients = clients_of(postgres, big)
    own = "%TO STDOUT;" if "STDOUT" in session else "%TO stdout;"
    cut: list[tuple[bool]] = []
    with postgres.connect() as connection:

        def is_copying() -> bool:
            return bool(connection.execute(f"SELECT {COPYING} '{own}'".encode()).fetchall())

        def cut_off() -> None:
            query = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS} AND {session}"
            cut.extend(connection.execute(query.encode()).fetchall())

        with (
            leaving_nothing(temporary),
            at_the_moment(is_copying, cut_off),
            pytest.raises(error) as caught,
            captured(clients),
        ):
            pass
    assert cut == [(True,)]
    assert isinstance(caught.value, (DumpError, ConnectionFailed))
    assert "terminating connection" in caught.value.found or "closed the connection" in caught.value.found


def test_a_database_that_is_dropped_meanwhile(postgres: PostgresServer, temporary: Path) -> None:
    address = postgres.create_database("vanishing", BIG)
    clients = clients_of(postgres, address)
    with (
        leaving_nothing(temporary),
        at_the_moment(lambda: process_named("pg_dump") is not None, lambda: postgres.drop_database("vanishing")),
        pytest.raises((DumpError, ConnectionFailed)),
        captured(clients),
    ):
        pass
    with (
        leaving_nothing(temporary),
        pytest.raises(DatabaseMissing, match="'vanishing' does not exist"),
        captured(clients),
    ):
        pass


def test_a_table_that_the_role_may_not_read(postgres: PostgresServer, temporary: Path) -> None:
    address = postgres.create_database("unreadable", SMALL, "CREATE TABLE open AS SELECT 1 AS a")
    try:
        with postgres.connect("unreadable") as connection:
            connection.execute("CREATE ROLE dump_reader LOGIN PASSWORD 'reader-secret'")
            connection.execute("GRANT SELECT ON open TO dump_reader")
        reader = postgres.address(address.name, "dump_reader", "reader-secret")
        clients = clients_of(postgres, reader)
        with leaving_nothing(temporary), pytest.raises(PermissionDenied, match="small") as caught, captured(clients):
            pass
        assert 'GRANT pg_read_all_data TO "dump_reader"' in caught.value.hint
    finally:
        postgres.drop_database("unreadable")
        with postgres.connect() as connection:
            connection.execute("DROP ROLE IF EXISTS dump_reader")


def test_a_sequence_that_the_role_may_not_read(postgres: PostgresServer, temporary: Path) -> None:
    address = postgres.create_database("unreadable", "CREATE SEQUENCE hidden", "CREATE TABLE open AS SELECT 1 AS a")
    try:
        with postgres.connect("unreadable") as connection:
            connection.execute("CREATE ROLE dump_reader LOGIN PASSWORD 'reader-secret'")
            connection.execute("GRANT SELECT ON open TO dump_reader")
        clients = clients_of(postgres, postgres.address(address.name, "dump_reader", "reader-secret"))
        with (
            leaving_nothing(temporary),
            pytest.raises(PermissionDenied, match="may not read all") as caught,
            captured(clients),
        ):
            pass
        assert "hidden" in caught.value.found
        assert 'GRANT pg_read_all_data TO "dump_reader"' in caught.value.hint
    finally:
        postgres.drop_database("unreadable")
        with postgres.connect() as connection:
            connection.execute("DROP ROLE IF EXISTS dump_reader")


@pytest.mark.parametrize("table", ["plain", "parted"])
def test_a_table_that_somebody_else_has_locked(table: str, postgres: PostgresServer, temporary: Path) -> None:
    """A plain table stops the snapshot, a partitioned one, which has no rows of its own, only pg_dump."""
    address = postgres.create_database(
        "locked", "CREATE TABLE plain (a int)", "CREATE TABLE parted (a int) PARTITION BY LIST (a)"
    )
    clients = clients_of(postgres, address)
    try:
        with postgres.connect("locked") as holder, holder.transaction():
            holder.execute(f"LOCK TABLE ONLY {table} IN ACCESS EXCLUSIVE MODE".encode())
            started = time.monotonic()
            with leaving_nothing(temporary), pytest.raises(LockTimeout) as caught, captured(clients, lock_timeout=0.5):
                pass
            assert 0.4 < time.monotonic() - started < 8
        assert "pg_stat_activity" in caught.value.hint or "pg_locks" in caught.value.hint
        with captured(clients) as capture:
            assert list(contents_of(capture)) == ["public.plain"]
    finally:
        postgres.drop_database("locked")


SPOOL_IS_FULL = """
import json, resource, signal, sys, os
from pathlib import Path
from opsproof.archive.writing.capture import Capturing
from opsproof.errors import ArchiveError
from opsproof.target import DatabaseAddress, Secret
from tests.lab.captured import captured, children, nameless_files, LOCAL
from opsproof.system.postgres.dump import Clients, ClientPrograms
given = json.load(sys.stdin)
address = DatabaseAddress(given["name"], "127.0.0.1", given["port"], "postgres", Secret(given["password"]))
clients = Clients(LOCAL, ClientPrograms(given["bindir"], ""), address)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (given["limit"], given["limit"]))
try:
    with captured(clients):
        print("no error")
except ArchiveError as error:
    print(error)
print("left:", children(), nameless_files(), os.listdir(os.environ["TMPDIR"]))
"""


@pytest.mark.parametrize("limit", [4_096, 60_000])
def test_a_full_temporary_disk(
    limit: int, wheel_postgres: PostgresServer, small: DatabaseAddress, temporary: Path
) -> None:
    """A limit on the size of files stops a spool as a full disk does, in a process of its own."""
    given = {
        "name": small.name,
        "port": small.port,
        "password": wheel_postgres.password,
        "bindir": str(wheel_postgres.bindir),
        "limit": limit,
    }
    done = subprocess.run(
        [sys.executable, "-c", SPOOL_IS_FULL],
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPOSITORY,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The temporary file cannot be written: File too large")
    assert "TMPDIR=" in done.stdout
    assert "no backup was written" in done.stdout
    assert done.stdout.endswith("left: set() 0 []\n")


def test_a_temporary_folder_that_is_gone(
    wheel_postgres: PostgresServer, small: DatabaseAddress, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    clients = clients_of(wheel_postgres, small)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "gone"))
    with pytest.raises(ArchiveError, match="cannot be written"), captured(clients):
        pass


def test_no_password_is_in_any_argument(postgres: PostgresServer, big: DatabaseAddress) -> None:
    clients: Clients = clients_of(postgres, big)
    with ProcessWatcher([postgres.password]) as watcher, captured(clients):
        pass
    assert {"pg_dump", "pg_restore", "psql"} <= watcher.seen
    assert watcher.found == set()
