"""Databases as things on a server: made, given their properties, dropped; the maintenance connection and the lock."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from psycopg import errors as pg
from psycopg import sql

from opsproof.archive.manifest import DatabaseRecord, Extension, Setting
from opsproof.errors import ConnectionFailed, DatabaseError, DatabaseMissing, PermissionDenied
from opsproof.intent import Intent
from opsproof.system.postgres.databases import (
    create_side,
    database_exists,
    drop_database,
    oid_of,
    read_intent,
    side_name,
    write_intent,
)
from opsproof.system.postgres.lock import hold_lock
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.properties import Grant, copy_properties, read_acl, read_list, read_properties
from opsproof.system.postgres.server import Connection, DatabaseFacts, connect, describe_database
from opsproof.target import DatabaseAddress, Secret
from tests.lab.postgres_server import PostgresServer

SIDE = side_name("shelf", datetime(2026, 1, 31, 2, 0, 0, tzinfo=UTC))
PASSWORD = "x-secret"
ROLES = ("shelf_owner", "shelf_reader", 'odd "role" ß', "shelf_stranger")
INTENT = Intent(
    "restore", "r", "prod", "erp", "shelf", SIDE, "", "b", "", "building", (), "2026-01-31T02:00:00Z", "me@x"
)


@pytest.fixture
def server(postgres: PostgresServer) -> Iterator[PostgresServer]:
    """A server with a database `shelf` of `shelf_owner`, who may create databases, and roles beside."""
    with postgres.connect() as connection:
        for role in ROLES:
            query = "CREATE ROLE {} LOGIN PASSWORD {}"
            connection.execute(sql.SQL(query).format(sql.Identifier(role), PASSWORD))
        connection.execute("ALTER ROLE shelf_owner CREATEDB")
        postgres.create_database("shelf", owner="shelf_owner")
        yield postgres
        for name in (SIDE, "shelf", "shelf_like"):
            if database_exists(connection, name):
                drop_database(connection, name, even_live=True)
        for role in ROLES:
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def as_owner(server: PostgresServer, role: str = "shelf_owner") -> DatabaseAddress:
    return server.address("shelf", role, PASSWORD)


def facts_of(server: PostgresServer, name: str) -> DatabaseFacts:
    with connect(server.address(name)) as connection:
        return describe_database(connection)


def shape_of(facts: DatabaseFacts) -> tuple[object, ...]:
    return facts.owner, facts.encoding, facts.collate, facts.ctype, facts.locale_provider, facts.locale, facts.icu_rules


def record_of(facts: DatabaseFacts) -> DatabaseRecord:
    """Return what a manifest says of it."""
    words: dict[str, Any] = vars(facts) | {
        "settings": tuple(Setting(role=role, setting=line) for role, line in facts.settings),
        "extensions": tuple(Extension(name=n, version=v, schema_name=s) for n, v, s in facts.extensions),
    }
    return DatabaseRecord(**words)


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


PROPERTIES = (
    "REVOKE ALL ON DATABASE shelf FROM PUBLIC",
    'GRANT CONNECT, TEMPORARY ON DATABASE shelf TO "odd ""role"" ß" WITH GRANT OPTION',
    "GRANT CREATE ON DATABASE shelf TO shelf_reader",
    "REVOKE TEMPORARY ON DATABASE shelf FROM shelf_owner",
    "COMMENT ON DATABASE shelf IS E'it''s \"ours\"\\n\\\\ß'",
    'ALTER DATABASE shelf SET search_path = public, "odd, ""path""", \'\'',
    "ALTER DATABASE shelf SET work_mem = '5MB'",
    "ALTER DATABASE shelf SET timezone = 'Asia/Tokyo'",
    "ALTER DATABASE shelf SET statement_timeout = 0",
)
OF_A_SUPERUSER = (
    "ALTER DATABASE shelf SET app.tenant = 'a, \"b\" = c''d'",
    "ALTER DATABASE shelf SET log_statement = 'all'",
    "ALTER DATABASE shelf SET temp_tablespaces = ''",
    "ALTER ROLE shelf_reader IN DATABASE shelf SET search_path = a, b",
    'ALTER ROLE "odd ""role"" ß" IN DATABASE shelf SET work_mem = 9000',
)
OF_ANOTHER = 'SET ROLE "odd ""role"" ß"', "GRANT CONNECT ON DATABASE shelf TO shelf_stranger", "RESET ROLE"


