"""Databases as things on a server: made like the live one, and dropped."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from psycopg import errors as pg
from psycopg import sql

from opsproof.archive.manifest import DatabaseRecord
from opsproof.errors import DatabaseError, PermissionDenied
from opsproof.system.postgres.databases import create_side, database_exists, drop_database, oid_of
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection, DatabaseFacts
from tests.lab.live_database import SIDE, as_owner, facts_of, record_of, server
from tests.lab.postgres_server import PostgresServer

__all__ = ["server"]


def shape_of(facts: DatabaseFacts) -> tuple[object, ...]:
    return facts.owner, facts.encoding, facts.collate, facts.ctype, facts.locale_provider, facts.locale, facts.icu_rules


LOCALES = {
    "C": "ENCODING 'UTF8' LOCALE 'C'",
    "mixed": "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
    "latin": "ENCODING 'LATIN1' LOCALE 'C'",
    "ascii": "ENCODING 'SQL_ASCII' LOCALE 'C'",
    "icu": "ENCODING 'UTF8' LOCALE_PROVIDER icu ICU_LOCALE 'de-DE' LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'",
    "builtin": "ENCODING 'UTF8' LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
}


class TestCreate:
    @pytest.mark.parametrize("locale", LOCALES)
    def test_it_is_made_like_the_live_one_and_is_a_template_from_the_first(
        self, server: PostgresServer, locale: str
    ) -> None:
        if not make_like(server, LOCALES[locale]):
            # How a server was built, and its version, decide what it knows.
            facts = replace(facts_of(server, "shelf"), locale_provider=locale, locale="de-DE")
            with maintenance(server.address("shelf")) as connection:
                with pytest.raises(DatabaseError, match="cannot be created"):
                    create_side(connection, SIDE, facts)
                assert not database_exists(connection, SIDE)
            return
        facts = facts_of(server, "shelf_like")
        with maintenance(server.address("shelf")) as connection:
            create_side(connection, SIDE, facts, like="shelf_like")
            assert flags_of(connection, SIDE) == (True, True)
        assert shape_of(facts_of(server, SIDE)) == shape_of(facts)

    def test_of_another_owner_and_from_a_manifest(self, server: PostgresServer) -> None:
        record = record_of(facts_of(server, "shelf"))
        with maintenance(server.address("shelf")) as connection:
            create_side(connection, SIDE, record, owner="shelf_reader")
        made = facts_of(server, SIDE)
        assert shape_of(made) == ("shelf_reader", *shape_of(facts_of(server, "shelf"))[1:])

    def test_nothing_of_template1_gets_in(self, server: PostgresServer) -> None:
        with server.connect("template1") as connection:
            connection.execute("CREATE TABLE smuggled ()")
        try:
            with maintenance(server.address("shelf")) as connection:
                create_side(connection, SIDE, facts_of(server, "shelf"))
            with server.connect(SIDE) as connection:
                assert connection.execute("SELECT to_regclass('public.smuggled')").fetchone() == (None,)
        finally:
            with server.connect("template1") as connection:
                connection.execute("DROP TABLE smuggled")

    def test_in_the_tablespace_of_the_live_one(self, server: PostgresServer) -> None:
        with server.connect() as connection:
            connection.execute("SET allow_in_place_tablespaces = on")
            connection.execute("CREATE TABLESPACE shelf_space LOCATION ''")
            try:
                connection.execute("ALTER DATABASE shelf SET TABLESPACE shelf_space")
                with maintenance(server.address("shelf")) as other:
                    create_side(other, SIDE, facts_of(server, "shelf"), like="shelf")
                row = connection.execute(
                    "SELECT count(*) FROM pg_database JOIN pg_tablespace t ON t.oid = dattablespace"
                    " WHERE spcname = 'shelf_space'"
                ).fetchone()
                assert row == (2,)
            finally:
                connection.execute("ALTER DATABASE shelf SET TABLESPACE pg_default")
                drop_database(connection, SIDE)
                connection.execute("DROP TABLESPACE shelf_space")

    @pytest.mark.parametrize("origin", ["facts", "manifest"])
    def test_with_the_collation_rules_of_the_backup(self, server: PostgresServer, origin: str) -> None:
        facts = replace(facts_of(server, "shelf"), locale_provider="icu", locale="de-DE", icu_rules="&a < 'g'")
        refusal, said = create_recorded(server, facts if origin == "facts" else record_of(facts))
        assert "ICU_RULES '&a < ''g'''" in said
        assert refusal in REFUSALS
        if not refusal:
            assert facts_of(server, SIDE).icu_rules == facts.icu_rules

    def test_with_the_rules_of_the_live_one_where_the_backup_does_not_say(self, server: PostgresServer) -> None:
        has_rules = give_rules(server, "&b < z")
        facts = replace(facts_of(server, "shelf"), locale_provider="icu", locale="de-DE")
        assert facts.icu_rules == ("&b < z" if has_rules else "")
        silent = record_of(facts).model_copy(update={"icu_rules": None})
        assert ("ICU_RULES '&b < z'" in create_recorded(server, silent)[1]) == has_rules
        assert "ICU_RULES" not in create_recorded(server, replace(facts, icu_rules=""))[1]

    def test_by_an_owner_who_is_no_superuser(self, server: PostgresServer) -> None:
        with maintenance(as_owner(server)) as connection:
            create_side(connection, SIDE, facts_of(server, "shelf"), like="shelf")
            drop_database(connection, SIDE)
            assert not database_exists(connection, SIDE)

    def test_by_a_role_that_may_not(self, server: PostgresServer) -> None:
        with (
            maintenance(as_owner(server, "shelf_stranger")) as connection,
            pytest.raises(PermissionDenied, match="cannot be created") as caught,
        ):
            create_side(connection, SIDE, facts_of(server, "shelf"), owner="shelf_stranger")
        assert "permission denied to create database" in caught.value.found
        assert "CREATEDB" in caught.value.hint

    @pytest.mark.parametrize(
        ("change", "found"), [({"owner": "nobody"}, 'role "nobody"'), ({"collate": "xx_YY"}, "xx_YY")]
    )
    def test_like_what_this_server_does_not_have(
        self, server: PostgresServer, change: dict[str, str], found: str
    ) -> None:
        facts = replace(facts_of(server, "shelf"), **change)  # type: ignore[arg-type]
        with maintenance(server.address("shelf")) as connection:
            with pytest.raises(DatabaseError, match="cannot be created") as caught:
                create_side(connection, SIDE, facts)
            assert found in caught.value.found
            assert not database_exists(connection, SIDE)

    def test_a_name_that_is_taken(self, server: PostgresServer) -> None:
        with maintenance(server.address("shelf")) as connection:
            before = oid_of(connection, "shelf")
            with pytest.raises(DatabaseError, match="cannot be created") as caught:
                create_side(connection, "shelf", facts_of(server, "shelf"))
            assert "already exists" in caught.value.found
            assert oid_of(connection, "shelf") == before is not None


def make_like(server: PostgresServer, words: str) -> bool:
    """Make a database as the server's own language says it; False where this server does not know how."""
    with server.connect() as connection:
        try:
            connection.execute(f"CREATE DATABASE shelf_like TEMPLATE template0 {words}".encode())
        except (pg.FeatureNotSupported, pg.SyntaxError, pg.InvalidObjectDefinition):
            return False
    return True


