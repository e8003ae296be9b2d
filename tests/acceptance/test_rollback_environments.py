"""Rollbacks of a schema under every kind of env.py, history and address that applications have."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from textwrap import dedent

import pytest

from tests.lab.migrated import ASYNC_ENV, CHAIN, ENV, PASSWORD, ROLLBACK, ROWS, Migrated, Script, migrated
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import adopt, back_up, look, require_nothing_left, require_refusal

DOWN = ("--type=schema", "--to-revision=total_01")
COMPARED, REHEARSE = "test_schema_is_what_its_migrations_make", "test_rehearse"
LOGGERS = """
[loggers]
keys = root,alembic
[handlers]
keys = console
[formatters]
keys = generic
[logger_root]
level = INFO
handlers = console
qualname =
[logger_alembic]
level = DEBUG
handlers =
qualname = alembic
[handler_console]
class = StreamHandler
args = (sys.stdout,)
level = NOTSET
formatter = generic
[formatter_generic]
format = {"level": "%(levelname)s"} %(message)s
"""
# The tables were there when the history was begun: its first revision only says so.
SQUASHED = (Script("total_01", None, "", ""), *CHAIN[3:])


@pytest.fixture
def shop(wheel_postgres: PostgresServer) -> Iterator[Migrated]:
    with migrated(wheel_postgres) as shop:
        yield shop


def require_rolled_back(shop: Migrated, *, table: str = "alembic_version") -> None:
    """Check that both indexes are gone, and nothing else."""
    assert shop.heads(table) == ["total_01"]
    assert shop.query("SELECT to_regclass('orders_name'), to_regclass('customers_name')") == [(None, None)]
    assert shop.query("SELECT count(*), sum(total) FROM orders") == [(200, 201_000)]
    require_nothing_left(shop)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["revisions", "Odd name"])
def test_a_version_table_of_another_name_in_another_schema(wheel_postgres: PostgresServer, name: str) -> None:
    with migrated(wheel_postgres, (), ()) as shop:
        shop.execute('CREATE SCHEMA "Meta data"')
        adopt(shop, CHAIN, ROWS, version_table=name, version_table_schema="Meta data")
        before = shop.contents()
        run = shop.rollback(*DOWN)
        assert run.status == 0, run.output
        require_rolled_back(shop, table=f'"Meta data"."{name}"')
        assert shop.recover("--undo").status == 0
        assert shop.contents() == before


@pytest.mark.slow
def test_a_version_table_goes_down_to_base(wheel_postgres: PostgresServer) -> None:
    with migrated(wheel_postgres, (), ()) as shop:
        adopt(shop, CHAIN, ROWS, version_table="revisions")
        run = shop.rollback("--type=schema", "--to-revision=base", "--allow-data-loss")
        assert run.status == 0, run.output
        assert shop.heads("revisions") == []
        assert shop.recover("--undo").status == 0
        assert shop.heads("revisions") == ["customers_name"]


def test_an_asynchronous_environment(shop: Migrated) -> None:
    """PGOPTIONS is nothing to asyncpg: what it may do there is said in its session."""
    shop.write_env(ASYNC_ENV)
    run = shop.rollback(*DOWN)
    assert run.status == 0, run.output
    require_rolled_back(shop)


@pytest.mark.slow
def test_an_environment_that_sets_logging_up_and_prints(shop: Migrated) -> None:
    """Its logging goes to standard output, as JSON at that, and disables every logger that is there."""
    shop.ini.write_text(shop.ini.read_text() + LOGGERS)
    setup = "from logging.config import fileConfig\nfileConfig(context.config.config_file_name)\nprint('{}')\n"
    shop.write_env(ENV.replace("options =", f"{setup}options =", 1))
    run = shop.rollback(*DOWN)
    assert run.status == 0, run.output
    require_rolled_back(shop)


@pytest.mark.parametrize("mute", [pytest.param(False, marks=pytest.mark.slow), True])
def test_a_database_that_variables_alone_name(shop: Migrated, mute: bool) -> None:
    """Its password has what a URL must encode; alembic.ini is in the folder where the command is typed."""
    assert {"%", "@", "'", '"'} <= set(PASSWORD)
    for path in shop.folder.iterdir():
        shutil.move(path, shop.project.folder / path.name)
    if mute:
        # Nothing in this env.py knows a URL: libpq's own variables do.
        text = ENV.replace('os.environ["DATABASE_URL"]', '"postgresql://"')
        (shop.project.folder / "migrations" / "env.py").write_text(text.replace("{options!r}", "{}"))
    shop.project.inventory.unlink()
    programs = f"{shop.server.bindir}:{shop.project.environ['PATH']}"
    run = shop.project.run(
        *DOWN, action=ROLLBACK, env="staging", inventory=False, environ={"DATABASE_URL": shop.url, "PATH": programs}
    )
    assert run.status == 0, run.output
    require_rolled_back(shop)
    told = run.output + run.log + run.xml + str(run.events)
    assert PASSWORD not in told
    assert shop.url not in told


@pytest.mark.slow
@pytest.mark.parametrize("consent", [(), ("--allow-drift",)])
def test_an_environment_that_insists_on_the_live_database(shop: Migrated, consent: tuple[str, ...]) -> None:
    """Its engine gets its connections from a function of its own, which knows only the live one."""
    shop.write_env(
        dedent("""
            import os, psycopg
            from alembic import context
            from sqlalchemy import create_engine, pool

            creator = lambda: psycopg.connect(os.environ["DATABASE_URL"])
            if context.is_offline_mode():
                context.configure(dialect_name="postgresql")
                context.run_migrations()
            else:
                engine = create_engine("postgresql+psycopg://", creator=creator, poolclass=pool.NullPool)
                with engine.connect() as connection:
                    context.configure(connection=connection)
                    with context.begin_transaction():
                        context.run_migrations()
        """)
    )
    before = look(shop)
    run = shop.rollback(*DOWN, *consent)
    step, word = (REHEARSE, "leads to another database than") if consent else (COMPARED, "another database")
    require_refusal(shop, run, step, word, repr(shop.name) if consent else "--allow-drift", before=before)
    assert run.outcomes()["test_stop_services"] == "skipped"


@pytest.mark.slow
@pytest.mark.parametrize("where", ["env.py", "a downgrade"])
def test_a_connection_past_sqlalchemy_cannot_write(shop: Migrated, where: str) -> None:
    write = dedent("""
        import os, psycopg
        with psycopg.connect(os.environ["DATABASE_URL"]) as past:
            past.execute("DELETE FROM orders")
    """)
    if where == "env.py":
        shop.write_env(write + ENV)
    else:
        *below, top = CHAIN
        shop.write((*below, Script(top.id, top.down, top.upgrade, f"{write}\n{top.downgrade}")))
    before = look(shop)
    run = shop.rollback(*DOWN, "--allow-data-loss")
    step = "test_plan" if where == "env.py" else REHEARSE
    require_refusal(shop, run, step, "cannot execute DELETE in a read-only transaction", before=before)


def with_mood(downgrade: str) -> tuple[Script, ...]:
    """Return the chain with an ENUM type on top, which SQLAlchemy makes with its column and does not drop with it."""
    up = """
        sa.Enum('glad', 'sad', name='mood').create(op.get_bind())
        op.add_column('orders', sa.Column('felt', sa.Enum('glad', 'sad', name='mood', create_type=False)))
    """
    return (*CHAIN, Script("mood_01", "customers_name", up, downgrade))


def test_an_enum_that_a_downgrade_leaves_is_found_by_the_comparison(wheel_postgres: PostgresServer) -> None:
    with migrated(wheel_postgres, with_mood("op.drop_column('orders', 'felt')")) as shop:
        before = look(shop)
        run = shop.rollback("--type=schema", "--to-revision=customers_name")
        words = ("The rehearsed schema is not what the migrations make at customers_name", "TYPE public.mood: extra")
        require_refusal(shop, run, REHEARSE, *words, before=before)


@pytest.mark.slow
def test_an_enum_that_a_downgrade_leaves_stays_with_consent_or_goes_with_its_own_words(
    wheel_postgres: PostgresServer,
) -> None:
    with migrated(wheel_postgres, with_mood("op.drop_column('orders', 'felt')")) as shop:
        run = shop.rollback("--type=schema", "--to-revision=customers_name", "--allow-drift")
        assert run.status == 0, run.output
        assert shop.query("SELECT to_regtype('mood')::text") == [("mood",)]
        assert shop.recover("--undo").status == 0
        shop.write(with_mood("op.drop_column('orders', 'felt')\nop.execute('DROP TYPE mood')"))
        clean = shop.rollback("--type=schema", "--to-revision=customers_name")
        assert clean.status == 0, clean.output
        assert shop.query("SELECT to_regtype('mood')") == [(None,)]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["total_01", "orders_name"])
def test_a_squashed_history_wants_consent_where_no_backup_tells(shop: Migrated, target: str) -> None:
    """Its first revision is empty, as the tables were there already: it cannot be built from an empty database."""
    shop.write(SQUASHED)
    before = look(shop)
    words = ("--type=schema", f"--to-revision={target}")
    run = shop.rollback(*words)
    told = ("does not build the schema from an empty database", f"no verified backup at {target}", "--allow-drift")
    require_refusal(shop, run, COMPARED, *told, before=before)
    assert shop.backups() == []

    agreed = shop.rollback(*words, "--allow-drift")

    assert agreed.status == 0, agreed.output
    assert shop.heads() == [target]
    assert "unverified the schema afterwards" in agreed.output


@pytest.mark.slow
def test_a_history_that_makes_nothing_at_all_is_one_that_was_begun_on_a_database(shop: Migrated) -> None:
    """Every revision is harmless on an empty database, so that it builds none of the tables."""
    harmless = Script("comment_01", "total_01", "op.execute('SELECT 1')", "op.execute('SELECT 2')")
    shop.write((SQUASHED[0], harmless))
    shop.execute("UPDATE alembic_version SET version_num = 'comment_01'")
    before = look(shop)
    run = shop.rollback("--type=schema", "--to-revision=total_01")
    require_refusal(shop, run, COMPARED, "the history makes no table", "--allow-drift", before=before)


def backed_up_at_total(shop: Migrated) -> str:
    """Take a backup at the revision total_01, go up again, and squash what is below it; return the backup's id."""
    shop.alembic("downgrade", "total_01")
    backup = back_up(shop)
    shop.alembic("upgrade", "heads")
    shop.write(SQUASHED)
    return backup


