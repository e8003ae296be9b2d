"""What a database is besides its content: grants, settings and comment, read and copied to another one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from opsproof.errors import DatabaseError, DatabaseMissing, PermissionDenied
from opsproof.intent import Intent
from opsproof.system.postgres.databases import create_side, read_intent, write_intent
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.properties import Grant, copy_properties, read_acl, read_list, read_properties
from tests.lab.live_database import SIDE, as_owner, facts_of, record_of, server
from tests.lab.postgres_server import PostgresServer

__all__ = ["server"]

INTENT = Intent(
    "restore", "r", "prod", "erp", "shelf", SIDE, "", "b", "", "building", (), "2026-01-31T02:00:00Z", "me@x"
)
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
