"""The swap and the way back: names, flags, intents, clients that come again and again, and what was written."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from opsproof.errors import DatabaseError, DatabaseMissing, PermissionDenied
from opsproof.system.postgres.databases import find_intents, oid_of, write_intent
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import connect, describe_database
from opsproof.system.postgres.swap import identity, rows_written_since, swap, swap_back
from opsproof.target import Secret
from tests.lab.databases import (
    ODD,
    PASSWORD,
    Pair,
    assert_swapped,
    assert_untouched,
    clients,
    databases,
    owner,
    pair,
)
from tests.lab.postgres_server import (
    PostgresServer,
)
from tests.lab.waiting import await_true

__all__ = ["owner", "pair"]


class TestSwap:
    def test_the_side_becomes_live_and_the_old_one_is_parked(self, pair: Pair) -> None:
        with maintenance(pair.address) as connection:
            new = oid_of(connection, pair.side)
        result = pair.swap()
        assert_swapped(pair)
        assert (result.oid, result.ended) == (new, 0)
        stated = replace(pair.intent, stage="swapped", swap_xid=result.xid)
        with maintenance(pair.address) as connection:
            assert find_intents(connection) == ((pair.live, stated), (pair.parked, stated))
            row = connection.execute("SELECT pg_xact_status(%s::text::xid8)", (result.xid,)).fetchone()
        assert row == ("committed",)

    def test_there_and_back_is_as_before(self, pair: Pair) -> None:
        building = replace(pair.intent, stage="building")
        with maintenance(pair.address) as connection:
            connection.execute("COMMENT ON DATABASE app IS 'it''s ours'")
            write_intent(connection, pair.live, building)
        before = identity(pair.address, pair.live)
        swapped = pair.swap()
        assert identity(pair.address, pair.live) != before
        result = pair.swap_back()
        assert pair.which() == "old"
        assert identity(pair.address, pair.live) == before
        assert pair.flags() == {pair.live: (False, True, 50), pair.failed: (True, True, 50)}
        assert result.oid == before.oid != swapped.oid
        failed = replace(pair.intent, stage="stopping", side=pair.failed, swap_xid="")
        with maintenance(pair.address) as connection:
            assert find_intents(connection) == ((pair.live, building), (pair.failed, failed))
        with connect(pair.address) as connection:
            assert describe_database(connection).comment == "it's ours"

    def test_where_there_was_no_live_database_only_the_side_is_renamed(self, pair: Pair) -> None:
        pair.server.drop_database(pair.live)
        result = swap(pair.address, pair.live, pair.side, "", pair.intent, connection_limit=7)
        assert pair.which() == "new"
        assert pair.flags() == {pair.live: (False, True, 7)}
        with maintenance(pair.address) as connection:
            stated = replace(pair.intent, parked="", stage="swapped", swap_xid=result.xid)
            assert find_intents(connection) == ((pair.live, stated),)
        back = swap_back(pair.address, pair.live, "", pair.failed)
        assert pair.flags() == {pair.failed: (True, True, 7)}
        assert back.oid == result.oid

    def test_a_name_that_is_taken_or_missing_changes_nothing(self, pair: Pair) -> None:
        with pytest.raises(DatabaseMissing, match="'nobody'"):
            swap(pair.address, pair.live, "nobody", pair.parked, pair.intent)
        with pytest.raises(DatabaseError, match="Renaming 'app' to 'postgres'") as caught:
            swap(pair.address, pair.live, pair.side, "postgres", pair.intent)
        assert 'database "postgres" already exists' in caught.value.found
        assert_untouched(pair)

    def test_names_of_63_bytes_with_odd_characters(self, postgres: PostgresServer) -> None:
        assert len(ODD.encode()) >= 62
        with databases(postgres, ODD) as pair:
            pair.swap()
            assert_swapped(pair)
            pair.swap_back()
            assert pair.which() == "old"

    def test_an_owner_who_is_no_superuser(self, postgres: PostgresServer, owner: str) -> None:
        with databases(postgres, owner=owner) as pair, postgres.connect(pair.live, owner, PASSWORD):
            own = replace(pair, address=replace(pair.address, user=owner, password=Secret(PASSWORD)))
            result = own.swap()
            assert result.ended == 1
            assert_swapped(pair)
            with maintenance(own.address) as connection:
                assert [name for name, _ in find_intents(connection)] == [pair.live, pair.parked]
            own.swap_back()
            assert pair.which() == "old"

    def test_a_role_that_may_not_rename(self, pair: Pair, owner: str) -> None:
        own = replace(pair, address=replace(pair.address, user=owner, password=Secret(PASSWORD)))
        with pytest.raises(PermissionDenied, match="Renaming 'app'") as caught:
            own.swap()
        assert "must be owner" in caught.value.found
        assert_untouched(pair)


class TestClients:
    def test_ten_that_come_again_all_find_the_new_one_and_then_the_old_one_again(self, pair: Pair) -> None:
        with clients(pair) as crowd:
            result = pair.swap()
            await_true(lambda: all(client.found[-1] == "new" for client in crowd), "a client stayed locked out", 20)
            assert result.ended >= len(crowd)
            assert result.seconds < 5
            back = pair.swap_back()
            await_true(lambda: all(client.found[-1] == "old" for client in crowd), "a client stayed locked out", 20)
            assert back.ended >= len(crowd)
        for client in crowd:
            changes = [one for one, next_ in zip(client.found, [*client.found[1:], ""], strict=True) if one != next_]
            assert changes == ["old", "new", "old"]

    def test_nobody_sees_a_side_or_a_parked_database_as_an_application_would(self, pair: Pair) -> None:
        """Odoo's cron looks for connectable databases that are no templates."""
        seen: set[tuple[str, ...]] = set()
        over = threading.Event()

        def look() -> None:
            with pair.server.connect() as connection:
                while not over.is_set():
                    rows = connection.execute(
                        "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate AND oid > 16383"
                    ).fetchall()
                    seen.add(tuple(name for (name,) in rows if name not in pair.others))

        looking = threading.Thread(target=look, daemon=True)
        looking.start()
        try:
            for _ in range(4):
                pair.swap()
                swap_back(pair.address, pair.live, pair.parked, pair.side)
        finally:
            over.set()
            looking.join(10)
        assert seen == {(pair.live,)}


