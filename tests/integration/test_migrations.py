"""Alembic in the application's own interpreter, by its own env.py, on a real server: what it answers, and refuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from opsproof.errors import LockTimeout, MigrationError, ProgramMissing
from opsproof.system.alembic.migrations import Migrations, Place, VersionTable, place_of, read_heads
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.server import connect
from opsproof.target import Connection, DirectoryStoreSettings, MigrationSettings, Secret, Target
from tests.lab.action_run import REPOSITORY
from tests.lab.migrated import CHAIN, ENV, PASSWORD, Migrated, Script, migrated
from tests.lab.postgres_server import PostgresServer

LOCAL = Host(Connection())
SLOW_SECONDS = 2
# Undoes what can be seen, and only then takes its time.
SLOW = Script("slow_01", "customers_name", "pass",
              f"op.execute('DELETE FROM orders; SELECT pg_sleep({SLOW_SECONDS})')")  # fmt: skip
ASKER = """
import json, sys
from pathlib import PurePosixPath
from opsproof.system.alembic.finding import find_ini, find_python
from opsproof.system.hosts.host import Host
from opsproof.system.alembic.migrations import Migrations, place_of
from opsproof.target import *
ini, name, port, user, password = json.loads(sys.stdin.read())
address = DatabaseAddress(name, "127.0.0.1", port, user, Secret(password))
settings = MigrationSettings(PurePosixPath(ini), sys.executable)
target = Target("shop", "staging", address, DirectoryStoreSettings("."), "shop", migrations=settings)
migrations, place = Migrations(Host(Connection()), target), place_of(address, name)
migrations.downgrade(place, migrations.plan(place, "-1"), settings={"application_name": "asked by one who died"})
"""


@pytest.fixture(scope="module")
def shop(wheel_postgres: PostgresServer) -> Iterator[Migrated]:
    """At the head of the chain of five; each test leaves it as it was."""
    with migrated(wheel_postgres) as shop:
        yield shop


def target_of(shop: Migrated, python: str | None = sys.executable, **environ: str) -> Target:
    address = shop.server.address(shop.name, shop.role, PASSWORD)
    variables = {name: Secret(text) for name, text in environ.items()}
    settings = MigrationSettings(PurePosixPath(shop.ini), python, variables)
    return Target("shop", "staging", address, DirectoryStoreSettings(shop.folder), "shop", migrations=settings)


def asked(shop: Migrated, python: str | None = sys.executable, **environ: str) -> tuple[Migrations, Place]:
    target = target_of(shop, python, **environ)
    return Migrations(LOCAL, target), place_of(target.database, shop.name)


@contextmanager
def with_env(shop: Migrated, text: str) -> Iterator[None]:
    """Give the application another env.py for a while."""
    shop.write_env(text)
    try:
        yield
    finally:
        shop.write_env()


def test_to_ask_for_a_plan_writes_nothing_beside_the_scripts(shop: Migrated) -> None:
    """A dry run has no right to; and what another account writes there keeps a release from being removed."""
    migrations, place = asked(shop)
    for compiled in shop.ini.parent.rglob("__pycache__"):
        shutil.rmtree(compiled)
    before = sorted(shop.ini.parent.rglob("*"))
    migrations.plan(place, "-1")
    assert sorted(shop.ini.parent.rglob("*")) == before


def refusal(shop: Migrated, *words: str) -> MigrationError:
    """Check that a plan fails, with these words."""
    migrations, place = asked(shop)
    before = shop.contents()
    with pytest.raises(MigrationError) as caught:
        migrations.plan(place, "total_01")
    assert all((caught.value.expected, caught.value.found, caught.value.kept, caught.value.hint))
    for word in words:
        assert word in str(caught.value)
    assert shop.contents() == before
    return caught.value


def test_a_plan_is_what_alembic_would_undo(shop: Migrated) -> None:
    migrations, place = asked(shop)
    planned = migrations.plan(place, "orders_01")
    assert planned.heads == ("customers_name",)
    assert [one.id for one in planned.undone] == ["customers_name", "orders_name", "total_01"]
    assert planned.left == ("orders_01",)
    assert [one.id for one in planned.history.revisions] == [one.id for one in reversed(CHAIN)]
    assert planned.sources.keys() == {"customers_name", "orders_name", "total_01"}
    assert "op.drop_column('orders', 'total')" in (planned.sources["total_01"] or "")
    versioning = planned.versioning
    assert versioning is not None
    assert (versioning.table, versioning.per_migration, versioning.transactional, versioning.driver) == (
        VersionTable(), False, True, "psycopg",
    )  # fmt: skip


def test_a_plan_for_other_heads_needs_no_database(shop: Migrated) -> None:
    migrations, _ = asked(shop)
    with with_env(shop, "raise SystemExit('nobody is to run this')"):
        planned = migrations.plan(Place("no such database", 1, 0.0), "-1", ["total_01"])
    assert ([one.id for one in planned.undone], planned.left, planned.versioning) == (
        ["total_01"],
        ("orders_01",),
        None,
    )


def test_the_preview_is_sql_and_runs_nothing(shop: Migrated) -> None:
    migrations, place = asked(shop)
    before = shop.contents()
    text = migrations.preview(place, migrations.plan(place, "orders_01"))
    assert "ALTER TABLE orders DROP COLUMN total;" in text
    assert shop.contents() == before
    with pytest.raises(MigrationError, match="one head only"):
        migrations.preview(place, replace(migrations.plan(place, "-1"), heads=("a", "b")))


def test_an_env_that_prints_gives_the_same_answer(shop: Migrated) -> None:
    noise = "import os, sys\nprint('{\"planned\": []}')\nsys.stdout.flush()\nos.write(1, b'{}\\n' * 9999)\n"
    migrations, place = asked(shop)
    quiet = migrations.plan(place, "total_01")
    with with_env(shop, noise + ENV + noise):
        assert migrations.plan(place, "total_01") == quiet


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("raise ValueError('no settings\\nfor you')", ("Alembic failed on 'shop", "ValueError: no settings", "env.py")),
        ("import application_that_is_not_there", ("ModuleNotFoundError: No module named 'application_that",)),
        ("def broken(:", ("SyntaxError",)),
        ("raise SystemExit(3)", ("SystemExit: 3",)),
        ("import os; print('the last words', flush=True); os._exit(0)", ("ended without an answer", "the last words")),
        ("import os; os.kill(os.getpid(), 9)", ("ended without an answer",)),
        ("pass", ("ran no migrations", "context.run_migrations()")),
        (ENV + ENV, ("migrates more than one database",)),
        (ENV.replace('os.environ["DATABASE_URL"]', "'postgresql://a:b@127.0.0.1:1/c'"), ("refused", "Alembic failed")),
    ],
    ids=["raises", "imports", "syntax", "exits", "is gone", "is killed", "does nothing", "twice", "no server"],
)  # fmt: skip
def test_an_env_that_does_not_do_its_work_is_told(shop: Migrated, text: str, words: tuple[str, ...]) -> None:
    with with_env(shop, text):
        refusal(shop, *words)


def test_an_interpreter_without_alembic_and_none_at_all(shop: Migrated, tmp_path: Path) -> None:
    bare = tmp_path / "bare" / "bin" / "python"
    bare.parent.mkdir(parents=True)
    bare.symlink_to(Path(sys.executable).resolve())
    (tmp_path / "bare" / "pyvenv.cfg").write_text(f"home = {Path(sys.executable).resolve().parent}\n")
    migrations, place = asked(shop, str(bare))
    with pytest.raises(MigrationError) as caught:
        migrations.plan(place)
    assert f"{bare} has no Alembic" in caught.value.summary
    assert "No module named" in caught.value.found
    assert "alembic_python: " in caught.value.hint
    migrations, place = asked(shop, str(tmp_path / "no" / "python"))
    with pytest.raises(ProgramMissing, match="no/python"):
        migrations.plan(place)


def test_what_env_finds_is_the_inventorys_and_the_database(shop: Migrated) -> None:
    """Whatever it has of its own: the database's variables are there, and a connection past SQLAlchemy only reads."""
    looking = (
        "import json, os, psycopg\n"
        "with psycopg.connect() as c: kept = c.execute('SHOW default_transaction_read_only').fetchone()[0]\n"
        "raise ValueError(json.dumps([os.environ['APP_MODE'], os.environ['PGDATABASE'], os.environ['PGUSER'], kept]))\n"
    )
    migrations, place = asked(shop, APP_MODE="as in production", PGOPTIONS="-c default_transaction_read_only=off")
    with with_env(shop, looking), pytest.raises(MigrationError) as caught:
        migrations.plan(place)
    found = caught.value.found.splitlines()[0].partition("ValueError: ")[2]
    assert json.loads(found) == ["as in production", shop.name, shop.role, "on"]