# What a server says to collation rules: nothing, that it is built without them, or that it is older than 16.
REFUSALS = ("", "ICU is not supported in this build", 'option "icu_rules" not recognized')


def create_recorded(server: PostgresServer, shape: DatabaseFacts | DatabaseRecord) -> tuple[str, str]:
    """Create the side database like `shelf`, if the server can; return why it cannot, and what it was told."""
    with maintenance(server.address("shelf")) as connection:
        drop_database(connection, SIDE)
        recorder = _Refusing(connection, "nothing")
        try:
            create_side(recorder, SIDE, shape, like="shelf")  # type: ignore[arg-type]
        except DatabaseError as error:
            return error.found.splitlines()[0], recorder.said[-1]
    return "", recorder.said[-1]


def give_rules(server: PostgresServer, rules: str) -> bool:
    """Write collation rules into the catalogue, as a server without ICU would not; False before PostgreSQL 16."""
    with server.connect() as connection:
        if connection.info.server_version < 160000:
            return False
        connection.execute("UPDATE pg_database SET daticurules = %s WHERE datname = 'shelf'", (rules,))
    return True


def flags_of(connection: Connection, name: str) -> tuple[bool, bool] | None:
    """Return whether a database is a template, and connectable."""
    query = "SELECT datistemplate, datallowconn FROM pg_database WHERE datname = %s"
    row = connection.execute(query, (name,)).fetchone()
    return None if row is None else (row[0], row[1])


class TestDrop:
    def test_a_side_database_with_somebody_in_it(self, server: PostgresServer) -> None:
        with maintenance(server.address("shelf")) as connection:
            create_side(connection, SIDE, facts_of(server, "shelf"))
            with closing(server.connect(SIDE)):
                drop_database(connection, SIDE)
            assert not database_exists(connection, SIDE)
            drop_database(connection, SIDE)

    @pytest.mark.parametrize("name", ["shelf", "postgres", "template0", f"{SIDE}x"])
    def test_any_other_name_is_refused(self, server: PostgresServer, name: str) -> None:
        with maintenance(server.address("shelf")) as connection:
            before = oid_of(connection, name)
            with pytest.raises(DatabaseError, match="neither a side nor a parked"):
                drop_database(connection, name)
            assert oid_of(connection, name) == before

    def test_the_live_one_when_asked_for(self, server: PostgresServer) -> None:
        with maintenance(server.address("shelf")) as connection:
            drop_database(connection, "shelf", even_live=True)
            assert not database_exists(connection, "shelf")

    def test_by_a_role_that_may_not(self, server: PostgresServer) -> None:
        with maintenance(server.address("shelf")) as connection:
            create_side(connection, SIDE, facts_of(server, "shelf"))
        with (
            maintenance(as_owner(server, "shelf_stranger")) as connection,
            pytest.raises(PermissionDenied, match="cannot be dropped"),
        ):
            drop_database(connection, SIDE)
        with maintenance(server.address("shelf")) as connection:
            assert flags_of(connection, SIDE) == (True, True)

    def test_nobody_sees_it_in_between(self, server: PostgresServer) -> None:
        """Not a template any more and not yet gone, it takes no connections."""
        with maintenance(server.address("shelf")) as connection:
            create_side(connection, SIDE, facts_of(server, "shelf"))
            with pytest.raises(DatabaseError, match="cannot be dropped"):
                drop_database(_Refusing(connection, "DROP DATABASE"), SIDE)  # type: ignore[arg-type]
            assert flags_of(connection, SIDE) == (False, False)
            drop_database(connection, SIDE)


class _Refusing:
    """A connection that breaks one statement."""

    def __init__(self, connection: Connection, word: str) -> None:
        self.connection, self.word = connection, word
        self.said: list[str] = []

    @property
    def info(self) -> Any:
        return self.connection.info

    def execute(self, query: Any, *arguments: Any) -> Any:
        text = query.as_string(self.connection) if isinstance(query, sql.Composable) else query
        self.said.append(text)
        return self.connection.execute("nonsense" if text.startswith(self.word) else query, *arguments)