class TestWhatWasWritten:
    def test_only_rows_of_after_the_swap_are_counted(self, pair: Pair) -> None:
        result = pair.swap()
        with pair.server.connect(pair.live) as connection:
            for word in (
                "INSERT INTO numbered (word) VALUES ('a'), ('b')",
                "UPDATE numbered SET word = 'changed' WHERE word = 'restored'",
                'CREATE SCHEMA "s x"',
                'CREATE TABLE "s x"."t""t" AS SELECT 1 AS one',
                "VACUUM (FREEZE) numbered",
            ):
                connection.execute(word.encode())
        with connect(pair.address) as connection:
            assert rows_written_since(connection, result.xid) == {"public.numbered": 3, '"s x"."t""t"': 1}

    def test_nothing_was_written(self, pair: Pair) -> None:
        result = pair.swap()
        with pair.server.connect(pair.live) as connection:
            connection.execute("VACUUM (FREEZE)")
            connection.execute("ANALYZE")
        with connect(pair.address) as connection:
            assert rows_written_since(connection, result.xid) == {}

    def test_a_transaction_of_too_long_ago_is_refused(self, pair: Pair) -> None:
        with connect(pair.address) as connection, pytest.raises(DatabaseError, match="cannot be told any more"):
            rows_written_since(connection, str(1 << 40))


class TestIdentity:
    @pytest.mark.parametrize(
        "write",
        ["INSERT INTO numbered (word) VALUES ('x')", "TRUNCATE which", "CREATE TABLE more ()", "VACUUM FULL which"],
    )
    def test_a_write_shows(self, pair: Pair, write: str) -> None:
        before = identity(pair.address, pair.live)
        assert identity(pair.address, pair.live) == before
        with pair.server.connect(pair.live) as connection:
            connection.execute(write.encode())
        after = identity(pair.address, pair.live)
        assert (after.oid, after.fingerprint == before.fingerprint) == (before.oid, False)

    def test_vacuum_does_not(self, pair: Pair) -> None:
        with pair.server.connect(pair.live) as connection:
            connection.execute("INSERT INTO which SELECT repeat('x', 1000) FROM generate_series(1, 200)")
            connection.execute("DELETE FROM which WHERE word <> 'old'")
            before = identity(pair.address, pair.live)
            connection.execute("VACUUM which")
        assert identity(pair.address, pair.live) == before
