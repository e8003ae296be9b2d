"""The maintenance connection: to another database than the target's own, and what is said where there is none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from psycopg import sql

from opsproof.errors import ConnectionFailed, DatabaseError
from opsproof.system.postgres.lock import hold_lock
from opsproof.system.postgres.maintenance import maintenance
from opsproof.target import Secret
from tests.lab.live_database import as_owner, server
from tests.lab.postgres_server import PostgresServer

__all__ = ["server"]


class TestMaintenance:
    def test_it_is_never_the_targets_own_database(self, server: PostgresServer) -> None:
        for name, place in (("shelf", "postgres"), ("postgres", "template1"), ("not there", "postgres")):
            with maintenance(server.address(name)) as connection:
                assert connection.info.dbname == place
                assert connection.autocommit

    def test_any_other_database_serves_and_where_there_is_none_it_says_so(self, server: PostgresServer) -> None:
        closed = ("postgres", "template1")
        with server.connect() as connection:
            names = connection.execute(
                "SELECT datname FROM pg_database WHERE datallowconn AND datname <> 'shelf'"
            ).fetchall()
            for (name,) in names:
                connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(sql.Identifier(name)))
            try:
                with (
                    pytest.raises(DatabaseError, match="can connect to no database") as caught,
                    maintenance(as_owner(server)),
                ):
                    pass
                assert "GRANT CONNECT ON DATABASE postgres" in caught.value.hint
                with hold_lock(as_owner(server)) as lock:
                    lock.check()
                connection.execute("CREATE DATABASE shelf_like")
                with maintenance(as_owner(server)) as other:
                    assert other.info.dbname == "shelf_like"
            finally:
                for (name,) in names:
                    query = sql.SQL("GRANT CONNECT ON DATABASE {} TO PUBLIC")
                    connection.execute(query.format(sql.Identifier(name)))
        assert {name for (name,) in names} >= set(closed)

    def test_a_login_that_is_refused(self, server: PostgresServer) -> None:
        wrong = replace(server.address("shelf"), password=Secret("wrong"))
        with pytest.raises(ConnectionFailed, match="as postgres"), maintenance(wrong):
            pass
