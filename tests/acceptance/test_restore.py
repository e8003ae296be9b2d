"""`pytest actions/test_restore.py`, all goes well: what is live afterwards, what is kept, and who noticed it."""

from __future__ import annotations

import hashlib
import pwd
import secrets
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.lab.action_run import make_project
from tests.lab.application import file_contents, running_application, table_contents
from tests.lab.foreign_inputs import dump
from tests.lab.listeners import Cron, busy_clients
from tests.lab.possessions import MODE, OWNER, give_files_away, oid_of, properties_of
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import ATTACHMENTS, ENVIRONMENT, RESTORE, TARGET, Restorable, databases_of, drop_others

pytest_plugins = ["tests.lab.shop"]
CLIENTS = 10
# Between two answers a client waits for the swap, and on a busy machine for its turn.
LONGEST_GAP = 10.0


def test_ten_clients_that_connect_again_and_again_are_soon_back_and_a_larger_database_gives_way(
    shop: Restorable, record_property: Any
) -> None:
    shop.execute(
        "CREATE TABLE IF NOT EXISTS ballast AS SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 100000) i"
    )
    before = oid_of(shop)
    with Cron(shop.application) as cron, busy_clients(shop.application, CLIENTS) as clients:
        run = shop.restore()
    assert run.status == 0, run.output
    assert shop.live_contents() == shop.contents
    assert {client.oid for client in clients} == {oid_of(shop)} != {before}
    assert min(client.failures for client in clients) > 0
    longest = max(client.gap for client in clients)
    record_property("longest_gap_seconds", round(longest, 3))
    assert longest < LONGEST_GAP
    assert cron.seen == {shop.name}


def test_where_nothing_is_live_the_backup_becomes_it(shop: Restorable) -> None:
    shop.server.drop_database(shop.name)
    shutil.rmtree(shop.application.filestore)
    run = shop.restore()
    assert run.status == 0, run.output
    assert shop.live_contents() == shop.contents
    assert file_contents(shop.application.filestore) == shop.files
    assert shop.databases() == {shop.name: (True, False)}
    found = properties_of(shop)
    assert found["row"][:3] == (shop.application.role, "the shop's", -1)
    assert found["settings"] == [("-", "work_mem=5MB")]
    assert "nothing was live; safety backup none" in run.output
    assert len(shop.stored()) == 1


def test_an_empty_live_database_is_replaced_and_kept(shop: Restorable) -> None:
    shop.server.drop_database(shop.name)
    shop.server.create_database(shop.name, owner=shop.application.role)
    give_files_away(shop.application.filestore)
    folder = shop.application.attachments()[0].parent
    shutil.rmtree(folder)
    run = shop.restore()
    assert run.status == 0, run.output
    assert shop.live_contents() == shop.contents
    assert shop.contents_of_parked(shop.parked()[0]) == {}
    made, account = folder.stat(), pwd.getpwnam(OWNER)
    assert (made.st_uid, made.st_gid, stat.S_IMODE(made.st_mode)) == (account.pw_uid, account.pw_gid, MODE)


@pytest.mark.parametrize(("form", "ending"), [("custom", ".dump"), ("plain", ".sql")])
def test_a_dump_that_another_tool_made_is_restored_by_its_path(
    shop: Restorable, tmp_path: Path, form: str, ending: str
) -> None:
    shop.execute("DELETE FROM mail_message WHERE id % 7 = 0")
    wanted = shop.live_contents()
    path = dump(shop.server, shop.name, tmp_path / f"by hand{ending}", form)
    shop.execute("DELETE FROM mail_message")
    before = properties_of(shop)
    run = shop.restore(f"--backup={path}")
    assert run.status == 0, run.output
    assert shop.live_contents() == wanted
    assert properties_of(shop) == before
    assert "unverified" in run.output
    assert path.exists()


