"""The side database's statistics, which are made while it is proven."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from opsproof.errors import ProofError
from opsproof.journal import Journal
from opsproof.procedures.restore import building
from opsproof.procedures.restore.building import SideDatabase
from tests.lab.captured import clients_of
from tests.lab.postgres_server import PostgresServer

# An index on a function, which the server computes anew whenever it makes statistics.
TABLE = (
    "CREATE FUNCTION rank(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN RETURN n; END'",
    "CREATE TABLE ranked AS SELECT generate_series(1, 1000) AS n",
    "CREATE INDEX by_rank ON ranked (rank(n))",
)
BODY = "CREATE OR REPLACE FUNCTION rank(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$BEGIN {} RETURN n; END$$"
WAITING = "SELECT FROM pg_stat_activity WHERE datname = %s AND wait_event = 'PgSleep'"


@dataclass(frozen=True)
class Side:
    """A side database, and a way to make its proof whatever a test wants."""

    server: PostgresServer
    database: SideDatabase
    monkeypatch: pytest.MonkeyPatch

    def prove(self, proof: Callable[[], Any]) -> Any:
        """Prove it, by `proof`."""
        self.monkeypatch.setattr(building, "prove", lambda *arguments: proof())
        return self.database.prove(None, Path(), {})  # type: ignore[arg-type]  # the proof does not look at it

    def execute(self, statement: str) -> None:
        with self.server.connect(self.database.name) as connection:
            connection.execute(statement.encode())

    def sessions(self, query: str) -> int:
        with self.server.connect() as connection:
            return len(connection.execute(query.encode(), (self.database.name,)).fetchall())


@pytest.fixture
def side(wheel_postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Side]:
    name = f"built_{secrets.token_hex(4)}"
    address = wheel_postgres.create_database(name, *TABLE)
    yield Side(wheel_postgres, SideDatabase(clients_of(wheel_postgres, address), name, Journal()), monkeypatch)
    wheel_postgres.drop_database(name)


def test_a_proven_database_has_its_statistics(side: Side) -> None:
    assert side.prove(lambda: "proof") == "proof"
    with side.server.connect(side.database.name) as connection:
        found = connection.execute("SELECT tablename FROM pg_stats WHERE schemaname = 'public'").fetchall()
    assert ("ranked",) in found
    assert ("by_rank",) in found


def test_statistics_that_cannot_be_made_are_told_though_the_proof_passes(side: Side) -> None:
    side.execute(BODY.format("RAISE EXCEPTION 'no rank for %', n;"))
    with pytest.raises(ProofError, match=f"cannot make the statistics of '{side.database.name}'") as raised:
        side.prove(lambda: "proof")
    error = raised.value
    assert "no rank for" in error.found
    assert "rank(integer)" in error.found
    assert error.kept == "the live database is as it was"
    assert "--backup=ID" in error.hint


def test_a_proof_that_fails_is_what_is_told_where_both_do(side: Side) -> None:
    side.execute(BODY.format("RAISE EXCEPTION 'no rank for %', n;"))

    def differ() -> None:
        raise ProofError("it differs")

    with pytest.raises(ProofError, match="it differs"):
        side.prove(differ)


@pytest.mark.parametrize("at_work", [True, False], ids=["at work", "hardly begun"])
def test_a_proof_that_fails_ends_the_statistics(side: Side, at_work: bool) -> None:
    """A failed restore must not hold the operator until hours of ANALYZE are over."""
    side.execute(BODY.format("PERFORM pg_sleep(60);"))

    def differ() -> None:
        deadline = time.monotonic() + 20
        while at_work and not side.sessions(WAITING):
            assert time.monotonic() < deadline, "no ANALYZE began"
            time.sleep(0.02)
        raise ProofError("it differs")

    began = time.monotonic()
    with pytest.raises(ProofError, match="it differs"):
        side.prove(differ)
    assert time.monotonic() - began < 20
    deadline = time.monotonic() + 10
    while side.sessions("SELECT FROM pg_stat_activity WHERE datname = %s"):
        assert time.monotonic() < deadline, "a session is left"
        time.sleep(0.02)


def test_an_interrupt_while_the_statistics_are_waited_for_ends_them(
    side: Side, monkeypatch: pytest.MonkeyPatch
) -> None:
    side.execute(BODY.format("PERFORM pg_sleep(60);"))

    def interrupted(database: SideDatabase, analysis: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SideDatabase, "_require_analyzed", interrupted)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        side.prove(lambda: "proof")
    assert time.monotonic() - began < 20
