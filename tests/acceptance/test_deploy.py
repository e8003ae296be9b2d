"""`pytest actions/test_deploy.py`: what is live afterwards, what is kept, and what is told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.lab.action_run import require_failure
from tests.lab.deployable import COUPON, WANTS_COUPON, Deployable, deployable
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import require_nothing_left


@pytest.fixture
def shop(wheel_postgres: PostgresServer) -> Iterator[Deployable]:
    with deployable(wheel_postgres) as shop:
        yield shop


def test_two_releases_and_the_way_back(shop: Deployable) -> None:
    first = shop.must_deploy(shop.write_release("one"))
    one = shop.look()
    assert (one.version, one.databases) == ("one", ())
    assert first.case("test_after_cleanup").properties["deploy_parked"] == ""
    assert "database   nothing: it stays as it is" in first.output

    second = shop.must_deploy(shop.write_release("two", COUPON, wants=WANTS_COUPON))
    two = shop.look()
    assert two.version == "two"
    assert shop.app.heads() == ["coupon_01"]
    kept = second.case("test_after_cleanup").properties
    assert kept["deploy_previous"] == one.current
    assert two.databases == (kept["deploy_parked"],)
    assert f"{kept['deploy_backup']}.manifest.json" in shop.app.backups()
    ledger = [json.loads(line) for line in (shop.folder / "releases/.opsproof-ledger.jsonl").read_text().splitlines()]
    assert [(entry["release"], entry["previous"]) for entry in ledger] == [
        (one.current, ""),
        (two.current, one.current),
    ]
    require_nothing_left(shop.app)

    shop.app.execute("INSERT INTO orders (id, name, coupon) VALUES (5000, 'since', 'SAVE10')")
    refused = shop.roll_back()
    message = require_failure(refused, "test_database_goes_with_it", "1 value", "--backup=")
    assert "--allow-data-loss" in message
    assert shop.look().current == two.current
    back = shop.roll_back("--allow-data-loss")
    assert back.status == 0, back.output
    now = shop.look()
    assert (now.version, now.current) == ("one", one.current)
    assert shop.app.heads() == ["customers_name"]
    assert shop.app.query("SELECT name FROM orders WHERE id = 5000") == [("since",)]
    require_nothing_left(shop.app)
