"""What the tests of a backup that fails or is interrupted share: an application, a project, a bucket behind a proxy."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.action_run import Project, make_project
from tests.lab.application import Application, running_application
from tests.lab.bucket import Bucket, make_bucket
from tests.lab.fault_proxy import FaultProxy, running_proxy
from tests.lab.moto_server import S3Server
from tests.lab.postgres_server import PostgresServer


@pytest.fixture(scope="module")
def application(wheel_postgres: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Application]:
    """A small application of a module's own."""
    with running_application(wheel_postgres, tmp_path_factory.mktemp("application"), attachments=6) as application:
        yield application


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project without an inventory."""
    return make_project(tmp_path / "project")


@pytest.fixture
def bucket(moto_server: S3Server) -> Bucket:
    """A bucket of a test's own."""
    return make_bucket(moto_server)


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultProxy]:
    """What stands between a run and its bucket."""
    with running_proxy(bucket.server.url) as proxy:
        yield proxy


def describe(project: Project, application: Application, bindir: Path | None = None, **variables: object) -> None:
    """Write an inventory of prod with the one target shop, whose backups go to the project's folder.

    Args:
        project: Whose.
        application: The target.
        bindir: Of client programs; the server's own by default.
        variables: More of the inventory; with a `store`, backups go there.
    """
    own: dict[str, object] = {"odoo_conf": str(application.odoo_conf)}
    own["pg_bindir"] = str(bindir or application.server.bindir)
    if "store" not in variables:
        own["backup_dir"] = str(project.store)
    project.write_inventory({"prod": {"shop": {**own, **variables}}})
