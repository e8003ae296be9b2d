"""Which rows a capture has: those of one moment, all that the role may see, and those that an extension gives."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from opsproof.errors import PermissionDenied
from opsproof.target import DatabaseAddress
from tests.lab.captured import (
    captured,
    clients_of,
    contents_of,
    make_database,
)
from tests.lab.capturing import address, fill, prove_copies
from tests.lab.postgres_server import PostgresServer

__all__ = ["address"]


def test_an_extensions_configuration_table(wheel_postgres: PostgresServer) -> None:
    """The rows that pg_dump takes of it are those of the condition that the extension gave; no contrib has one."""
    folder = wheel_postgres.bindir.parent / "share" / "extension"
    (folder / "lab_settings.control").write_text("default_version = '1'\nrelocatable = false\nschema = public\n")
    (folder / "lab_settings--1.sql").write_text(
        'CREATE TABLE lab_settings (name text, "is mine" bool);\n'
        "INSERT INTO lab_settings VALUES ('built in', false);\n"
        "SELECT pg_catalog.pg_extension_config_dump('lab_settings', 'WHERE \"is mine\"');\n"
        "CREATE TABLE lab_all (a int);\n"
        "SELECT pg_catalog.pg_extension_config_dump('lab_all', '');\n"
        "CREATE TABLE lab_private (a int);\n"
    )
    address = make_database(wheel_postgres, "extended")
    try:
        fill(
            wheel_postgres,
            address,
            "CREATE EXTENSION lab_settings",
            "INSERT INTO lab_settings VALUES ('of the user', true)",
            "INSERT INTO lab_all VALUES (1), (2)",
            "INSERT INTO lab_private VALUES (1)",
        )
        contents = prove_copies(wheel_postgres, address)
        rows = {label: content.rows for label, content in contents.items()}
        assert rows == {"public.lab_settings": 1, "public.lab_all": 2}
    finally:
        for name in ("extended", "copy", "replayed"):
            wheel_postgres.drop_database(name)


class TestRowSecurity:
    @pytest.fixture
    def secured(self, postgres: PostgresServer, address: DatabaseAddress) -> Iterator[PostgresServer]:
        """Two rows, of which everybody but the owner sees one."""
        with postgres.connect() as connection:
            connection.execute("CREATE ROLE rls_owner LOGIN PASSWORD 'owner-secret'")
            connection.execute("CREATE ROLE rls_reader LOGIN PASSWORD 'reader-secret'")
        try:
            fill(
                postgres,
                address,
                "CREATE TABLE secured (a int)",
                "INSERT INTO secured VALUES (1), (2)",
                "ALTER TABLE secured OWNER TO rls_owner",
                "ALTER TABLE secured ENABLE ROW LEVEL SECURITY",
                "CREATE POLICY one_row ON secured USING (a = 1)",
                "GRANT SELECT ON secured TO rls_reader",
            )
            yield postgres
        finally:
            postgres.drop_database("shapes")
            with postgres.connect() as connection:
                connection.execute("DROP ROLE rls_owner")
                connection.execute("DROP ROLE rls_reader")

    def test_the_owner_sees_every_row(self, secured: PostgresServer) -> None:
        address = secured.address("shapes", "rls_owner", "owner-secret")
        with captured(clients_of(secured, address)) as capture:
            assert contents_of(capture)["public.secured"].rows == 2

    @pytest.mark.parametrize("full", [True, False], ids=["fingerprints", "counts"])
    def test_a_role_that_would_see_some_rows_is_told_so(self, secured: PostgresServer, full: bool) -> None:
        address = secured.address("shapes", "rls_reader", "reader-secret")
        clients = clients_of(secured, address)
        with pytest.raises(PermissionDenied, match="Row-level security") as caught, captured(clients, full=full):
            pass
        assert 'ALTER ROLE "rls_reader" BYPASSRLS' in caught.value.hint


def test_a_capture_under_writers_is_one_moment(postgres: PostgresServer, address: DatabaseAddress) -> None:
    """Two tables that are always changed together agree in the dump, however long it takes to read them."""
    fill(
        postgres,
        address,
        "CREATE TABLE a AS SELECT n, repeat('x', 200) AS x FROM generate_series(1, 20000) n",
        "CREATE TABLE z AS SELECT n FROM generate_series(1, 20000) n",
    )
    stop = threading.Event()
    rounds = 0

    def write() -> None:
        nonlocal rounds
        with postgres.connect(address.name) as connection:
            while not stop.is_set():
                with connection.transaction():
                    connection.execute("INSERT INTO a VALUES (0, 'new'), (0, 'newer')")
                    connection.execute("INSERT INTO z VALUES (0), (0)")
                with connection.transaction():
                    connection.execute("DELETE FROM a WHERE ctid = (SELECT min(ctid) FROM a)")
                    connection.execute("DELETE FROM z WHERE ctid = (SELECT min(ctid) FROM z)")
                rounds += 1

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(3):
            with captured(clients_of(postgres, address)) as capture:
                rows = {label: content.rows for label, content in contents_of(capture).items()}
            assert rows["public.a"] == rows["public.z"]
    finally:
        stop.set()
        writer.join()
    assert rounds > 3
