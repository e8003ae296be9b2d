"""The intent on a database: what stands there, who may put it there, and what others see of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace

import pytest
from psycopg import sql

from opsproof.errors import DatabaseError, DatabaseMissing, PermissionDenied
from opsproof.intent import MARK, Intent, disclose, enclose, own_comment
from opsproof.system.postgres.databases import clear_intent, find_intents, read_intent, write_intent
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import connect, describe_database
from opsproof.target import DatabaseAddress, Secret
from tests.lab.postgres_server import PostgresServer

INTENT = Intent(
    procedure="restore",
    run="5f0c",
    environment="prod",
    target="erp",
    live="intent_db",
    side="intent_db__side_20260131020000",
    parked="intent_db__before_20260131020000",
    backup="prod_2026-01-31_02-00-00",
    safety="",
    stage="building",
    services=("odoo", "wörker"),
    since="2026-01-31T02:00:00+00:00",
    by="me@machine",
    options={"role": 'it\'s "größe" \\ 日本\n'},
)
COMMENT = 'it\'s\nGröße \\ "x"'


@pytest.fixture
def address(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    yield postgres.create_database("intent_db")
    postgres.drop_database("intent_db")


@pytest.fixture
def owner(postgres: PostgresServer) -> Iterator[DatabaseAddress]:
    """A database whose owner may nothing else: neither CREATEDB nor superuser."""
    with postgres.connect() as connection:
        connection.execute("CREATE ROLE intent_owner LOGIN PASSWORD 'x-secret'")
    postgres.create_database("intent_db", owner="intent_owner")
    yield DatabaseAddress("intent_db", "127.0.0.1", postgres.port, "intent_owner", Secret("x-secret"))
    postgres.drop_database("intent_db")
    with postgres.connect() as connection:
        connection.execute("DROP ROLE intent_owner")


def comment_of(server: PostgresServer, name: str = "intent_db") -> str | None:
    with server.connect() as connection:
        row = connection.execute(
            "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = %s", (name,)
        ).fetchone()
    return row[0] if row else None


class TestText:
    def test_it_is_read_as_it_was_written(self) -> None:
        assert Intent.from_json(INTENT.to_json()) == INTENT
        assert INTENT.to_json().isascii()
        assert "\n" not in INTENT.to_json()

    def test_what_a_newer_version_wrote_besides_is_passed_over(self) -> None:
        newer = {**json.loads(INTENT.to_json()), "mood": {"good": True}, "phase": 7}
        assert Intent.from_json(json.dumps(newer)) == INTENT

    @pytest.mark.parametrize(
        "change", [{"stage": "dancing"}, {"live": None}, {"services": "odoo"}, {"options": {"a": 1}}, {"swap_xid": 5}]
    )
    def test_what_is_no_intent_is_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(DatabaseError, match="cannot be read"):
            Intent.from_json(json.dumps({**json.loads(INTENT.to_json()), **change}))

    @pytest.mark.parametrize("text", ["", "{", "[]", "7", "{}", '{"procedure": "restore"}'])
    def test_nor_is_other_text(self, text: str) -> None:
        with pytest.raises(DatabaseError, match="cannot be read"):
            Intent.from_json(text)

    @pytest.mark.parametrize("comment", [None, "", COMMENT])
    def test_a_comment_is_kept_inside(self, comment: str | None) -> None:
        enclosed = enclose(comment, INTENT)
        assert enclosed.isascii()
        assert disclose(enclosed) == (comment, INTENT)
        assert own_comment(enclosed) == comment
        assert own_comment(enclose(enclosed, INTENT)) == comment

    @pytest.mark.parametrize("comment", [None, "", COMMENT, "opsproof.intention"])
    def test_any_other_comment_bears_none(self, comment: str | None) -> None:
        assert disclose(comment) == (comment, None)


class TestOnTheServer:
    @pytest.mark.parametrize("comment", [None, COMMENT])
    def test_it_is_found_again_replaced_and_taken_off(
        self, postgres: PostgresServer, address: DatabaseAddress, comment: str | None
    ) -> None:
        with maintenance(address) as connection:
            connection.execute(sql.SQL("COMMENT ON DATABASE intent_db IS {}").format(sql.Literal(comment)))
            assert find_intents(connection) == ()
            write_intent(connection, "intent_db", INTENT)
            built = replace(INTENT, stage="built", safety="another")
            write_intent(connection, "intent_db", built)
            assert find_intents(connection) == (("intent_db", built),)
            assert read_intent(connection, "intent_db") == built
            with connect(address) as session:
                assert describe_database(session).comment == comment
            clear_intent(connection, "intent_db")
            clear_intent(connection, "intent_db")
            assert find_intents(connection) == ()
            assert read_intent(connection, "intent_db") is None
        assert comment_of(postgres) == comment

    def test_taking_off_ends_with_the_innermost(self, postgres: PostgresServer, address: DatabaseAddress) -> None:
        twice = enclose(enclose(COMMENT, INTENT), INTENT)
        with maintenance(address) as connection:
            connection.execute(sql.SQL("COMMENT ON DATABASE intent_db IS {}").format(sql.Literal(twice)))
            clear_intent(connection, "intent_db")
        assert comment_of(postgres) == COMMENT

    def test_it_goes_with_its_transaction(self, postgres: PostgresServer, address: DatabaseAddress) -> None:
        with maintenance(address) as connection:
            with connection.transaction(force_rollback=True):
                write_intent(connection, "intent_db", INTENT)
                assert len(find_intents(connection)) == 1
            assert find_intents(connection) == ()
        assert comment_of(postgres) is None

    def test_a_mere_owner_may_do_all_of_it(self, owner: DatabaseAddress) -> None:
        with maintenance(owner) as connection:
            write_intent(connection, "intent_db", INTENT)
            assert find_intents(connection) == (("intent_db", INTENT),)
            clear_intent(connection, "intent_db")
            assert find_intents(connection) == ()

    def test_and_takes_off_what_a_superuser_put_there(self, postgres: PostgresServer, owner: DatabaseAddress) -> None:
        with maintenance(postgres.address("intent_db")) as connection:
            write_intent(connection, "intent_db", INTENT)
        with maintenance(owner) as connection:
            clear_intent(connection, "intent_db")
        assert comment_of(postgres) is None

    def test_another_role_may_only_read_it(self, postgres: PostgresServer, owner: DatabaseAddress) -> None:
        postgres.create_database("not_ours")
        try:
            with maintenance(owner) as connection, pytest.raises(PermissionDenied, match="'not_ours'"):
                write_intent(connection, "not_ours", INTENT)
            with maintenance(postgres.address("not_ours")) as connection:
                write_intent(connection, "not_ours", INTENT)
            with maintenance(owner) as connection:
                assert find_intents(connection) == (("not_ours", INTENT),)
        finally:
            postgres.drop_database("not_ours")

    def test_a_database_that_is_not_there(self, address: DatabaseAddress) -> None:
        with maintenance(address) as connection:
            for act in (clear_intent, read_intent):
                with pytest.raises(DatabaseMissing, match="'nobody'"):
                    act(connection, "nobody")
            with pytest.raises(DatabaseMissing, match="'nobody'"):
                write_intent(connection, "nobody", INTENT)

    @pytest.mark.parametrize("text", ["", "{}", "[]", '{"intent": 7}', '{"intent": "{}", "comment": null}', "Größe"])
    def test_one_that_cannot_be_read_is_named_with_its_database(
        self, postgres: PostgresServer, address: DatabaseAddress, text: str
    ) -> None:
        with maintenance(address) as connection:
            connection.execute(sql.SQL("COMMENT ON DATABASE intent_db IS {}").format(sql.Literal(MARK + text)))
            with pytest.raises(DatabaseError, match="on database 'intent_db' cannot be read") as caught:
                find_intents(connection)
            assert "COMMENT ON DATABASE" in caught.value.hint
            connection.execute(caught.value.hint.partition(": ")[2].encode())
            assert find_intents(connection) == ()

    def test_comments_in_other_encodings_are_in_nobodys_way(
        self, postgres: PostgresServer, address: DatabaseAddress
    ) -> None:
        """The server keeps a comment as the database that it was written from encodes text."""
        with postgres.connect() as connection:
            connection.execute("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
        try:
            with postgres.connect("latin") as connection:
                connection.execute("COMMENT ON DATABASE latin IS 'Größe'")
                connection.execute("CREATE TABLE t ()")
                write_intent(connection, "intent_db", INTENT)
            with maintenance(address) as connection:
                assert find_intents(connection) == (("intent_db", INTENT),)
        finally:
            postgres.drop_database("latin")

    def test_it_is_no_part_of_the_database(self, postgres: PostgresServer, address: DatabaseAddress) -> None:
        with postgres.connect() as connection:
            connection.execute("ALTER DATABASE intent_db SET opsproof.mark = 'ours'")
            connection.execute("ALTER DATABASE intent_db SET app.tenant = 'theirs'")
            write_intent(connection, "intent_db", INTENT)
        with connect(address) as connection:
            facts = describe_database(connection)
        assert (facts.comment, facts.settings) == (None, ((None, "app.tenant=theirs"),))
