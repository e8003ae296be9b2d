"""What a cleanup takes out of a server: tables and rows that migrations left, and parked databases past their time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from psycopg import sql

from opsproof.archive.manifest import SnapshotRecord
from opsproof.errors import ConfigurationError, DatabaseError, ProofError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.policies import Artifacts, Policies, Retention
from opsproof.procedures.cleanup.abandoned import find_folders, find_logs, find_uploads
from opsproof.procedures.cleanup.artifacts import delete_rows, drop_tables, find_artifacts, find_left
from opsproof.procedures.cleanup.parked import drop_parked, find_parked
from opsproof.procedures.cleanup.procedure import Cleanup
from opsproof.procedures.restore.workspace import Workspace
from opsproof.system.postgres.databases import parked_name, write_intent
from opsproof.system.postgres.server import connect, read_server
from opsproof.system.postgres.snapshot import open_snapshot
from opsproof.system.store import open_store
from opsproof.target import DirectoryStoreSettings, Target, ValidationSettings
from tests.lab.application import Application, running_application
from tests.lab.manifests import manifest_of
from tests.lab.postgres_server import PostgresServer
from tests.lab.stocks import put_backup

NOW = datetime.now(UTC)
DAY = timedelta(days=1)
LEFT = """
DROP SCHEMA IF EXISTS old CASCADE; DROP TABLE IF EXISTS legacy_a, legacy_b, legacy_c, legacy_d, legacy_used CASCADE;
DROP EXTENSION IF EXISTS hstore; DROP TABLE IF EXISTS legacy_log CASCADE;
CREATE TABLE legacy_a (id serial PRIMARY KEY, t text); INSERT INTO legacy_a (t) SELECT 'x' FROM generate_series(1, 7);
CREATE TABLE legacy_b (a int REFERENCES legacy_a, me int PRIMARY KEY, other int REFERENCES legacy_b);
CREATE TABLE legacy_c (id int PRIMARY KEY);
CREATE TABLE legacy_d (c int REFERENCES legacy_c, id int PRIMARY KEY);
CREATE TABLE legacy_used (id int);
CREATE VIEW over_d AS SELECT id FROM legacy_d;
CREATE SCHEMA old; CREATE TABLE old.legacy_e (id int); CREATE TABLE old."We[ird" (id int);
CREATE TABLE legacy_log (day date, t text) PARTITION BY RANGE (day);
CREATE TABLE legacy_log_1 PARTITION OF legacy_log DEFAULT;
"""


@pytest.fixture(scope="module")
def application(wheel_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    with running_application(wheel_postgres, tmp_path_factory.mktemp("application"), attachments=0) as application:
        yield application


def target_of(application: Application, folder: Path, **policies: object) -> Target:
    settings = DirectoryStoreSettings(folder / "store")
    known = Policies(**{"retention": Retention(last=1), **policies})  # type: ignore[arg-type]
    return Target("shop", "prod", application.address, settings, "", policies=known)


@pytest.fixture
def left(application: Application) -> None:
    with application.server.connect(application.name, application.role, application.password) as connection:
        for statement in LEFT.split(";"):
            connection.execute(statement.encode())


def fates(target: Target) -> dict[str, str]:
    return {one.name: one.stays for one in find_artifacts(target).tables}


@pytest.mark.usefixtures("left")
def test_tables_go_by_pattern_and_never_what_something_else_needs(application: Application, tmp_path: Path) -> None:
    target = target_of(application, tmp_path, artifacts=Artifacts(tables=("legacy_?", "legacy_log*", "legacy_used")))
    target = replace(target, validation=ValidationSettings(tables=("legacy_used",)))
    assert fates(target) == {
        "public.legacy_a": "",
        "public.legacy_b": "",
        "public.legacy_c": "constraint legacy_d_c_fkey on table public.legacy_d depends on it",
        "public.legacy_d": "rule _RETURN on view public.over_d depends on it",
        "public.legacy_log": "",
        "public.legacy_log_1": "it is a part of another table",
        "public.legacy_used": "the inventory's validation names it",
    }
    found = find_artifacts(target)
    assert [(one.rows, one.bytes > 0) for one in found.going if one.name == "public.legacy_a"] == [(7, True)]
    drop_tables(target, found.going, lambda _: None)
    assert find_left(target, found.going) == []
    query = "SELECT relname FROM pg_class WHERE relname ~ '^legacy_[a-z]+$' AND relkind IN ('r', 'p') ORDER BY 1"
    with application.connect() as connection:
        names = [row[0] for row in connection.execute(query)]
    assert names == ["legacy_c", "legacy_d", "legacy_e", "legacy_used"]
    assert not find_artifacts(target).is_anything


@pytest.mark.usefixtures("left")
def test_another_schema_has_to_be_named_and_brackets_are_letters(application: Application, tmp_path: Path) -> None:
    assert fates(target_of(application, tmp_path, artifacts=Artifacts(tables=("legacy_e",)))) == {}
    target = target_of(application, tmp_path, artifacts=Artifacts(tables=("old.legacy_*", "old.We[ird")))
    assert fates(target) == {"old.We[ird": "", "old.legacy_e": ""}
    assert fates(target_of(application, tmp_path, artifacts=Artifacts(tables=("res_user?", "alembic_*")))) == {
        "public.alembic_version": "the application cannot do without it"
    }


@pytest.mark.usefixtures("left")
def test_a_table_that_is_another_one_by_now_keeps_all_of_them(application: Application, tmp_path: Path) -> None:
    target = target_of(application, tmp_path, artifacts=Artifacts(tables=("legacy_a", "legacy_b")))
    found = find_artifacts(target)
    with application.server.connect(application.name, application.role, application.password) as connection:
        connection.execute(b"DROP TABLE legacy_b; CREATE TABLE legacy_b (new int)")
    with pytest.raises(ProofError, match="another table by now"):
        drop_tables(target, found.going, lambda _: None)
    assert set(find_left(target, found.going)) == {"public.legacy_a"}
    with application.connect() as connection:
        connection.execute(b"CREATE VIEW new_view AS SELECT t FROM legacy_a")
    found = replace(found, tables=tuple(one for one in found.tables if one.name == "public.legacy_a"))
    with pytest.raises(DatabaseError, match="cannot be dropped"):
        drop_tables(target, found.going, lambda _: None)
    assert find_left(target, found.going) == ["public.legacy_a"]


@pytest.mark.parametrize("pattern", ["*", "?*", "public.*", "__*", "*.*"])
def test_a_pattern_of_anything_is_refused(application: Application, tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigurationError, match="would match any table"):
        find_artifacts(target_of(application, tmp_path, artifacts=Artifacts(tables=(pattern,))))


def count(application: Application) -> int:
    with application.connect() as connection:
        row = connection.execute(b"SELECT count(*) FROM public.mail_message").fetchone()
    return int(row[0]) if row else -1


def test_rows_are_explained_first_and_deleted_all_or_none(application: Application, tmp_path: Path) -> None:
    before = count(application)
    statement = "DELETE FROM mail_message\n WHERE id % 2 = 0"
    target = target_of(application, tmp_path, artifacts=Artifacts(rows=(statement,)))
    found = find_artifacts(target)
    assert found.rows[0].tables == ("mail_message",)
    assert found.rows[0].expected > 0
    assert count(application) == before

    bad = replace(found.rows[0], statement="DELETE FROM mail_message WHERE id / 0 = 1")
    with pytest.raises(DatabaseError, match="Rows cannot be deleted"):
        delete_rows(target, [found.rows[0], bad])
    assert count(application) == before
    assert delete_rows(target, found.rows) == {statement: before // 2}
    assert count(application) == before - before // 2


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM mail_message; DROP TABLE mail_message",
        "COMMIT; DELETE FROM mail_message",
        "DROP TABLE mail_message",
        "UPDATE mail_message SET body = ''",
        "TRUNCATE mail_message",
        "SELECT 1",
        "WITH gone AS (DELETE FROM mail_message RETURNING 1) SELECT count(*) FROM gone",
        "WITH x AS (UPDATE mail_message SET body = '' RETURNING id) DELETE FROM mail_message USING x WHERE false",
        "DELETE FROM no_such_table",
        "",
        "ANALYZE DELETE FROM mail_message",
    ],
)
def test_what_does_anything_else_than_delete_rows_is_refused_and_not_run(
    application: Application, tmp_path: Path, statement: str
) -> None:
    before = count(application)
    with pytest.raises(ConfigurationError, match="A statement of artifacts"):
        find_artifacts(target_of(application, tmp_path, artifacts=Artifacts(rows=(statement,))))
    assert count(application) == before


@pytest.mark.usefixtures("left")
def test_nothing_goes_from_the_database_without_a_fresh_backup(application: Application, tmp_path: Path) -> None:
    target = target_of(application, tmp_path, artifacts=Artifacts(tables=("legacy_a", "legacy_b")))
    store = open_store(target.store, "")

    def cleaning() -> Cleanup:
        cleanup = Cleanup(target, store, Journal(None), logs=tmp_path / "logs")
        cleanup.require_rules()
        cleanup.take_stock()
        cleanup.find_remains()
        return cleanup

    put_backup(store, NOW - 2 * DAY, database=application.name)
    with pytest.raises(ProofError, match="No verified backup of shop holds") as caught:
        cleaning().require_fresh_backup()
    assert "pytest actions/test_backup.py --env=prod --target=shop" in caught.value.hint
    put_backup(store, NOW - DAY * 0.9, database=application.name)
    with pytest.raises(ProofError, match="No verified backup of shop holds") as caught:
        cleaning().require_fresh_backup()
    assert "an older opsproof has taken it" in caught.value.found
    with connect(target.database) as connection, open_snapshot(connection) as snapshot:
        seen = SnapshotRecord(database_oid=snapshot.oid, oldest_unseen=snapshot.oldest_unseen)
        system = read_server(connection).system_identifier
    server = manifest_of().server.model_copy(update={"system_identifier": system})
    other = seen.model_copy(update={"database_oid": seen.database_oid + 1})
    put_backup(store, NOW - DAY * 0.8, database=application.name, snapshot=other, server=server)
    with pytest.raises(ProofError) as caught:
        cleaning().require_fresh_backup()
    assert "of another database than the one that is live now" in caught.value.found
    put_backup(store, NOW - DAY / 2, database=application.name, snapshot=seen, server=server)
    cleanup = cleaning()
    cleanup.require_fresh_backup()
    assert "drop table public.legacy_a (7 rows, " in "\n".join(cleanup.plan())
    try:
        cleanup.take_lock()
        cleanup.remove_backups()
        assert cleanup.clean_database() == {}
        assert cleanup.check_result() == 1
    finally:
        cleanup.close()
    assert "table public.legacy_a dropped, 7 rows" in cleanup.verdict


def intent_of(application: Application, parked: str, since: datetime, **changes: str) -> Intent:
    known = Intent("restore", "r", "prod", "shop", application.name, "", parked, "b1", "s1", "kept", (),
                   since.isoformat(), "ana@runner")  # fmt: skip
    return replace(known, **changes)  # type: ignore[arg-type]


@pytest.fixture
def parked(application: Application) -> Iterator[list[str]]:
    """Databases that bear intents: past, of an undo just now, recent, another environment's, unfinished, no intent."""
    names = [parked_name(application.name, NOW - days * DAY) for days in (20, 1, 2, 21, 22, 23)]
    with application.server.connect() as connection:
        for name in names:
            words = sql.Identifier(name), sql.Identifier(application.role)
            connection.execute(sql.SQL("CREATE DATABASE {} OWNER {} ALLOW_CONNECTIONS false").format(*words))
        for name, since, changes in zip(
            names[:5],
            [NOW - 20 * DAY, NOW - 30 * DAY, NOW - 2 * DAY, NOW - 21 * DAY, NOW - 22 * DAY],
            [{}, {}, {}, {"environment": "staging"}, {"stage": "stopping"}],
            strict=True,
        ):
            write_intent(connection, name, intent_of(application, name, since, **changes))
    yield names
    for name in names:
        application.server.drop_database(name)


