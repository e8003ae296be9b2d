"""`pytest actions/test_cleanup.py` for real: what goes, what stays and why, in a folder and in a bucket."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from opsproof.archive.catalogue.index import write_index
from opsproof.archive.catalogue.retention import Rules
from opsproof.archive.catalogue.verdict import verdict_name
from opsproof.archive.names import sidecar_name
from opsproof.policies import Retention
from opsproof.procedures.cleanup.stocktaking import take_stock
from opsproof.system.postgres.lock import hold_lock
from opsproof.system.store import Store, open_store
from opsproof.target import DirectoryStoreSettings
from tests.lab.action_run import ActionRun, Project, require_failure
from tests.lab.application import Application
from tests.lab.backup_runs import describe
from tests.lab.bucket import Bucket, use_credentials
from tests.lab.full_bucket import counted_requests, full_bucket
from tests.lab.stocks import put_backup, put_backups

CLEANUP = "actions/test_cleanup.py"
JOURNALS = "journals/"
NOW = datetime.now(UTC).replace(microsecond=0)
DAY = timedelta(days=1)
RULES = Rules(Retention(daily=7, weekly=4, monthly=12, yearly=5))
OLD = 40


def clean(project: Project, *arguments: str, **how: Any) -> ActionRun:
    return project.run(*arguments, action=CLEANUP, **how)


def contents(folder: Path) -> Mapping[str, bytes]:
    """Return what is in a store, but for the journals that runs which are no dry ones leave there."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(JOURNALS)}


def listing(store: Store) -> set[str]:
    return {one.name for one in store.list() if not one.name.startswith(("index/", JOURNALS))}


def backups(folder: Path) -> set[str]:
    return {path.stem for path in folder.glob("*.zip")}


@pytest.fixture
def store(project: Project) -> Store:
    return open_store(DirectoryStoreSettings(project.store), "")


@pytest.fixture
def stock(application: Application, store: Store) -> dict[str, str]:
    """A store with one backup of every fate: its role -> its id."""
    name = application.name
    return {
        "last": put_backup(store, NOW - DAY, database=name),
        "damaged": put_backup(store, NOW - 2 * DAY, database=name),
        "kept": put_backup(store, NOW - 5 * DAY, database=name),
        "old": put_backup(store, NOW - OLD * DAY, database=name),
        "older": put_backup(store, NOW - 2 * OLD * DAY, database=name),
        "safety": put_backup(store, NOW - OLD * DAY + timedelta(hours=1), database=name, kind="safety"),
        "staging": put_backup(store, NOW - 3 * OLD * DAY, database=name, environment="staging"),
        "other": put_backup(store, NOW - 4 * OLD * DAY, database=name, target="crm"),
        "unverified": put_backup(store, NOW - 5 * OLD * DAY, database=name, has_sidecar=False),
    }


def test_the_dry_run_changes_nothing_and_says_why_and_the_real_one_does_what_it_said(
    application: Application, project: Project, store: Store, stock: dict[str, str]
) -> None:
    describe(project, application, retention={"last": 2})
    store.put_small(verdict_name(stock["damaged"], NOW, "failed"), b"{}")
    store.put_small(verdict_name(stock["old"], NOW, "passed"), b"{}")
    store.put_small(f"{stock['old']}.manifest.sig", b"signed")
    store.put_small("notes.txt", b"somebody's")
    before = contents(project.store)

    dry = clean(project, "--dry-run")
    assert dry.status == 0, dry.output
    assert contents(project.store) == before
    assert not (project.store / JOURNALS).exists()
    for line in (
        f"remove {stock['old']} ",
        f"remove {stock['older']} ",
        f"remove {stock['safety']} ",
        "no rule keeps it",
        "a safety backup older than 14 days",
        f"keep {stock['last']}: the last verified backup; one of the 2 last",
        f"remove {stock['damaged']} ",
        f"keep {stock['kept']}: one of the 2 last",
        "keep 1 backup of another target: staging/shop",
        "keep 1 backup of another target: prod/crm",
        f"keep {stock['unverified']}: not recognised: no manifest beside it",
        "keep what is no backup: notes.txt",
    ):
        assert line in dry.output, line

    run = clean(project)
    assert run.status == 0, run.output
    gone = {stock[role] for role in ("old", "older", "safety", "damaged")}
    assert backups(project.store) == set(stock.values()) - gone
    assert {name for name in contents(project.store) if name.startswith(tuple(gone))} == set()
    assert run.named("cleaned up")[0]["removed"] == sorted(gone)
    assert len(list(project.store.glob("index/*.json.gz"))) == 1

    after = contents(project.store)
    again = clean(project)
    assert again.status == 0, again.output
    assert contents(project.store) == after
    assert again.named("cleaned up")[0]["removed"] == []
    assert again.named("stock taken")[0]["manifests_read"] == 0


