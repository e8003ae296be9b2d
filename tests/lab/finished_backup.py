"""Backups that were taken by the real action, once for the whole session, for many tests to look at.

Each server is backed up twice: at rest into a folder, so that a copy can be compared with the original; and through
S3 while a writer is at work, under a name that needs quoting everywhere.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import pytest

from opsproof.archive.manifest import Sidecar, read_sidecar
from tests.lab.action_run import ActionRun, Project, make_project
from tests.lab.application import Application, Writer, file_contents, running_application, table_contents
from tests.lab.bucket import make_bucket
from tests.lab.fault_proxy import Request, running_proxy
from tests.lab.moto_server import S3Server
from tests.lab.postgres_server import KINDS, PostgresServer, running_postgres

AWKWARD_NAME = "Acme \"Prod\" é; 'b' %d $x"
STORES = ("folder", "S3")


@dataclass(frozen=True)
class FinishedBackup:
    """A backup, and what the original was when it was taken.

    Attributes:
        kind: The server's.
        store: Which of `STORES`.
        requests: All that the store was asked, where it is S3.
        contents: Every table, before and after: equal where nothing wrote meanwhile.
        files: Every file, likewise.
        bundle: The stored zip, in a folder of its own.
        journals: What is beside the backups in `journals/`, by name.
    """

    kind: str
    store: str
    server: PostgresServer
    application: Application
    project: Project
    run: ActionRun
    requests: tuple[Request, ...]
    contents: Mapping[str, tuple[int, str]]
    files: Mapping[str, str]
    bundle: Path
    sidecar: Sidecar
    names: tuple[str, ...]
    journals: Mapping[str, bytes]

    @property
    def is_moving(self) -> bool:
        """Whether a writer was at work."""
        return self.store == "S3"

    def read(self, member: str) -> bytes:
        """Return a member of the bundle."""
        with ZipFile(self.bundle) as bundle:
            return bundle.read(member)


@pytest.fixture(scope="session", params=[f"{kind}-{store}" for kind in KINDS for store in STORES])
def finished_backup(request: pytest.FixtureRequest, moto_server: S3Server) -> Iterator[FinishedBackup]:
    """A backup of each server to each store, taken before the first test looks at it."""
    kind, _, store = request.param.partition("-")
    server: PostgresServer = request.getfixturevalue(f"{kind}_postgres")
    # Not pytest's tmp_path: what RESTORE.txt says is done in it by hand, and its path is long.
    folder = Path(tempfile.mkdtemp(prefix="opsproof-finished-"))
    try:
        with running_application(server, folder, name=AWKWARD_NAME if store == "S3" else "") as application:
            project = make_project(folder / "project", CI_JOB_URL="https://ci.example.org/jobs/7", CI_COMMIT_SHA="abc1")
            take = _to_bucket if store == "S3" else _to_folder
            yield take(kind, server, application, project, moto_server)
    finally:
        shutil.rmtree(folder)


@contextmanager
def empty_cluster(kind: str) -> Iterator[PostgresServer]:
    """Run a second server of a kind, with nothing in it."""
    with running_postgres(kind) as server:
        yield server


def _to_folder(
    kind: str, server: PostgresServer, application: Application, project: Project, _s3: S3Server
) -> FinishedBackup:
    variables = {"odoo_conf": str(application.odoo_conf), "pg_bindir": str(server.bindir)}
    project.write_inventory({"prod": {"shop": {**variables, "backup_dir": str(project.store)}}})
    with application.connect() as connection:
        contents = table_contents(connection)
    files = file_contents(application.filestore)
    run = project.run()
    names = tuple(project.stored())
    assert run.status == 0, run.output
    bundle = next(project.store.glob("*.zip"))
    sidecar = read_sidecar(next(project.store.glob("*.manifest.json")).read_bytes(), "sidecar")
    journals = {path.name: path.read_bytes() for path in (project.store / "journals").iterdir()}
    return FinishedBackup(
        kind, "folder", server, application, project, run, (), contents, files, bundle, sidecar, names, journals
    )


def _to_bucket(
    kind: str, server: PostgresServer, application: Application, project: Project, s3: S3Server
) -> FinishedBackup:
    bucket = make_bucket(s3)
    with ExitStack() as stack:
        proxy = stack.enter_context(running_proxy(s3.url))
        store = {"bucket": bucket.name, "endpoint_url": proxy.url, "region": "us-east-1", "path_style": True}
        variables = {"odoo_conf": str(application.odoo_conf), "pg_bindir": str(server.bindir)}
        project.write_inventory({"prod": {"shop": {**variables, "customer": "acme", "store": store}}})
        # moto takes any secret; this one is in no other text.
        project.environ.update(s3.variables, AWS_SECRET_ACCESS_KEY="moto-takes-any-secret")
        with application.connect() as connection:
            contents = table_contents(connection)
        files = file_contents(application.filestore)
        with Writer(application) as writer:
            run = project.run()
        assert run.status == 0, run.output
        assert writer.written > 20
        names = tuple(sorted(bucket.keys()))
        folder = project.folder / "downloaded"
        folder.mkdir()
        (zip_key,) = (key for key in names if key.endswith(".zip"))
        (sidecar_key,) = (key for key in names if key.endswith(".manifest.json"))
        bundle = folder / zip_key.rsplit("/", 1)[-1]
        bucket.client.download_file(bucket.name, zip_key, str(bundle))
        sidecar = read_sidecar(bucket.client.get_object(Bucket=bucket.name, Key=sidecar_key)["Body"].read(), "sidecar")
        assert bucket.unfinished() == []
        requests = tuple(proxy.requests)
        journals = bucket.journals()
    return FinishedBackup(
        kind, "S3", server, application, project, run, requests, contents, files, bundle, sidecar, names, journals
    )
