"""`pytest actions/test_restore.py`, all goes well: what is live afterwards, what is kept, and who noticed it."""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import secrets
import shutil
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

import actions.test_restore
from tests.lab.action_run import ActionRun
from tests.lab.application import file_contents, running_application, table_contents
from tests.lab.foreign_inputs import dump
from tests.lab.listeners import Cron, busy_clients
from tests.lab.moto_server import S3Server
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import ATTACHMENTS, ENVIRONMENT, TARGET, Restorable, drop_others, restorable

pytest_plugins = ["tests.lab.shop"]

STEPS = [name for name in vars(actions.test_restore.TestRestore) if name.startswith("test_")]
WRITTEN = {"public.ir_attachment", "public.mail_message"}
# Whom the files are given to; another account than the one that runs the tests can only be chosen by root.
OWNER = "nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
MODE = 0o750
CLIENTS = 10
# Between two answers a client waits for the swap, and on a busy machine for its turn.
LONGEST_GAP = 10.0


@dataclass(frozen=True)
class RoundTrip:
    """A restore under a writer, with what was before it.

    Attributes:
        properties: Of the live database, before and after.
        deleted: Files that were removed after the backup.
        damaged: One that was written over.
        stray: One that came after the backup.
    """

    shop: Restorable
    run: ActionRun
    cron: Cron
    properties: tuple[Mapping[str, Any], Mapping[str, Any]]
    oid: int
    deleted: tuple[Path, ...]
    damaged: Path
    stray: Path


def _make_round_trip(shop: Restorable, reader: sql.Identifier) -> RoundTrip:
    application = shop.application
    _give_files_away(application.filestore)
    database, role = sql.Identifier(shop.name), sql.Identifier(application.role)
    with application.server.connect(shop.name, application.role, application.password) as connection:
        for statement in (
            # What the live database is like counts, not what it was like at the time of the backup.
            sql.SQL("REVOKE TEMPORARY ON DATABASE {} FROM PUBLIC").format(database),
            sql.SQL("GRANT CONNECT, CREATE ON DATABASE {} TO {} WITH GRANT OPTION").format(database, reader),
            sql.SQL("COMMENT ON DATABASE {} IS 'Müller''s \"shop\" %d'").format(database),
            sql.SQL("ALTER DATABASE {} SET work_mem = '6MB'").format(database),
            sql.SQL('ALTER DATABASE {} SET search_path = public, "Odd, one"').format(database),
            sql.SQL("ALTER ROLE {} IN DATABASE {} SET statement_timeout = '90s'").format(role, database),
            sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 37").format(database),
            sql.SQL("DELETE FROM account_move"),
            sql.SQL("UPDATE res_partner SET name = 'spoiled' WHERE id <= 100"),
            sql.SQL("CREATE TABLE came_later (a int)"),
        ):
            connection.execute(statement)
        stray = application.attach(connection, b"came after the backup")
        files = [application.filestore / name for _, _, name, _, _ in shop.committed]
        *deleted, damaged = files[:4]
        for path in deleted:
            connection.execute("DELETE FROM ir_attachment WHERE checksum = %s", (path.name,))
            path.unlink()
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    before, oid = properties_of(shop), _oid(shop)
    with Cron(application) as cron:
        run = shop.restore()
    return RoundTrip(shop, run, cron, (before, properties_of(shop)), oid, tuple(deleted), damaged, stray)


def _give_files_away(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, OWNER, grp.getgrgid(pwd.getpwnam(OWNER).pw_gid).gr_name)
        if path.is_dir():
            path.chmod(MODE)


def _oid(shop: Restorable) -> int:
    return int(shop.query("SELECT oid::bigint FROM pg_database WHERE datname = current_database()")[0][0])


def properties_of(shop: Restorable) -> Mapping[str, Any]:
    """Return all that a database is besides its content."""
    (row,) = shop.query(
        "SELECT pg_get_userbyid(datdba), shobj_description(oid, 'pg_database'), datconnlimit, encoding, datcollate,"
        " datctype, datallowconn, datistemplate FROM pg_database WHERE datname = current_database()"
    )
    grants = shop.query(
        "SELECT grantor::regrole::text, grantee::regrole::text, privilege_type, is_grantable"
        " FROM pg_database, aclexplode(datacl) WHERE datname = current_database() ORDER BY 1, 2, 3, 4"
    )
    settings = shop.query(
        "SELECT setrole::regrole::text, unnest(setconfig) FROM pg_db_role_setting JOIN pg_database d"
        " ON d.oid = setdatabase WHERE datname = current_database() ORDER BY 1, 2"
    )
    return {"row": row, "grants": grants, "settings": settings}


def require_every_step_in_the_xml(round_trip: RoundTrip) -> None:
    run, shop = round_trip.run, round_trip.shop
    assert run.status == 0, run.output
    assert [(case.step, case.outcome, case.target) for case in run.cases] == [
        (step, "passed", TARGET) for step in STEPS
    ]
    found = run.cases[-1].properties
    totals = shop.backup.manifest.totals
    assert (found["restore_backup"], found["restore_parked"]) == (shop.backup.id, shop.parked()[0])
    assert found["restore_location"].endswith(f"/{shop.backup.name}")
    assert (int(found["restore_tables"]), int(found["restore_rows"])) == (totals.tables, totals.rows)
    assert (int(found["restore_files_added"]), int(found["restore_files_repaired"])) == (len(round_trip.deleted), 1)
    outage = {name: float(found[f"outage_{name}"]) for name in ("stop", "swap", "start", "healthy", "total")}
    assert min(outage["stop"], outage["swap"], outage["start"]) > 0
    parts = sum(seconds for name, seconds in outage.items() if name != "total")
    assert parts - 0.01 <= outage["total"] < parts + 10
    (event,) = run.named("outage")
    assert event["total"] == pytest.approx(outage["total"], abs=0.01)
    assert float(found["seconds_load"]) > 0


