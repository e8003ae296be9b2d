"""Connecting: the server says what it is; what is wrong is said, with what to type."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.errors import ConnectionFailed, DatabaseError, DatabaseMissing, PermissionDenied
from opsproof.system.postgres.server import connect, describe_database, list_databases, read_server
from opsproof.target import DatabaseAddress, Secret
from tests.lab.postgres_server import PostgresServer

WRONG = "a wrong password that nobody may see"


@pytest.fixture
def address(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    yield postgres.create_database("acme_prod")
    postgres.drop_database("acme_prod")


def test_the_server_says_what_it_is(postgres: PostgresServer) -> None:
    with connect(postgres.address("postgres")) as connection:
        server = read_server(connection)
    major = int((postgres.folder / "data" / "PG_VERSION").read_text())
    assert (server.major, server.user, server.is_superuser) == (major, "postgres", True)
    assert server.version.startswith(f"{major}.")
    assert server.system_identifier.isdecimal()


def test_an_ordinary_role_may_ask_the_server_too(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE ordinary LOGIN PASSWORD 'ordinary-secret'")
    try:
        with connect(postgres.address("acme_prod", "ordinary", "ordinary-secret")) as connection:
            server = read_server(connection)
            assert (server.user, server.is_superuser) == ("ordinary", False)
            assert describe_database(connection).owner == "postgres"
    finally:
        with postgres.connect() as connection:
            connection.execute("DROP ROLE ordinary")


def test_a_database_is_described_with_all_that_makes_it(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with postgres.connect("acme_prod") as connection:
        connection.execute("CREATE ROLE describer")
        for statement in (
            "ALTER DATABASE acme_prod CONNECTION LIMIT 7",
            'ALTER DATABASE acme_prod SET search_path = public, "odd, path"',
            "ALTER ROLE describer IN DATABASE acme_prod SET work_mem = '5MB'",
            "COMMENT ON DATABASE acme_prod IS E'it''s\\nours'",
            "GRANT CONNECT ON DATABASE acme_prod TO describer",
            "CREATE EXTENSION hstore",
        ):
            connection.execute(statement.encode())
    try:
        with connect(address) as connection:
            facts = describe_database(connection)
    finally:
        postgres.drop_database("acme_prod")
        with postgres.connect() as connection:
            connection.execute("DROP ROLE describer")
    assert (facts.name, facts.owner, facts.encoding, facts.connection_limit) == ("acme_prod", "postgres", "UTF8", 7)
    assert facts.settings == ((None, 'search_path=public, "odd, path"'), ("describer", "work_mem=5MB"))
    assert facts.comment == "it's\nours"
    assert any(line.startswith("describer=c/") for line in facts.acl)
    assert [name for name, _, _ in facts.extensions] == ["hstore", "plpgsql"]
    assert facts.locale_provider == "libc"
    assert facts.bytes > 1_000_000


def test_values_are_read_with_everything_pinned(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with postgres.connect() as connection:
        for setting in (
            "datestyle = 'SQL, DMY'",
            "timezone = 'Asia/Tokyo'",
            "statement_timeout = '1ms'",
            "row_security = on",
        ):
            connection.execute(f"ALTER DATABASE acme_prod SET {setting}".encode())
    with connect(address, lock_timeout=1.5) as connection:
        names = (
            "datestyle",
            "timezone",
            "statement_timeout",
            "row_security",
            "lock_timeout",
            "search_path",
            "client_encoding",
        )
        shown = {name: connection.execute(f"SHOW {name}".encode()).fetchone() for name in names}
    assert {name: row[0] for name, row in shown.items() if row} == {
        "datestyle": "ISO, YMD",
        "timezone": "UTC",
        "statement_timeout": "0",
        "row_security": "off",
        "lock_timeout": "1500ms",
        "search_path": "",
        "client_encoding": "UTF8",
    }


class TestErrors:
    def test_a_missing_database_comes_with_those_that_are_there(
        self, postgres: PostgresServer, address: DatabaseAddress
    ) -> None:
        with (
            pytest.raises(DatabaseMissing, match="Database 'acme_prdo' does not exist on 127") as caught,
            connect(replace(address, name="acme_prdo")),
        ):
            pass
        assert "'acme_prod'" in caught.value.found
        assert "the nearest is 'acme_prod'" in caught.value.found
        assert "template0" not in caught.value.found
        assert "db_name" in caught.value.hint

    def test_a_wrong_password(self, postgres: PostgresServer, address: DatabaseAddress) -> None:
        with (
            pytest.raises(ConnectionFailed, match="as postgres") as caught,
            connect(replace(address, password=Secret(WRONG))),
        ):
            pass
        assert "password authentication failed" in caught.value.found
        assert "db_password in odoo.conf" in caught.value.hint
        assert WRONG not in str(caught.value)
        assert WRONG not in repr(caught.value.__cause__)

    def test_no_password_at_all(self, address: DatabaseAddress, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PGPASSFILE", "/dev/null")
        with pytest.raises(ConnectionFailed) as caught, connect(replace(address, password=None)):
            pass
        assert "PGPASSWORD" in caught.value.hint

    def test_a_role_that_does_not_exist_and_one_that_may_not_log_in(self, postgres: PostgresServer) -> None:
        with postgres.connect() as connection:
            connection.execute("CREATE ROLE no_login PASSWORD 'x-secret'")
        try:
            for role in ("nobody_at_all", "no_login"):
                with (
                    pytest.raises(ConnectionFailed, match=role),
                    connect(postgres.address("postgres", role, "x-secret")),
                ):
                    pass
        finally:
            with postgres.connect() as connection:
                connection.execute("DROP ROLE no_login")

    def test_a_port_that_nobody_listens_on(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound but not listening: refused, and nobody else can take it
            port = taken.getsockname()[1]
            with (
                pytest.raises(ConnectionFailed, match=f"127.0.0.1:{port}") as caught,
                connect(DatabaseAddress("acme", "127.0.0.1", port, "odoo", Secret("x-secret"))),
            ):
                pass
        assert "is the server running" in caught.value.hint
        assert f"-p {port}" in caught.value.hint

    def test_a_socket_that_is_not_there(self, tmp_path: Path) -> None:
        with pytest.raises(ConnectionFailed) as caught, connect(DatabaseAddress("acme", str(tmp_path), 5432, "odoo")):
            pass
        assert "is the server running" in caught.value.hint

    def test_a_host_without_an_address(self) -> None:
        with (
            pytest.raises(ConnectionFailed, match=r"no-such-host\.invalid:5432"),
            connect(DatabaseAddress("acme", "no-such-host.invalid", 5432, "odoo")),
        ):
            pass

    def test_a_server_that_never_answers_is_asked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two seconds is psycopg's least; asking for the names of the databases as well would take three times that."""
        monkeypatch.setattr("opsproof.system.postgres.server.CONNECT_SECONDS", 2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            started = time.monotonic()
            with pytest.raises(ConnectionFailed) as caught, connect(DatabaseAddress("acme", "127.0.0.1", port, "odoo")):
                pass
            assert 1.5 < time.monotonic() - started < 3.8
        assert "timeout" in caught.value.found
        assert "firewall" in caught.value.hint

    @pytest.mark.slow
    def test_the_connect_timeout_is_ten_seconds(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = silent.getsockname()[1]
            started = time.monotonic()
            with (
                pytest.raises(ConnectionFailed, match=str(port)),
                connect(DatabaseAddress("a", "127.0.0.1", port, "odoo")),
            ):
                pass
        assert 9 < time.monotonic() - started < 12

    def test_a_role_that_may_not_connect(self, postgres: PostgresServer, address: DatabaseAddress) -> None:
        role = 'may "not" connect'
        with postgres.connect() as connection:
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD 'x-secret'").format(sql.Identifier(role)))
            connection.execute("REVOKE CONNECT ON DATABASE acme_prod FROM PUBLIC")
        try:
            with pytest.raises(PermissionDenied) as caught, connect(postgres.address("acme_prod", role, "x-secret")):
                pass
            assert caught.value.hint == 'GRANT CONNECT ON DATABASE "acme_prod" TO "may ""not"" connect"'
            with postgres.connect() as connection:
                connection.execute(caught.value.hint.encode())
            with connect(postgres.address("acme_prod", role, "x-secret")):
                pass
        finally:
            postgres.drop_database("acme_prod")
            with postgres.connect() as connection:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))

    def test_a_database_that_is_closed(self, postgres: PostgresServer, address: DatabaseAddress) -> None:
        with postgres.connect() as connection:
            connection.execute("ALTER DATABASE acme_prod ALLOW_CONNECTIONS false")
        with pytest.raises(ConnectionFailed, match="takes no connections") as caught, connect(address):
            pass
        assert 'ALTER DATABASE "acme_prod" ALLOW_CONNECTIONS true' in caught.value.hint

    def test_a_connection_that_is_cut(self, postgres: PostgresServer, address: DatabaseAddress) -> None:
        with pytest.raises(ConnectionFailed, match="was lost") as caught, connect(address) as connection:
            with postgres.connect() as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))
            connection.execute("SELECT 1")
        assert "server's log" in caught.value.hint

    def test_a_query_that_is_wrong(self, address: DatabaseAddress) -> None:
        with pytest.raises(DatabaseError, match="'acme_prod': relation") as caught, connect(address) as connection:
            connection.execute("SELECT * FROM no_such_table")
        assert "no_such_table" in caught.value.found

    def test_an_error_of_another_kind_is_not_touched_and_the_connection_is_closed(
        self, address: DatabaseAddress
    ) -> None:
        with pytest.raises(ValueError, match="mine"), connect(address) as connection:
            raise ValueError("mine")
        assert connection.closed


def test_databases_are_listed_without_templates(postgres: PostgresServer, address: DatabaseAddress) -> None:
    with connect(address) as connection:
        names = list_databases(connection)
    assert names == tuple(sorted(names))
    assert {"acme_prod", "postgres"} <= set(names)
    assert not {"template0", "template1"} & set(names)
