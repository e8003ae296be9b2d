"""A copy of an Odoo database is made harmless, and proven so; what is no copy is left alone."""

from __future__ import annotations

import re
import secrets
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.errors import DatabaseError, ProofError
from opsproof.inspection.restores.neutralized import Identity, check_neutralized, read_identity
from opsproof.procedures.restore.neutralizing import Purpose
from opsproof.system.postgres.server import connect
from tests.lab.odoo_tables import PRODUCTION, SECRET, UUID, acting, parameters
from tests.lab.postgres_server import PostgresServer
from tests.lab.side_odoo import COPY, Side, neutralize, side, target_for

__all__ = ["side"]

GUESSED = Purpose(copies=True, why="the backup does not say where it comes from", guessed=True)
LIVE = Identity("live-uuid", "live-secret", "https://staging.example.com", is_neutralized=False, version="14.0.1.3")


def test_nothing_of_a_copy_acts_any_more(side: Side, tmp_path: Path) -> None:
    server, address = side
    with server.connect(address.name) as connection:
        assert len(acting(connection)) == 10
    done = neutralize(address, target_for(address, tmp_path))
    with server.connect(address.name) as connection:
        assert acting(connection) == ["ir_mail_server invalid"]
        now = parameters(connection)
        assert connection.execute("SELECT account_token FROM iap_account ORDER BY id").fetchall() == [
            ("abc+disabled",),
            ("def+disabled",),
            (None,),
        ]
        assert connection.execute("SELECT state FROM mail_mail ORDER BY id").fetchall() == [("cancel",), ("sent",)]
    assert now["database.is_neutralized"] == "true"
    assert now["database.uuid"] not in ("", UUID)
    assert now["database.secret"] not in ("", SECRET, now["database.uuid"])
    assert (now["web.base.url"], now["web.base.url.freeze"]) == (PRODUCTION, "True")
    assert now["iap.endpoint"] == now["sms.endpoint"] == "https://neutralized.invalid"
    assert done.rows["scheduled actions"] == 2
    assert "the built-in statements (Odoo 14.0.1.3 has none), as the backup is one of prod/erp" in done.shown
    assert "scheduled actions 2, outgoing mail servers 1" in done.shown


@pytest.mark.parametrize(
    ("said", "live", "expected"),
    [
        ("https://here.example.com", LIVE, "https://here.example.com"),
        (None, LIVE, "https://staging.example.com"),
        (None, None, PRODUCTION),
    ],
)
def test_the_address_is_the_environments_own(
    side: Side, tmp_path: Path, said: str | None, live: Identity | None, expected: str
) -> None:
    server, address = side
    neutralize(address, target_for(address, tmp_path, web_base_url=said), live=live)
    with server.connect(address.name) as connection:
        now = parameters(connection)
    assert (now["web.base.url"], now["web.base.url.freeze"]) == (expected, "True")


def test_a_mail_server_is_there_where_there_was_none(side: Side, tmp_path: Path) -> None:
    """Without one Odoo would take the one of its odoo.conf."""
    server, address = side
    with server.connect(address.name) as connection:
        connection.execute(
            "DELETE FROM ir_mail_server; ALTER TABLE ir_mail_server ADD smtp_authentication text NOT NULL"
        )
    neutralize(address, target_for(address, tmp_path))
    with server.connect(address.name) as connection:
        found = connection.execute("SELECT smtp_host, smtp_authentication, active FROM ir_mail_server").fetchall()
    assert found == [("invalid", "login", True)]


def test_tables_and_columns_that_an_odoo_lacks_are_passed_over(side: Side, tmp_path: Path) -> None:
    server, address = side
    with server.connect(address.name) as connection:
        connection.execute(
            "DROP TABLE ir_mail_server, fetchmail_server, mail_mail, payment_acquirer;"
            " ALTER TABLE delivery_carrier DROP prod_environment; ALTER TABLE res_users DROP google_calendar_rtoken"
        )
    done = neutralize(address, target_for(address, tmp_path))
    assert done.rows["scheduled actions"] == 2
    assert "delivery carriers" not in done.rows


def test_the_inventorys_statements_come_last(side: Side, tmp_path: Path) -> None:
    server, address = side
    statements = (
        "UPDATE ir_config_parameter SET value = 'last' WHERE key = 'iap.endpoint'",
        "DO $$ BEGIN PERFORM 1; END $$; INSERT INTO ir_config_parameter (key, value) VALUES ('like', '100%s')",
    )
    neutralize(address, target_for(address, tmp_path, neutralize=statements))
    with server.connect(address.name) as connection:
        now = parameters(connection)
    assert (now["iap.endpoint"], now["like"]) == ("last", "100%s")