def test_a_downgrade_does_what_was_planned_and_nothing_else(shop: Migrated) -> None:
    migrations, place = asked(shop)
    planned = migrations.plan(place, "total_01")
    before = shop.contents()
    with pytest.raises(MigrationError, match="not true any more"):
        migrations.downgrade(place, replace(planned, undone=planned.undone[:1]), settings={})
    with pytest.raises(MigrationError, match="not true any more"):
        migrations.downgrade(place, replace(planned, heads=("orders_name",)), settings={})
    with pytest.raises(MigrationError, match="another database"):
        migrations.downgrade(replace(place, oid=place.oid + 1), planned, settings={})
    with pytest.raises(MigrationError, match="another database"):
        migrations.downgrade(replace(place, started=place.started + 1), planned, settings={})
    with pytest.raises(MigrationError, match="is over: another one has cleared up"):
        migrations.downgrade(place, planned, settings={}, permit="SELECT 1 WHERE false")
    # Permitted at first, and no more at the end of the transaction: it is undone.
    permit = "SELECT 1 WHERE to_regclass('orders_name') IS NOT NULL"
    with pytest.raises(MigrationError, match="is over: another one has cleared up"):
        migrations.downgrade(place, planned, settings={}, permit=permit)
    assert shop.contents() == before
    assert shop.query("SELECT to_regclass('orders_name') IS NOT NULL") == [(True,)]

    steps = migrations.downgrade(place, planned, settings={"application_name": "it's %s"}, permit="SELECT 1")

    assert [step.revision for step in steps] == ["customers_name", "orders_name"]
    assert all(0 < step.seconds < 60 for step in steps)
    with connect(target_of(shop).database) as connection:
        assert read_heads(connection, VersionTable()) == ("total_01",)
        assert read_heads(connection, VersionTable("alembic_version", "public")) == ("total_01",)
        assert read_heads(connection, VersionTable("alembic_version", "no such schema")) == ()
    steps = migrations.upgrade(place, ["customers_name"], settings={})
    assert [step.revision for step in steps] == ["orders_name", "customers_name"]
    assert shop.contents() == before