@pytest.mark.parametrize("ending", [".zip", pytest.param(".sql", marks=pytest.mark.slow)])
def test_a_squashed_history_is_held_against_the_newest_backup_at_its_target(shop: Migrated, ending: str) -> None:
    """A bundle has a custom dump; a database alone, without files, has plain SQL."""
    if ending == ".zip":
        (shop.folder / "files").mkdir()
        shop.describe(filestore=str(shop.folder / "files"))
    backup = backed_up_at_total(shop)
    assert f"{backup}{ending}" in shop.backups()
    run = shop.rollback(*DOWN)
    assert run.status == 0, run.output
    assert f"was compared with the backup {backup}" in run.output
    require_rolled_back(shop)


@pytest.mark.slow
def test_what_a_squashed_history_leaves_is_found_in_that_backup(shop: Migrated) -> None:
    backup = backed_up_at_total(shop)
    first, orders, customers = SQUASHED
    left = Script(orders.id, orders.down, orders.upgrade, f"{orders.downgrade}\nop.execute('CREATE TYPE t AS ENUM ()')")
    shop.write((first, left, customers))
    before = look(shop)
    run = shop.rollback(*DOWN)
    words = (f"The rehearsed schema is not what the backup {backup} has, at total_01", "TYPE public.t: extra")
    require_refusal(shop, run, REHEARSE, *words, before=before)


@pytest.mark.slow
def test_a_backup_at_another_revision_or_of_somebody_else_tells_nothing(shop: Migrated) -> None:
    backed_up_at_total(shop)
    (sidecar,) = shop.project.store.glob("*.manifest.json")
    text = sidecar.read_text()
    before = look(shop)
    for old, new in (('"total_01"', '"orders_01"'), ('"target": "shop"', '"target": "another"')):
        assert old in text
        sidecar.write_text(text.replace(old, new))
        run = shop.rollback(*DOWN)
        require_refusal(shop, run, COMPARED, "no verified backup at total_01", before=before)


@pytest.mark.slow
def test_a_backup_that_was_damaged_is_not_believed(shop: Migrated) -> None:
    backup = backed_up_at_total(shop)
    (bundle,) = shop.project.store.glob(f"{backup}.sql")
    data = bytearray(bundle.read_bytes())
    data[len(data) // 2] ^= 1
    bundle.write_bytes(data)
    before = look(shop)
    run = shop.rollback(*DOWN)
    require_refusal(shop, run, COMPARED, "is not what was backed up", before=before)
