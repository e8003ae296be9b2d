"""How an application's Alembic is run, and what has to hold of its database, as an inventory says it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from opsproof.inventory.loading import load_environment
from opsproof.plugin.run import _secrets
from opsproof.target import Query, Relation, ValidationSettings
from tests.lab.inventories import environ, inventory, one_host, refusal

__all__ = ["environ", "inventory"]

Write = Callable[..., Path]
ENVIRON = '{APP_TOKEN: "hush token", DEBUG: true, WORKERS: 4, RATIO: 0.5}'
VALIDATION = """
        tables: orders
        relations: [{child: orders.customer, parent: sales.customers.id}]
        queries: [{sql: SELECT count(*) FROM orders, expected: 0}, {sql: SELECT true, expected: true}]"""


def test_alembic_its_interpreter_and_its_variables(inventory: Write, environ: dict[str, str]) -> None:
    text = one_host(
        alembic_ini="/srv/app/alembic.ini",
        alembic_python="/srv/app/venv/bin/python",
        alembic_env=ENVIRON,
        database_url='"postgresql://u:hush-pw@h/acme"',
    )
    (web,) = load_environment("prod", inventory=inventory(text), environ={**environ, "LANG": "C"}).targets
    settings = web.migrations
    assert settings.ini == PurePosixPath("/srv/app/alembic.ini")
    assert settings.python == "/srv/app/venv/bin/python"
    known = {name: one.reveal() for name, one in settings.environ.items()}
    # A person writes `true` and `4`: variables are texts.
    assert {**known, "APP_TOKEN": "hush token", "DEBUG": "true", "WORKERS": "4", "RATIO": "0.5"} == known
    assert (known["DATABASE_URL"], known["LANG"]) == ("postgresql://u:hush-pw@h/acme", "C")
    assert "hush" not in repr(settings)


def test_where_nothing_is_said_it_is_looked_for(inventory: Write, environ: dict[str, str]) -> None:
    more = {**environ, "DATABASE_URL": "", "AWS_SECRET_ACCESS_KEY": "hush", "PGPASSWORD": "hush"}
    (web,) = load_environment("prod", inventory=inventory(one_host()), environ=more).targets
    assert (web.migrations.ini, web.migrations.python) == (None, None)
    # The store's credentials and another server's password are no business of the application's.
    assert not {"AWS_SECRET_ACCESS_KEY", "PGPASSWORD"} & web.migrations.environ.keys()
    assert web.validation == ValidationSettings()


def test_an_interpreter_of_the_settings_is_that_of_alembic_too(inventory: Write, environ: dict[str, str]) -> None:
    text = one_host(settings_python="/srv/app/venv/bin/python")
    (web,) = load_environment("prod", inventory=inventory(text), environ=environ).targets
    assert web.migrations.python == "/srv/app/venv/bin/python"


def test_a_host_elsewhere_gets_none_of_this_machines_variables(inventory: Write, environ: dict[str, str]) -> None:
    text = one_host(ansible_connection="ssh", alembic_env="{APP_MODE: there}")
    (web,) = load_environment("prod", inventory=inventory(text), environ={**environ, "HERE": "only"}).targets
    assert set(web.migrations.environ) == {"APP_MODE", "DATABASE_URL"}


def test_tables_relations_and_queries(inventory: Write, environ: dict[str, str]) -> None:
    text = one_host(validation=VALIDATION)
    (web,) = load_environment("prod", inventory=inventory(text), environ=environ).targets
    assert web.validation == ValidationSettings(
        tables=("orders",),
        relations=(Relation("orders.customer", "sales.customers.id"),),
        queries=(Query("SELECT count(*) FROM orders", "0"), Query("SELECT true", "true")),
    )


WRONG_VALUES = """
        relations:
          - {child: orders, parent: customers.id}
          - {child: a.b.c.d, parent: customers.id}
          - {child: orders.customer}
        queries: [{sql: SELECT 1, expected: [hush]}, {sql: '', expected: 1}]"""


@pytest.mark.parametrize(
    ("variables", "found", "hints"),
    [
        (
            {"validation": "{colour: red, table: [orders]}"},
            ["validation.colour (hosts.yml:7): no such key",
             "validation.table (hosts.yml:7): no such key; did you mean validation.tables?"],
            ["the keys of validation are tables, relations, queries", "write tables"],
        ),
        (
            {"validation": WRONG_VALUES, "alembic_env": "{APP_TOKEN: [hush]}", "alembic_python": "venv/bin/python",
             "alembic_ini": "alembic.ini"},
            ["alembic_ini (hosts.yml:15): must be an absolute path",
             "alembic_python (hosts.yml:14): must be an absolute path",
             "alembic_env.APP_TOKEN (hosts.yml:13): should be a valid string, not a number or another kind",
             "validation.relations.child (hosts.yml:8): must be table.column, or schema.table.column",
             "validation.relations.parent (hosts.yml:8): is missing",
             "validation.queries.expected (hosts.yml:12): should be a valid string, not a number or another kind",
             "validation.queries.sql (hosts.yml:12): String should have at least 1 character"],
            ["correct alembic_ini", "correct alembic_python", 'put APP_TOKEN in quotes: APP_TOKEN: "..."',
             "correct validation.relations.child", "add parent, as in hosts.example.yml",
             'put expected in quotes: expected: "..."', "correct validation.queries.sql"],
        ),
        (
            {"validation": "orders", "alembic_env": "hush", "alembic_pyton": "/bin/python3"},
            ["alembic_pyton (hosts.yml:9): did you mean alembic_python?",
             "alembic_env (hosts.yml:8): should be a valid dictionary",
             "validation (hosts.yml:7): must be a mapping"],
            ["write alembic_python; if alembic_pyton is your own, keep it and add `alembic_python:` "
             "(nothing behind it)",
             "correct alembic_env", "correct validation, as in hosts.example.yml"],
        ),
    ],
    ids=["keys", "values", "kinds"],
)  # fmt: skip
def test_what_is_not_right_is_told_with_its_place(
    inventory: Write, environ: dict[str, str], variables: dict[str, str], found: list[str], hints: list[str]
) -> None:
    error = refusal(inventory(one_host(**variables)), environ)
    assert error.found.splitlines() == found
    assert error.hint.splitlines() == hints


def test_what_a_log_may_not_show_of_an_application(inventory: Write, environ: dict[str, str]) -> None:
    told = {
        "APP_SECRET": "hush-secret",
        "SMTP_PASS": "hush-mail",
        "STRIPE_API_KEY": "hush-key",
        "BROKER_URL": "amqp://shop:hush%2Fbroker@h/",
        "sentry_token": "hush-token",
    }
    untold = {
        "PASSWORD_RESET": "true",
        "TOKEN_SECONDS": "3600",
        "SECRET_FILE": "/run/secrets/app",
        "KEYBOARD": "qwerty",
        "SITE_URL": "https://shop.example/",
        "APP_MODE": "production",
    }
    names = ", ".join(f'{name}: "{value}"' for name, value in {**told, **untold}.items())
    text = one_host(alembic_env=f"{{{names}}}", database_url='"postgresql://u:hush%40pw@h/acme"')
    loaded = load_environment("prod", inventory=inventory(text), environ=environ)
    known = set(_secrets(loaded, {}))
    assert known == {
        "hush-secret", "hush-mail", "hush-key", "hush-token", "hush%2Fbroker", "hush/broker", "hush@pw", "hush%40pw",
    }  # fmt: skip
