"""Names that need quoting, through every door: psycopg, conninfo, SQL, psql's own language, and the dump's text."""

from __future__ import annotations

import pytest
from psycopg import sql

from opsproof.system.postgres.lock import hold_lock
from opsproof.system.postgres.server import connect, describe_database, list_databases
from opsproof.target import DatabaseAddress, Secret
from tests.lab.captured import captured, clients_of, contents_of, make_database, read_fingerprints, restore, run_client
from tests.lab.postgres_server import PostgresServer

AWKWARD = (
    "Capital Letters",
    "it's",
    'say "x"',
    "-dash--dash",
    "$HOME $1 $(id)",
    "a;b -- c",
    "50% %s %(x)s %%",
    "dbname=postgres host=x",
    "back\\slash\\",
    "Größe 日本 ß",
    "postgresql://x@y/z",
    ":name :'name' \\echo",
    "two\nlines\tand tab",
    "x" * 63,
    "ä" * 31,
    "select",
)
PASSWORD = "p a's\\s=w%rd"


def make_awkward(server: PostgresServer, name: str, suffix: str) -> DatabaseAddress:
    """Make a role and a database of its own, both of a name; the database gets objects of that name, too."""
    with server.connect() as connection:
        role = sql.Identifier(name)
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, PASSWORD))
    make_database(server, name, owner=name)
    address = DatabaseAddress(name, "127.0.0.1", server.port, name, Secret(PASSWORD))
    with server.connect(name, name, PASSWORD) as connection:
        for statement in (
            "CREATE SCHEMA {0}",
            "CREATE TABLE {0}.{0} ({0} text, {1} int GENERATED ALWAYS AS IDENTITY)",
            "INSERT INTO {0}.{0} ({0}) SELECT {2} FROM generate_series(1, 3)",
            "CREATE INDEX ON {0}.{0} ({0})",
            "CREATE SEQUENCE {0}.{1}",
        ):
            words = sql.Identifier(name), sql.Identifier(suffix), sql.Literal(name)
            connection.execute(sql.SQL(statement).format(*words))
    return address


@pytest.mark.parametrize("name", AWKWARD)
def test_a_database_and_a_role_of_that_name_are_captured_and_restored(name: str, postgres: PostgresServer) -> None:
    address = make_awkward(postgres, name, "other")
    try:
        with connect(address) as connection:
            facts = describe_database(connection)
            assert name in list_databases(connection)
        assert (facts.name, facts.owner) == (name, name)
        clients = clients_of(postgres, address)
        with captured(clients) as capture:
            (content,) = contents_of(capture).values()
            assert content.rows == 3
            copy = restore(postgres, capture, "copy of awkward")
        assert read_fingerprints(clients_of(postgres, copy)) == contents_of(capture)
        assert clients.dump_roles().count(b"CREATE ROLE") > 1
    finally:
        for database in ("copy of awkward", name):
            postgres.drop_database(database)
        with postgres.connect() as connection:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_the_roles_keep_their_names(postgres: PostgresServer) -> None:
    with postgres.connect() as connection:
        for name in AWKWARD:
            connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
        try:
            text = clients_of(postgres, postgres.address("postgres")).dump_roles().decode()
            for name in AWKWARD:
                quoted = name if name == "x" * 63 else sql.Identifier(name).as_string(connection)
                assert f"CREATE ROLE {quoted};" in text
            assert "PASSWORD" not in text
        finally:
            for name in AWKWARD:
                connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_the_lock_of_one_name_is_not_the_lock_of_another(wheel_postgres: PostgresServer) -> None:
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    one, other = wheel_postgres.address("a b"), wheel_postgres.address("a  b")
    with wheel_postgres.connect() as connection, hold_lock(one), hold_lock(other):
        assert connection.execute(query).fetchone() == (2,)


def test_a_name_is_never_taken_for_a_connection_string(postgres: PostgresServer) -> None:
    """Libpq expands a dbname that holds "=" or begins as a URL does, unless it stands in a connection string."""
    name = "dbname=postgres"
    address = postgres.create_database(name, "CREATE TABLE here (a int)")
    try:
        with connect(address) as connection:
            assert describe_database(connection).name == name
        argv = [postgres.bindir / "psql", "-X", "-At", "-c", "SELECT current_database()", "-d", address.conninfo()]
        assert run_client(postgres, argv) == b"dbname=postgres\n"
    finally:
        postgres.drop_database(name)
