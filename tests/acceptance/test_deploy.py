"""`pytest actions/test_deploy.py`: what is live afterwards, what is kept, and what is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsproof.system.releases.ledger import LEDGER
from opsproof.system.store import open_store
from tests.lab.action_run import require_failure
from tests.lab.deployable import COUPON, WANTS_COUPON, Deployable, deployable
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import require_nothing_left
from tests.lab.stocks import put_backup

SEEN = "env | grep ^OPSPROOF_ | sort > seen; id -un >> seen; pwd >> seen"


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


def test_hooks_and_shared_paths_are_the_releases_own(shop: Deployable) -> None:
    (shop.folder / "shared" / "config").mkdir(parents=True)
    (shop.folder / "shared" / "config" / ".env").write_text("SECRET=1\n")
    shop.describe(
        deploy={"shared": ["config/.env", "log/", "data"], "database": "none"},
        hooks={"after_update_code": SEEN, "before_symlink": ["cat config/.env", "checks/test_own.py"]},
        alembic_python=sys.executable,
    )
    own = "import os\n\n\ndef test_own() -> None:\n    assert os.path.islink('log')\n"
    source = shop.write_release("one", files={"checks/test_own.py": own, "data/first": "1", "config/.env": "wrong"})
    run = shop.must_deploy(source)
    live = shop.folder / "current"
    seen = (live / "seen").read_text()
    release = shop.folder / "releases" / shop.current
    for line in (
        f"OPSPROOF_DATABASE={shop.app.name}", "OPSPROOF_ENVIRONMENT=staging", "OPSPROOF_HOOK=after_update_code",
        "OPSPROOF_PREVIOUS=", f"OPSPROOF_RELEASE={release}", "OPSPROOF_TARGET=shop",
    ):  # fmt: skip
        assert line in seen.splitlines()
    assert (live / "config" / ".env").read_text() == "SECRET=1\n"
    assert (live / "log").resolve() == shop.folder / "shared" / "log"
    assert (live / "data").resolve().is_dir()
    outputs = [one["output"] for one in run.named("hook")]
    assert outputs[1] == "SECRET=1\n"
    assert "1 passed" in outputs[2]
    assert "1 passed" in run.xml


@pytest.mark.slow
def test_pruning_and_rolling_back_never_go_by_modification_times(shop: Deployable) -> None:
    shop.describe(deploy={"keep_releases": 1, "database": "none"})
    names = [shop.run_through(shop.write_release(version)).release for version in ("one", "two", "three")]
    # Every backup is kept, and with it the release that it belongs to.
    assert shop.look().releases[1:] == tuple(names)
    for path in shop.app.project.store.rglob("*.manifest.json"):
        path.unlink()
    os.utime(shop.folder / "releases" / names[0], (4e9, 4e9))
    back = shop.roll_back(f"--to-release={names[0]}")
    assert back.status == 0, back.output
    assert (shop.look().version, shop.current) == ("one", names[0])
    again = shop.roll_back(f"--to-release={names[0]}")
    assert again.status == 0, again.output
    assert "is live already: nothing was done" in again.output
    four = shop.run_through(shop.write_release("four"))
    # One was live until now; the backup before the rollback, which is kept, is of the data of three.
    assert shop.look().releases[1:] == (names[0], names[2], four.release)
    assert four.pruned == [names[1]]
    with (shop.folder / "releases" / LEDGER).open("a") as ledger:
        ledger.write('{"release": "2026')
    five = shop.run_through(shop.write_release("five"))
    assert five.pruned == []
    assert shop.look().releases[1:] == (names[0], names[2], four.release, five.release)
    back = shop.roll_back(f"--to-release={names[0]}")
    assert back.status == 0, back.output
    assert (shop.look().version, shop.current) == ("one", names[0])


@pytest.mark.slow
def test_a_fresh_backup_stands_for_the_one_before(shop: Deployable) -> None:
    taken = shop.app.back_up()
    before = shop.app.backups()
    assert shop.run_through(shop.write_release("one"), timedelta(minutes=10)).safety == taken
    assert shop.app.backups() == before
    assert shop.run_through(shop.write_release("two"), timedelta(microseconds=1)).safety != taken
    target = shop.target()
    ahead = put_backup(
        open_store(target.store, target.customer),
        datetime.now(UTC) + timedelta(hours=1),
        database=shop.app.name,
        environment=target.environment,
        target=target.name,
    )
    # By a clock that was wrong: nobody knows how old it is.
    assert shop.run_through(shop.write_release("three"), timedelta(minutes=10)).safety not in ("", taken, ahead)


@pytest.mark.slow
def test_a_hook_that_migrated_the_database_is_taken_back_from_the_backup(shop: Deployable) -> None:
    shop.run_through(shop.write_release("one"))
    before = shop.look()
    migrate = f"DATABASE_URL='{shop.app.url}' {sys.executable} -m alembic upgrade heads"
    shop.describe(hooks={"before_symlink": [migrate, "exit 3"]})
    run = shop.deploy(shop.write_release("two", COUPON))
    require_failure(run, "test_before_symlink", "exit status 3")
    assert "is built from" in run.output
    now = shop.look()
    assert (now.version, now.current, now.contents) == (before.version, before.current, before.contents)
    assert len(now.databases) == 1, "what the hook has made of it is kept"
    require_nothing_left(shop.app)
    undo = shop.app.recover("--undo")
    assert undo.status == 0, undo.output
    assert shop.app.heads() == ["coupon_01"]


@pytest.mark.slow
def test_the_first_deploy_makes_the_database(shop: Deployable) -> None:
    shop.app.server.drop_database(shop.app.name)
    run = shop.must_deploy(shop.write_release("one", COUPON, wants=WANTS_COUPON))
    now = shop.look()
    assert (now.version, now.databases) == ("one", ())
    assert shop.app.heads() == ["coupon_01"]
    assert run.case("test_after_cleanup").properties["deploy_backup"] == ""
    require_nothing_left(shop.app)
    # From the second deploy on somebody has lost it, or has misspelt its name: an empty one is no deploy of that.
    second = shop.run_through(shop.write_release("two", COUPON, wants=WANTS_COUPON))
    shop.app.server.drop_database(shop.app.name)
    lost = shop.deploy(shop.write_release("three", COUPON, wants=WANTS_COUPON))
    require_failure(
        lost, "test_nothing_is_in_the_way", f"--backup={second.safety}", "--allow-data-loss begins with an empty one"
    )
    with shop.app.server.connect() as connection:
        query = "SELECT count(*) FROM pg_database WHERE datname = %s"
        assert connection.execute(query, (shop.app.name,)).fetchone() == (0,)
    assert shop.current == second.release
    anew = shop.must_deploy(shop.write_release("three", COUPON, wants=WANTS_COUPON), "--allow-data-loss")
    assert anew.case("test_after_cleanup").properties["deploy_backup"] == ""


@pytest.mark.slow
def test_a_first_deploy_that_fails_leaves_no_database(shop: Deployable) -> None:
    shop.app.server.drop_database(shop.app.name)
    run = shop.deploy(shop.write_release("one", mood="ill"))
    require_failure(run, "test_application_is_healthy", "is not healthy")
    assert not (shop.folder / "current").is_symlink()
    with shop.app.server.connect() as connection:
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        assert connection.execute(query, (shop.app.name,)).fetchall() == []


@pytest.mark.slow
def test_a_rollback_with_the_backup_brings_the_data_back(shop: Deployable) -> None:
    shop.run_through(shop.write_release("one"))
    one = shop.look()
    second = shop.run_through(shop.write_release("two", COUPON))
    shop.app.execute("INSERT INTO orders (id, name) VALUES (5000, 'since')")
    refused = shop.roll_back(f"--backup={shop.app.back_up()}")
    own = f"--backup={second.safety}"
    require_failure(refused, "test_database_goes_with_it", "does not know", "coupon_01", own)
    back = shop.roll_back(own)
    assert back.status == 0, back.output
    now = shop.look()
    assert (now.version, now.contents) == ("one", one.contents)
    # The parked one of the deploy, and that of the rollback.
    assert len(now.databases) == 2
    for also in ((), ("--dry-run",)):
        require_failure(shop.app.recover("--undo", *also), "test_find_unfinished", "--type=release")
    require_nothing_left(shop.app)


@pytest.mark.slow
def test_a_commit_is_deployed_and_named(shop: Deployable, tmp_path: Path) -> None:
    source = Path(shop.write_release("one"))
    git = ["git", "-C", str(source), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "one"], ["tag", "v1"]):
        subprocess.run([*git, *words], check=True, capture_output=True)
    commit = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (source / "release.json").unlink()  # what is not committed is no part of it
    assert shop.run_through(f"{source}#v1").package.revision == commit
    assert (shop.folder / "current" / "REVISION").read_text() == f"{commit}\n"
    assert shop.look().version == "one"