def test_a_table_that_somebody_holds_is_a_timeout(shop: Migrated) -> None:
    migrations, place = asked(shop)
    planned = migrations.plan(place, "total_01")
    with shop.connect() as holder:
        holder.execute("BEGIN; LOCK TABLE orders IN ACCESS SHARE MODE")
        with pytest.raises(LockTimeout) as caught:
            migrations.downgrade(place, planned, settings={"lock_timeout": "100ms"})
    assert "lock timeout" in caught.value.found
    assert shop.heads() == ["customers_name"]


def test_when_whoever_asked_is_killed_nothing_is_committed(shop: Migrated) -> None:
    """The session in the server ends with its statement, and with it its transaction."""
    shop.write([*CHAIN, SLOW])
    try:
        shop.alembic("upgrade", "head")
        before, target = shop.contents(), target_of(shop)
        known = [str(shop.ini), shop.name, target.database.port, shop.role, PASSWORD]
        asker = subprocess.Popen(
            [sys.executable, "-c", ASKER], cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip
        try:
            assert asker.stdin is not None
            asker.stdin.write(json.dumps(known).encode())
            asker.stdin.close()
            await_sessions(shop, "state = 'active' AND query LIKE '%%pg_sleep%%'", 1)
        finally:
            asker.kill()
            asker.wait()
        await_sessions(shop, "true", 0)
        assert shop.contents() == before
        assert shop.heads() == ["slow_01"]
    finally:
        shop.execute("UPDATE alembic_version SET version_num = 'customers_name'")
        shop.write(CHAIN)


def await_sessions(shop: Migrated, condition: str, count: int) -> None:
    query = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = 'asked by one who died' AND {condition}"
    deadline = time.monotonic() + 20
    with shop.server.connect() as connection:
        while connection.execute(query.replace("%%", "%").encode()).fetchone() != (count,):
            assert time.monotonic() < deadline, f"not {count} sessions"
            time.sleep(0.02)