def give(server: PostgresServer, *statements: str) -> None:
    with server.connect() as connection:
        for statement in statements:
            connection.execute(statement.encode())


class TestProperties:
    @pytest.mark.parametrize("origin", ["server", "manifest"])
    def test_all_of_them_are_copied(self, server: PostgresServer, origin: str) -> None:
        give(server, *PROPERTIES, *OF_A_SUPERUSER, *OF_ANOTHER)
        facts = facts_of(server, "shelf")
        with maintenance(server.address("shelf")) as connection:
            create_side(connection, SIDE, facts)
            write_intent(connection, SIDE, INTENT)
            copy_properties(connection, "shelf" if origin == "server" else record_of(facts), SIDE)
            copied = facts_of(server, SIDE)
            assert read_properties(connection, SIDE) == read_properties(connection, "shelf")
            assert set(copied.acl) == set(facts.acl)
            assert (copied.comment, copied.settings) == (facts.comment, facts.settings)
            assert read_intent(connection, SIDE) == INTENT
        assert len(facts.settings) == 9
        assert any(item.startswith("shelf_stranger=c/") for item in facts.acl)

    def test_the_defaults_too_and_what_the_other_had_goes(self, server: PostgresServer) -> None:
        plain = facts_of(server, "shelf")
        with maintenance(server.address("shelf")) as connection:
            create_side(connection, SIDE, plain)
            default = read_properties(connection, "shelf")
            give(server, *PROPERTIES, *OF_A_SUPERUSER, *OF_ANOTHER)
            copy_properties(connection, "shelf", SIDE)
            copy_properties(connection, plain, SIDE)
            assert read_properties(connection, SIDE) == default
            copy_properties(connection, plain, SIDE)
            assert read_properties(connection, SIDE) == default

    def test_what_the_owner_had_the_new_owner_gets(self, server: PostgresServer) -> None:
        give(server, *PROPERTIES)
        with maintenance(server.address("shelf")) as connection:
            create_side(connection, SIDE, facts_of(server, "shelf"), owner="shelf_stranger")
            copy_properties(connection, "shelf", SIDE, roles={"shelf_reader": 'odd "role" ß'})
            found = read_properties(connection, SIDE).grants
        odd, owner = 'odd "role" ß', "shelf_stranger"
        assert found == {
            Grant(odd, "CONNECT", owner, True),
            Grant(odd, "TEMPORARY", owner, True),
            Grant(odd, "CREATE", owner, False),
            Grant(owner, "CREATE", owner, False),
            Grant(owner, "CONNECT", owner, False),
        }

    def test_an_owner_who_is_no_superuser_copies_what_owners_may(self, server: PostgresServer) -> None:
        give(server, *PROPERTIES)
        with maintenance(as_owner(server)) as connection:
            create_side(connection, SIDE, facts_of(server, "shelf"))
            copy_properties(connection, "shelf", SIDE)
            assert read_properties(connection, SIDE) == read_properties(connection, "shelf")

    # What temp_tablespaces names is an owner's to set.
    @pytest.mark.parametrize("statement", [line for line in OF_A_SUPERUSER if "temp_tablespaces" not in line])
    def test_what_takes_a_superuser_is_named_and_nothing_is_half_done(
        self, server: PostgresServer, statement: str
    ) -> None:
        give(server, *PROPERTIES, statement)
        with maintenance(as_owner(server)) as connection:
            create_side(connection, SIDE, facts_of(server, "shelf"))
            before = read_properties(connection, SIDE)
            with pytest.raises(PermissionDenied, match="all the properties") as caught:
                copy_properties(connection, "shelf", SIDE)
            assert caught.value.expected.startswith(" ".join(statement.split()[:2]))
            assert read_properties(connection, SIDE) == before

    def test_a_role_that_is_not_here(self, server: PostgresServer) -> None:
        facts = replace(facts_of(server, "shelf"), acl=("=Tc/shelf_owner", "gone=c/shelf_owner"))
        with maintenance(server.address("shelf")) as connection:
            create_side(connection, SIDE, facts)
            with pytest.raises(DatabaseError, match="all the properties") as caught:
                copy_properties(connection, facts, SIDE)
            assert 'role "gone" does not exist' in caught.value.found
            copy_properties(connection, facts, SIDE, roles={"gone": "shelf_reader"})
            assert Grant("shelf_reader", "CONNECT", "shelf_owner", False) in read_properties(connection, SIDE).grants

    def test_a_database_that_is_not_here(self, server: PostgresServer) -> None:
        with maintenance(server.address("shelf")) as connection:
            for source, name in (("nobody", "shelf"), ("shelf", "nobody")):
                with pytest.raises(DatabaseMissing, match="'nobody'"):
                    copy_properties(connection, source, name)

    def test_texts_of_the_server_are_read(self) -> None:
        assert read_acl(['"a ""b"" ="=c*/own', "=T/own"]) == {
            Grant('a "b" =', "CONNECT", "own", True),
            Grant("", "TEMPORARY", "own", False),
        }
        with pytest.raises(DatabaseError, match="cannot be read"):
            read_acl(["own=r/own"])
        lists = {"": [], 'public, "odd, ""x""", ""': ["public", 'odd, "x"', ""], "a,b": ["a", "b"], '""': [""]}
        assert {text: read_list(text) for text in lists} == lists


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


