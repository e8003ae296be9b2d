"""A swap that somebody is in the way of: who it is gets said in time, and nothing was changed."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import pytest

from opsproof.errors import DatabaseError
from opsproof.system.postgres.databases import (
    drop_database,
)
from opsproof.target import Secret
from tests.lab.databases import (
    PASSWORD,
    Pair,
    assert_swapped,
    assert_untouched,
    databases,
    owner,
    pair,
)
from tests.lab.postgres_server import KINDS, PostgresServer, _await, running_postgres
from tests.lab.waiting import await_true

__all__ = ["owner", "pair"]


class TestHeld:
    def test_by_a_superuser_whom_the_owner_may_not_end(self, postgres: PostgresServer, owner: str) -> None:
        with databases(postgres, owner=owner) as pair, postgres.connect(pair.live) as session:
            own = replace(pair, address=replace(pair.address, user=owner, password=Secret(PASSWORD)))
            with pytest.raises(DatabaseError, match=r"somebody held it for 0\.5 seconds") as caught:
                own.swap(timeout=0.5)
            assert f"process {session.info.backend_pid} of role 'postgres'" in caught.value.found
            assert "nothing was changed" in caught.value.kept
            assert session.execute("SELECT word FROM which").fetchone() == ("old",)
            assert_untouched(pair)

    def test_by_somebody_who_leaves_in_time(self, postgres: PostgresServer, owner: str) -> None:
        with databases(postgres, owner=owner) as pair, ExitStack() as stack:
            session = postgres.connect(pair.live)
            stack.callback(session.close)
            leaving = threading.Timer(0.6, session.close)
            leaving.start()
            replace(pair, address=replace(pair.address, user=owner, password=Secret(PASSWORD))).swap()
            leaving.join()
            assert_swapped(pair)

    def test_by_somebody_who_alters_it(self, pair: Pair) -> None:
        with pair.server.connect() as other:
            with other.transaction():
                other.execute("COMMENT ON DATABASE app IS 'ours'")
                with pytest.raises(DatabaseError, match="somebody held it") as caught:
                    pair.swap(timeout=0.5)
                assert f"process {other.info.backend_pid}" in caught.value.found
                assert pair.which() == "old"
            assert_untouched(pair)


@pytest.fixture(scope="module", params=KINDS)
def replicating(request: pytest.FixtureRequest) -> Iterator[PostgresServer]:
    """A server that takes prepared transactions and logical replication, which only a start of its own allows."""
    with running_postgres(request.param) as server:
        with server.connect() as connection:
            connection.execute("ALTER SYSTEM SET max_prepared_transactions = 5")
            connection.execute("ALTER SYSTEM SET wal_level = logical")
        os.kill(server.pid, signal.SIGINT)
        await_true(lambda: not (server.folder / "data" / "postmaster.pid").exists(), "the server did not stop", 20)
        argv = [str(server.bindir / "postgres"), "-D", str(server.folder / "data")]
        with (server.folder / "log").open("ab") as log:
            process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True, cwd="/", **server.account)
        try:
            _await(server, process)
            yield server
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(20)


class TestHeldByReplication:
    def test_a_prepared_transaction_is_named(self, replicating: PostgresServer) -> None:
        with databases(replicating) as pair:
            with replicating.connect(pair.live) as session:
                session.execute("BEGIN")
                session.execute("INSERT INTO which VALUES ('later')")
                session.execute("PREPARE TRANSACTION 'half done'")
            try:
                with pytest.raises(DatabaseError, match="somebody held it") as caught:
                    pair.swap(timeout=0.5)
                assert "prepared transaction 'half done' of role 'postgres'" in caught.value.found
                assert_untouched(pair)
            finally:
                with replicating.connect(pair.live) as session:
                    session.execute("ROLLBACK PREPARED 'half done'")
            pair.swap()
            assert_swapped(pair)

    def test_a_slot_in_use_is_named_and_its_reader_left_alone(self, replicating: PostgresServer) -> None:
        with databases(replicating) as pair, replicating.connect(pair.live) as connection:
            connection.execute("SELECT pg_create_logical_replication_slot('reader', 'pgoutput')")
            connection.execute("CREATE PUBLICATION everything FOR ALL TABLES")
            with read_slot(replicating, pair.live) as reader:
                await_true(lambda: slot_in_use(replicating), "nobody reads the slot", 20)
                connection.close()
                with pytest.raises(DatabaseError, match="somebody held it") as caught:
                    pair.swap(timeout=0.5)
                assert "replication slot 'reader', in use by process" in caught.value.found
                assert reader.poll() is None
                assert_untouched(pair)
            await_true(lambda: not slot_in_use(replicating), "the slot stays in use", 20)
            pair.swap()
            with replicating.connect() as other:
                place = other.execute("SELECT database FROM pg_replication_slots").fetchone()
                assert place == (pair.parked,)
                with pytest.raises(DatabaseError, match="replication slots would be lost"):
                    drop_database(other, pair.parked)
                other.execute("SELECT pg_drop_replication_slot('reader')")
                drop_database(other, pair.parked)


@contextmanager
def read_slot(server: PostgresServer, database: str) -> Iterator[subprocess.Popen[bytes]]:
    options = ["-o", "proto_version=1", "-o", "publication_names=everything"]
    argv = ["pg_recvlogical", "-d", server.address(database).conninfo(), "-S", "reader", "--start", "-n", "-f", "-"]
    program = server.bindir / "pg_recvlogical"
    environment = {**os.environ, "PGPASSWORD": server.password}
    with subprocess.Popen(
        [str(program), *argv[1:], *options], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def slot_in_use(server: PostgresServer) -> bool:
    with server.connect() as connection:
        return connection.execute("SELECT FROM pg_replication_slots WHERE active").fetchone() is not None
