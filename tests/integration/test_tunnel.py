"""The sessions of a server that only its host reaches: over a real sshd, to a real server."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import psycopg
import pytest

from opsproof.errors import ConnectionFailed, DatabaseMissing
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.transport import close_connections
from opsproof.system.hosts.tunnel import close_tunnels
from opsproof.system.postgres.dump import Clients, find_client_programs
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import connect
from opsproof.target import DatabaseAddress
from tests.lab.postgres_server import PostgresServer
from tests.lab.ssh_server import SshServer, ssh_server

__all__ = ["ssh_server"]
NAME = "behind ssh"


@pytest.fixture
def address(postgres: PostgresServer, ssh_server: SshServer) -> Iterator[DatabaseAddress]:
    """A database whose address is only its host's."""
    there = postgres.create_database(NAME, "CREATE TABLE t AS SELECT generate_series(1, 200000) AS n")
    yield replace(there, via=ssh_server.connection)
    close_tunnels()
    close_connections()
    postgres.drop_database(NAME)


def test_sessions_side_by_side_each_with_much_to_say(address: DatabaseAddress) -> None:
    def count(_: int) -> int:
        with connect(address) as connection:
            text = "x" * 5_000_000
            row = connection.execute(
                "SELECT length(%s), (SELECT string_agg(n::text, ',') FROM public.t)", (text,)
            ).fetchone()
        assert row is not None
        assert row[0] == len(text)
        return len(row[1].split(","))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(count, range(6))) == [200_000] * 6


def test_the_server_sees_its_host_and_no_runner(address: DatabaseAddress) -> None:
    with maintenance(address) as connection:
        row = connection.execute("SELECT current_database(), application_name FROM pg_stat_activity"
                                 " WHERE pid = pg_backend_pid()").fetchone()  # fmt: skip
    assert row == ("postgres", "opsproof")


def test_a_statement_can_be_cancelled(address: DatabaseAddress) -> None:
    with connect(address) as connection:
        connection.execute("SET statement_timeout = '10s'")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(connection.execute, "SELECT pg_sleep(60)")
            while not waiting.done():
                connection.cancel_safe(timeout=5)
            assert isinstance(waiting.exception(), psycopg.errors.QueryCanceled)


def test_a_database_that_is_not_there_is_told_from_a_server_that_is_not(address: DatabaseAddress) -> None:
    with pytest.raises(DatabaseMissing), connect(replace(address, name="nothing of the kind")):
        pass


@pytest.mark.parametrize("host", ["127.0.0.1", "/nowhere"])
def test_a_server_that_does_not_answer_is_what_the_relay_says(address: DatabaseAddress, host: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        silent = replace(address, host=host, port=port)
        with pytest.raises(ConnectionFailed) as caught, connect(silent):
            pass
    assert f"{host} port {port}: " in caught.value.found


def test_programs_run_there_with_the_password_of_their_role(
    address: DatabaseAddress, postgres: PostgresServer, ssh_server: SshServer
) -> None:
    host = Host(ssh_server.connection)
    programs = find_client_programs(host, postgres_major(address), str(postgres.bindir))
    clients = Clients(host, programs, address)
    with clients.start("pg_dump", "--schema-only", f"--dbname={clients.conninfo()}") as pipe:
        text = b"".join(iter(pipe.read, b""))
        pipe.finish()
    assert b"CREATE TABLE public.t" in text


def postgres_major(address: DatabaseAddress) -> int:
    with connect(address) as connection:
        return connection.info.server_version // 10000