class TestLock:
    def test_whoever_is_kept_off_is_told_by_whom_and_since_when(self, server: PostgresServer) -> None:
        with hold_lock(server.address("shelf"), "restore") as lock:
            lock.check()
            with (
                pytest.raises(DatabaseError, match="Another run of opsproof is at work on database 'shelf'") as caught,
                hold_lock(server.address("shelf")),
            ):
                pass
        pattern = r"opsproof restore \S+@\S+ since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC \(role postgres, process \d+ .*"
        assert re.fullmatch(pattern, caught.value.found)

    def test_another_role_is_told_too(self, server: PostgresServer) -> None:
        with (
            hold_lock(server.address("shelf"), "restore"),
            pytest.raises(DatabaseError, match="Another run") as caught,
            hold_lock(as_owner(server)),
        ):
            pass
        assert re.fullmatch(r"opsproof restore \S+@\S+ \(role postgres, process \d+ .*", caught.value.found)

    def test_a_long_name_of_the_machine_leaves_the_purpose(
        self, server: PostgresServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("socket.gethostname", lambda: "größe-" * 20)
        with hold_lock(server.address("shelf"), "recover"), server.connect() as connection:
            row = connection.execute(
                "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'opsproof recover %@gr??e-%'"
            ).fetchone()
        assert row is not None
        assert len(row[0]) == 63

    def test_a_connection_that_is_cut_takes_the_lock_with_it(self, server: PostgresServer) -> None:
        with hold_lock(server.address("shelf"), "restore") as lock:
            with server.connect() as connection:
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE application_name LIKE 'opsproof restore %'"
                )
            with pytest.raises(DatabaseError, match="The lock on database 'shelf' is lost"):
                lock.check()
            with hold_lock(server.address("shelf")) as other:
                other.check()

    def test_one_that_was_given_up_is_lost_too(self, server: PostgresServer) -> None:
        with hold_lock(server.address("shelf")) as lock:
            lock._connection.execute("SELECT pg_advisory_unlock_all()")
            with pytest.raises(DatabaseError, match="is lost") as caught:
                lock.check()
        assert "no lock any more" in caught.value.found
