"""`pytest actions/test_restore.py` under a writer: all of the backup comes back, and all of the old one is kept."""

from __future__ import annotations

import hashlib
import pwd
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

import actions.test_restore
from tests.lab.action_run import ActionRun
from tests.lab.application import table_contents
from tests.lab.listeners import Cron
from tests.lab.moto_server import S3Server
from tests.lab.possessions import OWNER, give_files_away, oid_of, properties_of
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import ATTACHMENTS, TARGET, Restorable, restorable

STEPS = [name for name in vars(actions.test_restore.TestRestore) if name.startswith("test_")]
WRITTEN = {"public.ir_attachment", "public.mail_message"}


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
    give_files_away(application.filestore)
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
    before, oid = properties_of(shop), oid_of(shop)
    with Cron(application) as cron:
        run = shop.restore()
    return RoundTrip(shop, run, cron, (before, properties_of(shop)), oid, tuple(deleted), damaged, stray)


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
