"""When the store fails, refuses or corrupts: nothing new is in it, nothing unfinished either, and nothing left here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.lab.action_run import REPOSITORY, Project, make_project, require_failure
from tests.lab.application import Application, file_contents, running_application
from tests.lab.bucket import Bucket, make_bucket
from tests.lab.fault_proxy import Fault, FaultProxy
from tests.lab.moto_server import S3Server
from tests.lab.postgres_server import PostgresServer
from tests.lab.swift_server import swift_server

__all__ = ["swift_server"]

MIB = 1 << 20
QUICK = ["-p", "tests.lab.pause"]


@pytest.fixture(scope="module")
def application(wheel_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """One whose bundle is three parts: more than 16 MiB that cannot be compressed."""
    with running_application(wheel_postgres, tmp_path_factory.mktemp("application"), attachments=2) as application:
        with application.connect() as connection:
            for _ in range(2):
                application.attach(connection, os.urandom(9 * MIB))
        yield application


def project_with(folder: Path, application: Application, bucket: Bucket, url: str, **environ: str) -> Project:
    """Return a project whose backups go to the bucket by way of `url`."""
    variables = {**bucket.server.variables, "PYTHONPATH": str(REPOSITORY), **environ}
    project = make_project(folder / "project", **variables)
    store = {"bucket": bucket.name, "endpoint_url": url, "region": "us-east-1", "path_style": True}
    own = {"odoo_conf": str(application.odoo_conf), "pg_bindir": str(application.server.bindir)}
    project.write_inventory({"prod": {"shop": {**own, "customer": "acme", "store": store}}})
    return project


FAULTS = {
    "first part": ("test_write_bundle", Fault("answer", "PUT", query=r"partNumber=1(&|$)")),
    # It is sent beside the others, so that its failure is known when they are waited for.
    "middle part": ("test_complete_upload", Fault("answer", "PUT", query=r"partNumber=2(&|$)")),
    "last part": ("test_complete_upload", Fault("answer", "PUT", query=r"partNumber=3(&|$)")),
    "completion": ("test_complete_upload", Fault("answer", "POST", query="uploadId=")),
    "completion, done but unheard of": ("", Fault("answer-after", "POST", query="uploadId=", times=1)),
    "reading back": ("test_stored_copy_is_what_was_sent", Fault("answer", "GET", path=r"\.zip$")),
    "connection while a part is sent": (
        "test_write_bundle",
        Fault("cut-request", "PUT", query=r"partNumber=1(&|$)", at=MIB),
    ),
    "manifest": ("test_publish_manifest", Fault("answer", "PUT", path=r"manifest\.json$")),
}


# Proven in the slow tier: each costs a run.
RARE = ("completion, done but unheard of", "connection while a part is sent", "manifest")


@pytest.mark.parametrize(
    "where", [pytest.param(where, marks=[pytest.mark.slow] if where in RARE else []) for where in FAULTS]
)
def test_a_store_that_fails_is_left_without_any_trace(
    tmp_path: Path, application: Application, bucket: Bucket, proxy: FaultProxy, where: str
) -> None:
    step, fault = FAULTS[where][0], replace(FAULTS[where][1])
    project = project_with(tmp_path, application, bucket, proxy.url)
    files = file_contents(application.filestore)
    proxy.inject(fault)
    run = project.run(*QUICK)
    assert fault.struck > 0
    if step:
        require_failure(run, step, "StoreError" if fault.kind == "answer" else "Store")
        assert bucket.is_empty()
    else:
        # The store did its work, and found out of itself that it had.
        assert run.status == 0, run.output
        stored = bucket.keys()
        assert [Path(key).suffix for key in stored] == [".json", ".zip"]
        assert bucket.unfinished() == []
    assert (project.litter(), application.frozen.exists()) == ([], False)
    assert file_contents(application.filestore) == files


@pytest.mark.parametrize("at", [0, 9 * MIB])
def test_a_byte_that_changes_on_its_way_back_is_found_and_the_bundle_removed(
    tmp_path: Path, application: Application, bucket: Bucket, proxy: FaultProxy, at: int
) -> None:
    project = project_with(tmp_path, application, bucket, proxy.url)
    fault = proxy.inject(Fault("flip", "GET", path=r"\.zip$", at=at))
    run = project.run(*QUICK)
    assert fault.struck == 1
    require_failure(run, "test_stored_copy_is_what_was_sent", "does not match the checksum that it keeps")
    assert "was not verified and is removed again" in run.output
    assert bucket.is_empty()
    assert project.litter() == []


def test_a_byte_that_changes_on_the_stores_disk_is_found_and_the_bundle_removed(
    tmp_path: Path, application: Application
) -> None:
    project = make_project(tmp_path / "project", PYTHONPATH=str(REPOSITORY))
    own = {"odoo_conf": str(application.odoo_conf), "pg_bindir": str(application.server.bindir)}
    project.write_inventory({"prod": {"shop": {**own, "backup_dir": str(project.store)}}})
    environ = {"PAUSE_AFTER": "test_complete_upload", "PAUSE_FOLDER": str(project.folder)}
    with project.begin(*QUICK, environ=environ) as begun:
        begun.wait_until((project.folder / "reached").exists)
        (name,) = project.stored()
        # In place, without a new size or time: bits that rot leave no trace.
        path = project.store / name
        status = path.stat()
        with path.open("r+b") as file:
            file.seek(5 * MIB)
            byte = file.read(1)
            file.seek(5 * MIB)
            file.write(bytes([byte[0] ^ 1]))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
        (project.folder / "go").touch()
        run = begun.finish()
    require_failure(run, "test_stored_copy_is_what_was_sent", "The stored copy is not what was sent")
    assert (project.stored(), project.litter()) == ([], [])


def test_a_bucket_that_does_not_exist_is_named_with_the_nearest_that_does(
    tmp_path: Path, application: Application, bucket: Bucket
) -> None:
    project = project_with(tmp_path, application, bucket, bucket.server.url)
    project.inventory.write_text(project.inventory.read_text().replace(bucket.name, bucket.name + "x"))
    run = project.run(*QUICK)
    require_failure(run, "test_store_takes_backups", "BucketMissing", bucket.name + "x", f"S3_BUCKET={bucket.name}")
    assert bucket.is_empty()


def test_no_credentials_are_answered_with_how_to_give_them(
    tmp_path: Path, application: Application, bucket: Bucket
) -> None:
    project = project_with(tmp_path, application, bucket, bucket.server.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del project.environ[name]
    run = project.run(*QUICK)
    require_failure(run, "test_store_takes_backups", "no AWS credentials were found", "export AWS_ACCESS_KEY_ID")
    assert bucket.is_empty()


def test_a_store_that_is_not_there_is_told_by_its_address(
    tmp_path: Path, application: Application, bucket: Bucket
) -> None:
    project = project_with(tmp_path, application, bucket, "http://127.0.0.1:9")
    run = project.run(*QUICK)
    require_failure(run, "test_store_takes_backups", "StoreUnreachable", "http://127.0.0.1:9", "S3_ENDPOINT_URL")


def test_a_folder_that_cannot_be_made_is_refused_before_anything_begins(
    tmp_path: Path, application: Application
) -> None:
    project = make_project(tmp_path / "project")
    project.store.write_text("a file stands where the folder should be")
    own = {"odoo_conf": str(application.odoo_conf), "pg_bindir": str(application.server.bindir)}
    project.write_inventory({"prod": {"shop": {**own, "backup_dir": str(project.store / "deeper")}}})
    run = project.run()
    require_failure(run, "test_store_takes_backups", str(project.store))
    assert run.outcomes()["test_dump_database"] == "skipped"


@pytest.mark.slow
def test_a_real_server_takes_the_backup_and_refuses_a_wrong_secret(
    tmp_path: Path, application: Application, swift_server: S3Server
) -> None:
    bucket = make_bucket(swift_server)
    project = project_with(tmp_path, application, bucket, swift_server.url)
    run = project.run(*QUICK)
    assert run.status == 0, run.output
    stored = bucket.keys()
    assert [Path(key).suffix for key in stored] == [".json", ".zip"]
    wrong = "a-wrong-secret-that-is-long"
    refused = project.run(*QUICK, environ={"AWS_SECRET_ACCESS_KEY": wrong})
    require_failure(refused, "test_store_takes_backups", "StoreDenied", "AWS_SECRET_ACCESS_KEY")
    assert wrong not in refused.output + refused.xml + refused.log
    assert (bucket.keys(), bucket.unfinished(), project.litter()) == (stored, [], [])
