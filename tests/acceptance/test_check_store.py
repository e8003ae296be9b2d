"""`pytest checks/test_store.py`: each test breaks exactly what is looked for, and reads the message."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.lab.action_run import ActionRun, Project, make_project
from tests.lab.bucket import Bucket
from tests.lab.fleets import fleet_of
from tests.lab.moto_server import S3Server
from tests.lab.postgres_server import PostgresServer
from tests.lab.sealing import new_age_key

CHECK = "checks/test_store.py"
READABLE, WRITABLE = "test_store_is_readable", "test_store_is_writable"
SETTINGS, KEY = "test_bucket_is_as_asked_for", "test_key_opens_the_latest_backup"


@pytest.fixture
def project(moto_server: S3Server, tmp_path: Path) -> Project:
    return make_project(tmp_path / "project", **moto_server.variables)


def check(project: Project, bucket: Bucket | None = None, **variables: object) -> ActionRun:
    """Run the checks of a target whose backups go to the bucket, or to what the variables say."""
    store: dict[str, object] = {}
    if bucket is not None:
        expect = variables.pop("expect", {})
        name = variables.pop("name", bucket.name)
        store = {"customer": "acme", "store": {
            "bucket": name, "region": "us-east-1", "endpoint_url": bucket.server.url, "path_style": True,
            "expect": expect,
        }}  # fmt: skip
    own = {"database_url": "postgresql://nobody@127.0.0.1:1/none", "filestore": "none", **store, **variables}
    project.write_inventory({"prod": {"shop": own}})
    return project.run(action=CHECK)


def require(run: ActionRun, step: str, outcome: str, *words: str) -> None:
    case = run.case(step)
    assert case.outcome == outcome, run.output
    assert all(word in case.message for word in words), case.message
    assert outcome != "failed" or "hint:" in case.message


def test_a_bucket_as_it_must_be(project: Project, bucket: Bucket) -> None:
    bucket.enable_versioning()
    run = check(project, bucket, expect={"versioning": True, "object_lock": False})
    assert run.status == 0, run.output
    assert run.outcomes() == {READABLE: "passed", WRITABLE: "passed", SETTINGS: "passed", KEY: "skipped"}
    require(run, KEY, "skipped", "backups of shop are not encrypted")
    assert bucket.is_empty()
    assert bucket.versions() == []


def test_settings_that_are_not_what_the_inventory_asks_for(project: Project, bucket: Bucket) -> None:
    run = check(project, bucket, expect={"versioning": True, "public_access_blocked": True})
    assert run.status == 1, run.output
    require(run, SETTINGS, "failed", "is not set up as the inventory asks", f"versioning of s3://{bucket.name}: on",
            "off, says GetBucketVersioning", "put-bucket-versioning", "put-public-access-block")  # fmt: skip
    assert run.outcomes()[READABLE] == "passed"


def test_a_bucket_that_is_not_there(project: Project, bucket: Bucket) -> None:
    run = check(project, bucket, name=f"{bucket.name}x")
    assert run.status == 1, run.output
    require(run, READABLE, "failed", "BucketMissing", f"{bucket.name}x")
    require(run, WRITABLE, "failed", "BucketMissing", f"{bucket.name}x")


def test_a_store_that_can_be_read_and_not_written(project: Project) -> None:
    # Nothing can be made in there, whoever one is.
    run = check(project, backup_dir="/proc/self/task")
    assert run.status == 1, run.output
    require(run, WRITABLE, "failed", "/proc/self/task")
    require(run, SETTINGS, "skipped", "asks for nothing of the bucket of shop")
    assert run.outcomes()[READABLE] == "passed"


@pytest.mark.slow
def test_the_key_of_an_encrypted_backup(wheel_postgres: PostgresServer, tmp_path: Path) -> None:
    mine, other = new_age_key(), new_age_key()
    for name, key in (("mine", mine), ("other", other)):
        (tmp_path / name).write_text(f"{key.secret}\n")
        (tmp_path / name).chmod(0o600)

    def encryption(name: str) -> Mapping[str, object]:
        return {"encryption": {"recipients": [mine.recipient], "identity_file": str(tmp_path / name)}}

    with fleet_of(1, wheel_postgres, tmp_path / "project", rows=5) as fleet:
        fleet.describe(t0=encryption("mine"))
        none_yet = fleet.project.run(action=CHECK)
        taken = fleet.project.run()
        assert taken.status == 0, taken.output
        opened = fleet.project.run(action=CHECK)
        fleet.describe(t0=encryption("other"))
        closed = fleet.project.run(action=CHECK)
        fleet.describe()
        wrong = fleet.project.run(action=CHECK)
    require(none_yet, KEY, "failed", "There is no backup to try the key on", "actions/test_backup.py")
    assert opened.outcomes()[KEY] == "passed", opened.output
    require(closed, KEY, "failed", "The key that is here does not open the latest backup")
    require(wrong, KEY, "failed", "not encrypted as the inventory wants", "encrypted to nobody", mine.recipient)
    assert mine.secret not in closed.output + opened.output + closed.log