def test_a_copy_of_production_belongs_to_the_role_that_takes_the_place_of_its_owner(
    shop: Restorable, system_postgres: PostgresServer, tmp_path: Path
) -> None:
    with running_application(system_postgres, tmp_path, attachments=3) as erp:
        own = {"odoo_conf": str(erp.odoo_conf), "pg_bindir": str(system_postgres.bindir)}
        production = {"erp": {**own, "backup_dir": str(tmp_path / "store")}}
        shop.project.write_inventory({"prod": production, ENVIRONMENT: {TARGET: dict(shop.variables)}})
        backup = shop.project.run(env="prod")
        assert backup.status == 0, backup.output
        with erp.connect() as connection:
            wanted = table_contents(connection)
        refused = shop.restore("--from=prod/erp", "--dry-run")
        run = shop.restore("--from=prod/erp", "--keep-identity", f"--map-role={erp.role}={shop.application.role}")
        drop_others(erp)
    assert refused.status != 0
    assert f"a role {erp.role!r}" in refused.failed_step().message
    assert "--map-role" in refused.failed_step().message
    assert run.status == 0, run.output
    assert shop.live_contents() == wanted
    owners = shop.query("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert owners == [(shop.application.role,)]
    for *_, name, checksum, _ in shop.query(ATTACHMENTS):
        data = (shop.application.filestore / name).read_bytes()
        assert hashlib.sha1(data, usedforsecurity=False).hexdigest() == checksum


def test_a_file_that_is_sound_by_now_is_not_replaced_by_the_damaged_one_of_the_backup(shop: Restorable) -> None:
    """Whose name is its SHA-1 can only be replaced by the same bytes or by wrong ones."""
    with shop.application.connect() as connection:
        (first,) = connection.execute("SELECT store_fname FROM ir_attachment ORDER BY id LIMIT 1").fetchone() or ("",)
    path = shop.application.filestore / first
    sound = path.read_bytes()
    shop.set(accept_missing_files=1)
    path.write_bytes(b"x" * len(sound))
    shop.take_backup()
    path.write_bytes(sound)
    run = shop.restore()
    assert path.read_bytes() == sound
    assert run.status == 0, run.output


def test_a_scratch_database_of_another_role_is_in_nobodys_way(shop: Restorable) -> None:
    """A deep verification that a superuser has run was killed; whoever restores may not drop what it left."""
    left = f"{shop.name}__scratch_20260131020000"
    shop.server.create_database(left)
    with shop.server.connect() as connection:
        connection.execute(f'ALTER DATABASE "{left}" IS_TEMPLATE true'.encode())
    try:
        runs = shop.restore(), shop.recover()
    finally:
        with shop.server.connect() as connection:
            connection.execute(f'ALTER DATABASE "{left}" IS_TEMPLATE false'.encode())
        shop.server.drop_database(left)
    for run in runs:
        assert run.status == 0, run.output
        assert f"What an earlier look has left stays: Database {left!r} cannot be dropped" in run.output


def test_a_database_without_a_table_comes_back_too(wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    name, project = f"bare_{secrets.token_hex(4)}", make_project(tmp_path / "project")
    address = wheel_postgres.create_database(name, "CREATE FUNCTION one() RETURNS int LANGUAGE sql RETURN 1")
    own = {"database_url": wheel_postgres.url(name), "backup_dir": str(project.store)}
    project.write_inventory({ENVIRONMENT: {TARGET: {**own, "pg_bindir": str(wheel_postgres.bindir)}}})
    try:
        assert project.run(env=ENVIRONMENT).status == 0
        with wheel_postgres.connect(name) as connection:
            connection.execute("DROP FUNCTION one")
        run = project.run(action=RESTORE, env=ENVIRONMENT)
        assert run.status == 0, run.output
        with wheel_postgres.connect(name) as connection:
            assert connection.execute("SELECT one()").fetchone() == (1,)
    finally:
        for one in databases_of(wheel_postgres, address.name):
            wheel_postgres.drop_database(one)