def test_parked_databases_go_after_their_time_and_nothing_else_does(
    application: Application, tmp_path: Path, parked: list[str]
) -> None:
    target = target_of(application, tmp_path)
    found = find_parked(target, NOW)
    assert {one.name: one.is_past for one in found} == {parked[0]: True, parked[1]: False, parked[2]: False}
    past = next(one for one in found if one.is_past)
    assert past.bytes > 0
    with application.server.connect() as connection:
        write_intent(connection, past.name, replace(past.intent, run="another"))
        with pytest.raises(ProofError, match="another database by now"):
            drop_parked(target, past)
        write_intent(connection, past.name, past.intent)
        drop_parked(target, past)
        drop_parked(target, past)
        there = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
    assert there >= {application.name, *parked[1:]}
    assert past.name not in there


def test_what_an_unfinished_procedure_names_is_in_use(
    application: Application, tmp_path: Path, parked: list[str]
) -> None:
    target = target_of(application, tmp_path)
    store = open_store(target.store, "")
    put_backup(store, NOW, database=application.name)
    put_backup(store, NOW - 40 * DAY, database=application.name, id="s1")
    cleanup = Cleanup(target, store, Journal(None), logs=tmp_path)
    cleanup.require_rules()
    stock = cleanup.take_stock()
    assert stock.going == []
    assert "keep s1: in use: a restore of prod/shop that is not finished names it" in list(stock.plan())
    with pytest.raises(ProofError, match="was not brought to its end"):
        cleanup.require_nothing_unfinished()


