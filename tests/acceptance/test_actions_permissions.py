"""The real actions against a bucket of S3, with every request held against the policies in docs/reference/iam/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from psycopg.sql import SQL, Identifier

from tests.lab.action_run import REPOSITORY, Project, make_project
from tests.lab.application import running_application
from tests.lab.backup_runs import describe
from tests.lab.bucket import make_bucket
from tests.lab.iam import Need, grants_of, missing_of, needs_of
from tests.lab.moto_server import S3Server, moto_server
from tests.lab.postgres_server import PostgresServer
from tests.lab.s3_recorder import FILE

__all__ = ["moto_server"]

pytestmark = pytest.mark.slow


def needs_of_run(project: Project, *arguments: str, action: str) -> set[Need]:
    """Run an action that has to succeed, and return what it needs to be allowed."""
    requests = project.folder / "requests.jsonl"
    requests.write_text("")
    variables = {FILE: str(requests), "PYTHONPATH": str(REPOSITORY)}
    run = project.run("-p", "tests.lab.s3_recorder", *arguments, action=action, environ=variables)
    assert run.status == 0, run.output
    calls = [json.loads(line) for line in requests.read_text().splitlines()]
    assert calls
    return {need for operation, params in calls for need in needs_of(operation, params)}


def test_no_action_needs_more_than_its_policy_grants(
    wheel_postgres: PostgresServer, moto_server: S3Server, tmp_path: Path
) -> None:
    bucket = make_bucket(moto_server, object_lock=True)
    project = make_project(tmp_path / "project", **moto_server.variables)
    store = {"bucket": bucket.name, "endpoint_url": moto_server.url, "region": "us-east-1", "path_style": True}
    lock = {"object_lock": {"mode": "GOVERNANCE", "days": 1}}
    retention = {"last": 1, "noncurrent": True}
    with running_application(wheel_postgres, tmp_path, attachments=3) as application:
        with wheel_postgres.connect() as connection:
            connection.execute(SQL("ALTER ROLE {} CREATEDB").format(Identifier(application.role)))
        describe(project, application, customer="acme", store=store | lock, retention=retention)
        locked = needs_of_run(project, action="actions/test_backup.py")
        describe(project, application, customer="acme", store=store, retention=retention)
        plain = [needs_of_run(project, action="actions/test_backup.py") for _ in range(2)]
        backup, restore = grants_of("backup"), grants_of("restore")
        assert missing_of(locked.union(*plain), backup) == set()
        reading = needs_of_run(project, "--dry-run", action="actions/test_restore.py")
        assert missing_of(reading, restore | backup) == set()
        before = len([key for key in bucket.versions() if key.endswith(".zip")])
        cleanup = needs_of_run(project, action="actions/test_cleanup.py")
        assert missing_of(cleanup, grants_of("cleanup")) == set()
        # Of three, the locked one and the newest stayed.
        left = [key for key in bucket.versions() if key.endswith(".zip")]
        assert (before, len(left)) == (3, 2)
        verify = needs_of_run(project, "--backup=all", action="checks/test_backups.py::TestVerification")
        assert missing_of(verify, grants_of("verify")) == set()
