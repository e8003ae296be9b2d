"""A dry run looks, prints the plan, and changes nothing: not in the database, not in the store, not on the disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.action_run import Project, make_project
from tests.lab.application import Application, table_contents
from tests.lab.bucket import make_bucket
from tests.lab.fault_proxy import Request, running_proxy
from tests.lab.moto_server import S3Server

LOOKING = (
    "test_database_exists",
    "test_client_programs_fit",
    "test_filestore_exists",
    "test_store_takes_backups",
    "test_room_is_enough",
)
# Of the application's tables: the server's own clean-up writes into its catalogue when it likes.
COUNTERS = "SELECT sum(n_tup_ins), sum(n_tup_upd), sum(n_tup_del) FROM pg_stat_user_tables"


@dataclass(frozen=True)
class State:
    """All that a run could change: rows, counters, roles and databases of the server, and every file."""

    contents: object
    counters: object
    catalogue: object
    files: tuple[tuple[str, int, int, int], ...]


def state_of(application: Application, folders: list[Path]) -> State:
    with application.server.connect() as connection:
        catalogue = connection.execute("SELECT datname FROM pg_database UNION SELECT rolname FROM pg_roles").fetchall()
    with application.connect() as connection:
        counters = connection.execute(COUNTERS).fetchone()
        contents = table_contents(connection)
    found = []
    for folder in folders:
        for path in sorted([folder, *folder.rglob("*")]):
            status = path.lstat()
            found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return State(contents, counters, sorted(catalogue), tuple(found))


def require_dry(project: Project, arguments: list[str], environ: dict[str, str]) -> str:
    run = project.run(*arguments, environ=environ)
    assert run.status == 0, run.output
    outcomes = run.outcomes()
    assert tuple(step for step, outcome in outcomes.items() if outcome == "passed") == LOOKING
    skipped = [case for case in run.cases if case.outcome == "skipped"]
    assert len(skipped) == len(outcomes) - len(LOOKING) == 9
    assert all("dry run" in case.message for case in skipped)
    assert "dry run: nothing will change" in run.output
    assert "the plan" in run.output
    assert "read it back, compare, and write its manifest beside it" in run.output
    assert "is stored and verified" not in run.output
    assert run.events[0]["dry_run"] is True
    return run.output


@pytest.mark.parametrize(
    ("arguments", "environ"),
    [pytest.param(["--dry-run"], {}, id="option"), pytest.param([], {"DRY_RUN": "true"}, id="variable")],
)
def test_a_dry_run_changes_neither_database_nor_folder_nor_disk(
    tmp_path: Path, application: Application, arguments: list[str], environ: dict[str, str]
) -> None:
    project = make_project(tmp_path / "project")
    own = {"odoo_conf": str(application.odoo_conf), "pg_bindir": str(application.server.bindir)}
    project.write_inventory({"prod": {"shop": {**own, "backup_dir": str(project.store)}}})
    project.logs.mkdir(mode=0o700)
    watched = [application.data_dir]
    before = state_of(application, watched)
    tree = {str(path) for path in project.folder.rglob("*")}
    output = require_dry(project, arguments, environ)
    assert state_of(application, watched) == before
    new = {str(path) for path in project.folder.rglob("*")} - tree
    # Ansible keeps its own folder in HOME; the XML and the output are this test's.
    ours = {Path(path) for path in new if "/home/" not in path and "/run-" not in path and "/output-" not in path}
    assert {path.parent for path in ours} == {project.logs}
    assert not project.store.exists()
    assert project.litter() == []
    assert f"dump {application.name}" in output
    assert "freeze 8 files" in output


def test_a_dry_run_sends_no_store_a_request_that_could_change_it(
    tmp_path: Path, application: Application, moto_server: S3Server
) -> None:
    bucket = make_bucket(moto_server)
    begun = bucket.client.create_multipart_upload(Bucket=bucket.name, Key="acme/backups/another.zip")
    bucket.client.put_object(Bucket=bucket.name, Key="acme/backups/older.zip", Body=b"older")
    with running_proxy(moto_server.url) as proxy:
        project = make_project(tmp_path / "project", **moto_server.variables)
        project.environ["AWS_SECRET_ACCESS_KEY"] = "moto-takes-any-secret"
        store = {"bucket": bucket.name, "endpoint_url": proxy.url, "region": "us-east-1"}
        own = {"odoo_conf": str(application.odoo_conf), "pg_bindir": str(application.server.bindir)}
        project.write_inventory({"prod": {"shop": {**own, "customer": "acme", "store": store}}})
        require_dry(project, ["--dry-run"], {})
        requests: list[Request] = list(proxy.requests)
    assert requests
    assert {request.method for request in requests} <= {"GET", "HEAD"}
    assert bucket.keys() == ["acme/backups/older.zip"]
    uploads = bucket.client.list_multipart_uploads(Bucket=bucket.name)["Uploads"]
    assert [upload["UploadId"] for upload in uploads] == [begun["UploadId"]]


def test_a_dry_run_that_finds_a_fault_fails(tmp_path: Path, application: Application) -> None:
    project = make_project(tmp_path / "project")
    own = {"odoo_conf": str(application.odoo_conf), "pg_bindir": str(tmp_path)}
    project.write_inventory({"prod": {"shop": {**own, "backup_dir": str(project.store)}}})
    run = project.run("--dry-run")
    assert run.status == 1, run.output
    assert run.failed_step().step == "test_client_programs_fit"