def require_summary(round_trip: RoundTrip) -> None:
    output, found = round_trip.run.output, round_trip.run.cases[-1].properties
    summary = output[output.index("shop: backup") :].splitlines()
    assert summary[0] == f"shop: backup {round_trip.shop.backup.id} is live and proven"
    assert summary[3].startswith("  identity ")
    assert f"{len(round_trip.deleted)} added, 1 repaired" in summary[4]
    assert summary[5].startswith(f"  outage     {float(found['outage_total']):.1f} s: stop ")
    assert summary[6] == f"  before     {found['restore_parked']}; safety backup {found['restore_safety']}"


def require_committed_rows(round_trip: RoundTrip) -> None:
    shop = round_trip.shop
    contents = shop.live_contents()
    assert {name: found for name, found in contents.items() if name not in WRITTEN} == {
        name: found for name, found in shop.contents.items() if name not in WRITTEN
    }
    attachments = shop.query(ATTACHMENTS)
    assert attachments[: len(shop.committed)] == list(shop.committed)
    assert len(shop.committed) >= 12
    # What was written from the snapshot on is gone, and the application has gone on from there.
    assert round_trip.stray.name not in {checksum for *_, checksum, _ in attachments}
    assert shop.contents["public.mail_message"][0] < contents["public.mail_message"][0]


def require_every_attachment(round_trip: RoundTrip) -> None:
    shop = round_trip.shop
    for *_, name, checksum, size in shop.query(ATTACHMENTS):
        data = (shop.application.filestore / name).read_bytes()
        assert (hashlib.sha1(data, usedforsecurity=False).hexdigest(), len(data)) == (checksum, size)


def require_files_as_the_others(round_trip: RoundTrip) -> None:
    group = pwd.getpwnam(OWNER).pw_gid
    for path in (*round_trip.deleted, round_trip.damaged):
        status = path.stat()
        assert (status.st_uid, status.st_gid) == (pwd.getpwnam(OWNER).pw_uid, group)
        assert stat.S_IMODE(status.st_mode) == 0o640
        assert hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest() == path.name
    assert round_trip.stray.exists()
    assert list(round_trip.shop.application.filestore.rglob("*opsproof*")) == []


def require_properties_of_before(round_trip: RoundTrip) -> None:
    before, after = round_trip.properties
    assert after == before
    assert before["row"][:3] == (round_trip.shop.application.role, 'Müller\'s "shop" %d', 37)
    assert len(before["settings"]) == 3
    assert any(role.startswith('"reader') for _, role, _, _ in before["grants"])


def require_old_one_kept(round_trip: RoundTrip) -> None:
    shop = round_trip.shop
    (parked,) = shop.parked()
    assert shop.databases() == {shop.name: (True, False), parked: (False, False)}
    with shop.server.connect() as connection:
        rows = connection.execute("SELECT datname, oid::bigint FROM pg_database").fetchall()
    oids: dict[str, int] = dict(rows)
    assert oids[parked] == round_trip.oid != oids[shop.name]
    with shop.server.connect() as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(parked)))
    with shop.server.connect(parked) as connection:
        contents = table_contents(connection)
    assert (contents["public.came_later"][0], contents["public.account_move_2025"][0]) == (0, 0)
    with shop.server.connect() as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(parked)))


def require_cron_saw_nothing(round_trip: RoundTrip) -> None:
    assert round_trip.cron.looks > 100
    assert round_trip.cron.seen == {round_trip.shop.name}


def require_service_and_no_litter(round_trip: RoundTrip) -> None:
    shop = round_trip.shop
    assert shop.service is not None
    assert "RUNNING" in shop.service.control("status")
    assert shop.service.is_healthy()
    assert shop.project.litter() == []


@pytest.mark.parametrize(("kind", "store"), [("wheel", "folder"), ("system", "S3")])
def test_under_a_writer_all_of_the_backup_comes_back_and_all_of_the_old_is_kept(
    request: pytest.FixtureRequest, moto_server: S3Server, kind: str, store: str
) -> None:
    # One test for one run: divided among workers, each of them would make the run anew.
    server: PostgresServer = request.getfixturevalue(f"{kind}_postgres")
    reader = sql.Identifier(f"reader {secrets.token_hex(4)}")
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(reader))
    with restorable(server, s3=moto_server if store == "S3" else None, served=True) as shop:
        round_trip = _make_round_trip(shop, reader)
        require_every_step_in_the_xml(round_trip)
        require_summary(round_trip)
        require_committed_rows(round_trip)
        require_every_attachment(round_trip)
        require_files_as_the_others(round_trip)
        require_properties_of_before(round_trip)
        require_old_one_kept(round_trip)
        require_cron_saw_nothing(round_trip)
        require_service_and_no_litter(round_trip)
    with server.connect() as connection:
        connection.execute(sql.SQL("DROP ROLE {}").format(reader))


def test_ten_clients_that_connect_again_and_again_are_soon_back_and_a_larger_database_gives_way(
    shop: Restorable, record_property: Any
) -> None:
    shop.execute(
        "CREATE TABLE IF NOT EXISTS ballast AS SELECT i, repeat(md5(i::text), 8) FROM generate_series(1, 100000) i"
    )
    before = _oid(shop)
    with Cron(shop.application) as cron, busy_clients(shop.application, CLIENTS) as clients:
        run = shop.restore()
    assert run.status == 0, run.output
    assert shop.live_contents() == shop.contents
    assert {client.oid for client in clients} == {_oid(shop)} != {before}
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
    _give_files_away(shop.application.filestore)
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