def test_logs_folders_and_uploads_go_by_age_and_name(
    application: Application, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = tmp_path / "logs"
    folder.mkdir()
    old = datetime.now(UTC) + 100 * DAY
    names = ["backup_prod_2026-01-01_02-00-00.log", "backup_prod_2026-01-01_02-00-00_2.jsonl",
             "backup_staging_2026-01-01_02-00-00.log", "notes_2026-01-01.log", "backup_prod.log"]  # fmt: skip
    for name in names:
        (folder / name).touch()
    (folder / "restore_prod_2026-01-01_02-00-00.log").symlink_to(folder / names[0])
    assert [path.name for path in find_logs(folder, "prod", 90 * DAY, old)] == names[:2]
    assert find_logs(folder, "prod", 90 * DAY, NOW) == ()  # the files were written just now
    assert find_logs(tmp_path / "none", "prod", DAY, old) == ()

    at_work, killed = Workspace(), Workspace()
    killed._lock.close()
    assert find_folders() == (killed.path,)
    at_work.close()

    target = target_of(application, tmp_path)
    store = open_store(target.store, "")
    put_backup(store, NOW, database=application.name)
    own = tmp_path / "store" / f".{application.name}_2026-01-31_02-00-00.zip.part-999999-0123abcd"
    other = tmp_path / "store" / ".crm_2026-01-31_02-00-00.zip.part-999999-0123abcd"
    own.touch()
    other.touch()
    assert find_uploads(target, store, NOW + DAY) == ()
    assert [one.location for one in find_uploads(target, store, NOW + 3 * DAY)] == [str(own)]