def test_a_span_alone_leaves_the_last_one_however_old_it_is(
    application: Application, project: Project, store: Store
) -> None:
    describe(project, application)
    refused = clean(project)
    message = require_failure(refused, "test_rules_say_what_is_kept", "Nothing says which backups are kept")
    assert "retention: {daily: 7" in message
    put_backups(store, [NOW - days * DAY for days in (100, 90, 80)], database=application.name)
    run = clean(project, "--older-than=30d")
    assert run.status == 0, run.output
    assert len(backups(project.store)) == 1
    assert run.named("cleaned up")[0]["done"][0].startswith("2 backups removed")


def test_a_table_that_is_newer_than_the_last_backup_does_not_go(application: Application, project: Project) -> None:
    describe(project, application, retention={"last": 3}, artifacts={"tables": ["legacy_*"]})
    with application.server.connect(application.name, application.role, application.password) as connection:
        connection.execute("CREATE TABLE legacy_old AS SELECT generate_series(1, 5) AS n")
        connection.execute("CREATE TABLE legacy_log (n int) PARTITION BY RANGE (n)")
        connection.execute("CREATE TABLE legacy_log_all PARTITION OF legacy_log DEFAULT")
        assert project.run().status == 0
        connection.execute("CREATE TABLE legacy_new AS SELECT generate_series(1, 7) AS n")
        connection.execute("INSERT INTO legacy_log VALUES (1)")
    run = clean(project)
    message = require_failure(
        run,
        "test_what_goes_from_the_database_is_in_a_backup",
        "holds what would go from its database",
        "public.legacy_log_all: 1 row",
        "public.legacy_new: 7 rows",
    )
    assert "pytest actions/test_backup.py --env=prod --target=shop" in message
    assert "legacy_old" not in message
    with application.connect() as connection:
        assert connection.execute("SELECT count(*) FROM legacy_new").fetchone() == (7,)
    assert project.run().status == 0
    again = clean(project)
    assert again.status == 0, again.output
    with application.connect() as connection:
        assert connection.execute("SELECT FROM pg_class WHERE relname LIKE 'legacy%'").fetchall() == []