@pytest.mark.parametrize(
    ("statement", "error", "words"),
    [
        ("UPDATE res_users SET password = 'hush'", DatabaseError, "Statement 2 of `neutralize` in the inventory"),
        ("COMMIT", ProofError, "ended the transaction"),
        ("ROLLBACK; BEGIN", ProofError, "ended the transaction"),
    ],
)
def test_a_statement_that_fails_names_its_number_and_not_its_text(
    side: Side, tmp_path: Path, statement: str, error: type[Exception], words: str
) -> None:
    server, address = side
    with pytest.raises(error, match=re.escape(words)) as caught:
        neutralize(address, target_for(address, tmp_path, neutralize=("SELECT 1", statement)))
    assert "hush" not in f"{caught.value}{caught.value.__cause__}"
    if error is DatabaseError:
        with server.connect(address.name) as connection:
            assert (len(acting(connection)), parameters(connection)["database.uuid"]) == (10, UUID)


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        ("UPDATE ir_cron SET active = true WHERE id = 1", "active scheduled action: row 1 of ir_cron"),
        ("UPDATE ir_mail_server SET active = true", "active outgoing mail server: row 1 of ir_mail_server"),
        ("UPDATE fetchmail_server SET active = true", "active incoming mail server: row 1 of fetchmail_server"),
        ("UPDATE payment_acquirer SET state = 'enabled' WHERE id = 1", "payment provider in production: row 1"),
        ("DELETE FROM ir_config_parameter WHERE key ~ 'neutralized'", "database.is_neutralized is not set"),
        (f"UPDATE ir_config_parameter SET value = '{UUID}' WHERE key ~ 'uuid'", "database.uuid is that of the backup"),
        (f"UPDATE ir_config_parameter SET value = '{SECRET}' WHERE key ~ 'secret'", "database.secret is that of the"),
        ("DROP TABLE ir_config_parameter", "it is no Odoo database any more"),
    ],
)
def test_what_would_still_act_is_found(side: Side, tmp_path: Path, statement: str, found: str) -> None:
    _, address = side
    with pytest.raises(ProofError, match="was neutralized, but would still act") as caught:
        neutralize(address, target_for(address, tmp_path, neutralize=(statement,)))
    assert found in caught.value.found


def test_a_copy_that_nobody_neutralized_is_recognised(side: Side) -> None:
    _, address = side
    with connect(address) as connection:
        before = read_identity(connection)
        assert before is not None
        assert (before.uuid, before.base_url, before.is_neutralized) == (UUID, PRODUCTION, False)
        with pytest.raises(ProofError) as caught:
            check_neutralized(connection, before)
    assert len(caught.value.found.splitlines()) == 8


@pytest.mark.parametrize(
    ("purpose", "live"),
    [
        (Purpose(copies=False, why="--keep-identity says that it moves"), LIVE),
        (GUESSED, replace(LIVE, uuid=UUID)),
    ],
    ids=["moved", "its own"],
)
def test_what_is_no_copy_is_left_alone(side: Side, tmp_path: Path, purpose: Purpose, live: Identity) -> None:
    server, address = side
    done = neutralize(address, target_for(address, tmp_path, neutralize=("DROP TABLE ir_cron",)), purpose, live)
    assert not done.done
    assert done.shown.startswith("kept as the backup has it: ")
    with server.connect(address.name) as connection:
        assert (len(acting(connection)), parameters(connection)["database.uuid"]) == (10, UUID)


@pytest.mark.parametrize(
    ("purpose", "live"),
    [
        (COPY, replace(LIVE, uuid=UUID)),
        (GUESSED, LIVE),
        (GUESSED, None),
        (GUESSED, replace(LIVE, uuid=UUID, is_neutralized=True)),
    ],
    ids=["known to be one", "another uuid", "nothing live", "live is a neutralized copy with the same uuid"],
)
def test_what_may_be_a_copy_is_neutralized(side: Side, tmp_path: Path, purpose: Purpose, live: Identity | None) -> None:
    server, address = side
    assert neutralize(address, target_for(address, tmp_path), purpose, live).done
    with server.connect(address.name) as connection:
        assert acting(connection) == ["ir_mail_server invalid"]


def test_another_database_than_odoos_gets_the_inventorys_statements_alone(
    wheel_postgres: PostgresServer, tmp_path: Path
) -> None:
    name = f"side_{secrets.token_hex(4)}"
    address = wheel_postgres.create_database(
        name, "CREATE TABLE people (email text)", "CREATE TABLE ir_cron (active int)"
    )
    try:
        nothing = neutralize(address, target_for(address, tmp_path))
        assert not nothing.done
        assert "no Odoo database, and the inventory has no `neutralize`" in nothing.why
        own = ("INSERT INTO people VALUES ('nobody@example.invalid')",)
        done = neutralize(address, target_for(address, tmp_path, neutralize=own))
        assert done.by == "the inventory's statements"
        with wheel_postgres.connect(name) as connection:
            assert connection.execute("SELECT email FROM people").fetchall() == [("nobody@example.invalid",)]
    finally:
        wheel_postgres.drop_database(name)