def test_nothing_goes_for_a_last_backup_that_cannot_be_read(
    application: Application, project: Project, store: Store
) -> None:
    """A disk that forgets changes no time of a file: the index goes on to say that its manifest is whole."""
    describe(project, application)
    moments = [NOW - days * DAY for days in (100, 90, 80)]
    *_, last = [put_backup(store, moment, database=application.name) for moment in moments]
    assert clean(project, "--older-than=95d").status == 0
    assert len(backups(project.store)) == 2
    path = project.store / sidecar_name(last)
    status = path.stat()
    path.write_bytes(b"\0" * status.st_size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    before = backups(project.store)
    run = clean(project, "--older-than=30d")
    message = require_failure(run, "test_remove_backups", f"The last verified backup, {last}, cannot be read")
    assert "pytest actions/test_backup.py" in message
    assert backups(project.store) == before


def test_a_run_that_is_killed_over_it_is_finished_by_the_next(
    application: Application, project: Project, store: Store
) -> None:
    describe(project, application, retention={"last": 3})
    put_backups(store, [NOW - days * DAY for days in range(200)], database=application.name)
    with project.begin(action=CLEANUP) as begun:
        begun.wait_until(lambda: len(list(project.store.glob("*.manifest.json"))) < 200)
        begun.send(signal.SIGKILL)
        begun.process.wait()
    left = {path.name.removesuffix(".manifest.json") for path in project.store.glob("*.manifest.json")}
    assert left <= backups(project.store), "a manifest without its backup"
    assert len(left) >= 3
    run = clean(project)
    assert run.status == 0, run.output
    assert len(backups(project.store)) == 3
    assert len(list(project.store.glob("*.manifest.json"))) == 3


def test_nothing_goes_while_another_run_is_at_work(
    application: Application, project: Project, store: Store, stock: dict[str, str]
) -> None:
    describe(project, application, retention={"last": 1})
    before = contents(project.store)
    with hold_lock(application.address, "restore"):
        run = clean(project)
    require_failure(run, "test_take_lock", "Another run of opsproof is at work", "opsproof restore")
    assert contents(project.store) == before


@pytest.fixture
def bucketed(
    application: Application, project: Project, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> tuple[Store, dict[str, Any]]:
    """A store in a bucket, and the inventory's words for it."""
    use_credentials(monkeypatch, bucket.server)
    project.environ.update(bucket.server.variables)
    words = {"bucket": bucket.name, "region": "us-east-1", "endpoint_url": bucket.server.url}
    return bucket.store(), words


def test_locked_backups_stay_in_a_bucket_and_old_versions_go_by_the_policy(
    application: Application, project: Project, bucket: Bucket, bucketed: tuple[Store, dict[str, Any]]
) -> None:
    store, words = bucketed
    bucket.enable_versioning()
    bucket.client.put_object_lock_configuration(
        Bucket=bucket.name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled"}
    )
    own: dict[str, Any] = {"database": application.name, "customer": "acme"}
    ids = [put_backup(store, NOW - days * DAY, **own) for days in (0, 40, 50, 60, 70)]
    staging = put_backup(store, NOW - 90 * DAY, environment="staging", **own)
    prefix = store.location.partition(f"{bucket.name}/")[2]
    until = NOW + 30 * DAY
    bucket.client.put_object_retention(
        Bucket=bucket.name,
        Key=f"{prefix}{ids[2]}.zip",
        Retention={"Mode": "GOVERNANCE", "RetainUntilDate": until},
    )
    bucket.client.put_object_legal_hold(
        Bucket=bucket.name, Key=f"{prefix}{sidecar_name(ids[3])}", LegalHold={"Status": "ON"}
    )
    describe(project, application, customer="acme", store=words, retention={"last": 1})
    before = bucket.keys()
    dry = clean(project, "--dry-run")
    assert dry.status == 0, dry.output
    assert bucket.keys() == before
    assert f"keep {ids[2]}: locked until {until:%Y-%m-%d %H:%M:%S} UTC (GOVERNANCE)" in dry.output
    assert f"keep {ids[3]}: under a legal hold" in dry.output

    run = clean(project)
    assert run.status == 0, run.output
    stays = {ids[0], ids[2], ids[3], staging}
    listed = listing(store)
    assert listed == {name for one in stays for name in (f"{one}.zip", sidecar_name(one))}
    # Without the policy's word a bucket with versions keeps what was deleted.
    assert {one.name for one in store.old_versions()} >= {f"{ids[1]}.zip", f"{ids[4]}.zip"}

    put_backup(store, NOW - 80 * DAY, **own)
    describe(project, application, customer="acme", store=words, retention={"last": 1, "noncurrent": True})
    last = clean(project)
    assert last.status == 0, last.output
    assert not [one for one in store.old_versions() if f"{NOW - 80 * DAY:%Y-%m-%d}" in one.name]
    assert listed == listing(store)


@pytest.mark.slow
def test_planning_with_the_index_takes_a_request_per_thousand_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    backups = 1500
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with full_bucket(backups) as full:
        target, bucket = full.target, full.store
        first = take_stock(target, bucket, RULES, {}, datetime.now(UTC))
        assert first.contents.read == backups
        write_index(bucket, first.contents.lines.values(), datetime.now(UTC))
        with counted_requests() as sent:
            stock = take_stock(target, bucket, RULES, {}, datetime.now(UTC))
    assert (stock.contents.read, stock.decisions) == (0, first.decisions)
    assert len(stock.going) > 1000
    listings = [one for one in sent if "list-type=2" in one]
    assert len(listings) == 4  # 3,001 objects
    assert len([one for one in sent if "index/" in one]) == 1
    assert len(sent) <= len(listings) + 1 + 5  # the index, and what the bucket's settings take
