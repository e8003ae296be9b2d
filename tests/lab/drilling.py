"""Ground for drills: production with a backup, and a staging that goes on working while it is rehearsed there.

A test module takes the fixture by `pytest_plugins = ["tests.lab.drilling"]`. PYTEST_DONT_REWRITE: for the
module is imported for its types before pytest registers it.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from opsproof.archive.manifest import Sidecar, read_sidecar
from opsproof.archive.names import sidecar_name
from tests.lab import moody, trialserver
from tests.lab.action_run import ActionRun, Begun, Project, make_project
from tests.lab.application import Application, file_contents, running_application, table_contents
from tests.lab.bucket import Bucket, make_bucket
from tests.lab.moto_server import S3Server
from tests.lab.odoo_tables import make_outward
from tests.lab.postgres_server import PostgresServer
from tests.lab.restored import databases_of, drop_others
from tests.lab.supervised import Supervised, supervised
from tests.lab.waiting import await_true

DRILL = "actions/test_drill.py"
PRODUCTION, STAGING = "prod", "staging"


@dataclass(frozen=True)
class Served:
    """All that a drill must leave as it is.

    Attributes:
        oid: Which database has the live name.
        properties: Whether it takes connections and is a template; owner, grants, comment, connection limit, settings.
        contents: Every table.
        files: Every file.
        pid: The service's process.
        roles: Of the whole server.
    """

    oid: int
    properties: tuple[Any, ...]
    contents: Mapping[str, tuple[int, str]]
    files: Mapping[str, str]
    pid: int
    roles: tuple[str, ...]


@dataclass(frozen=True)
class DrillGround:
    """Two environments on one server.

    Attributes:
        erp: Production.
        shop: Staging.
        service: What serves it.
        project: Whence the actions run.
        production: What the inventory says of production.
        staging: The same of staging.
        backup: Production's.
        bucket: Where it is, unless it is in a folder.
    """

    erp: Application
    shop: Application
    service: Supervised
    project: Project
    production: Mapping[str, object]
    staging: Mapping[str, object]
    backup: Sidecar
    bucket: Bucket | None = None

    @property
    def store(self) -> Path:
        """Where production's backups are."""
        return Path(str(self.production["backup_dir"]))

    def bundle(self, backup: Sidecar) -> Path:
        """Return the file of a backup."""
        return self.store / backup.name

    def sidecar(self, backup: Sidecar) -> Path:
        """Return the manifest beside a backup."""
        return self.store / sidecar_name(backup.id)

    def describe(self, *, production: Mapping[str, object] | None = None, **variables: object) -> None:
        """Write the inventory, with more variables of staging, and of production."""
        erp = {**self.production, **(production or {})}
        self.project.write_inventory({PRODUCTION: {"erp": erp}, STAGING: {"shop": {**self.staging, **variables}}})

    def starting(self, mood: str, seconds: float = 20.0) -> dict[str, Any]:
        """Return the inventory's `drill:` that starts the tests' own application."""
        words = f"{sys.executable} {trialserver.__file__} '{mood}' {{database}} {{filestore}} {{port}}"
        url = "http://127.0.0.1:{port}/health"
        return {"drill": {"command": words, "health_url": url, "timeout": f"{seconds:g}s"}}

    def with_store(self, folder: Path) -> DrillGround:
        """Return the same with a copy of production's store, which a test may damage."""
        shutil.copytree(self.store, folder)
        other = replace(self, production={**self.production, "backup_dir": str(folder)})
        other.describe()
        return other

    def drill(self, *arguments: str, mapped: bool = True, **how: Any) -> ActionRun:
        """Run a drill of production's backup on staging to its end."""
        return self.project.run(*self._words(mapped=mapped), *arguments, **{"action": DRILL, "env": STAGING, **how})

    def begin(
        self, action: str = DRILL, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Begun]:
        """Begin a drill; whatever of it still runs at the end of the block is killed."""
        return self.project.begin(*self._words(mapped=True), *arguments, action=action, env=STAGING, environ=environ)

    def look(self) -> Served:
        """Return what is served now."""
        with self.shop.server.connect() as connection:
            row = connection.execute(
                "SELECT d.oid::bigint, datallowconn, datistemplate, datdba::regrole::text, datacl::text,"
                " shobj_description(d.oid, 'pg_database'), datconnlimit,"
                " ARRAY(SELECT setrole::regrole::text || setconfig::text FROM pg_db_role_setting"
                " WHERE setdatabase = d.oid ORDER BY 1) FROM pg_database d WHERE datname = %s",
                (self.shop.name,),
            ).fetchone()
            roles = connection.execute("SELECT rolname::text FROM pg_roles ORDER BY 1").fetchall()
        assert row is not None, "there is no live database"
        with self.shop.connect() as connection:
            contents = table_contents(connection)
        files = file_contents(self.shop.filestore)
        return Served(row[0], row[1:], contents, files, self.service.pid, tuple(name for (name,) in roles))

    def require_untouched(self, before: Served) -> None:
        """Check that what is served is what it was, and answers."""
        assert self.look() == before
        assert self.service.is_healthy()

    def left(self) -> list[str]:
        """Return what drills have left: databases, folders beside the filestore, temporary files, processes."""
        databases = sorted(set(databases_of(self.shop.server, self.shop.name)) - {self.shop.name})
        folders = [str(path) for path in self.shop.filestore.parent.iterdir() if path != self.shop.filestore]
        return [*databases, *folders, *self.project.litter()]

    def require_nothing_left(self) -> None:
        """Check that nothing is left, or soon is."""
        await_true(lambda: self.left() == [], "a drill has left something")

    def _words(self, *, mapped: bool) -> list[str]:
        return ["--from=prod/erp", *([f"--map-role={self.erp.role}={self.shop.role}"] if mapped else [])]


@contextmanager
def drill_ground(server: PostgresServer, *, s3: S3Server | None = None, **variables: object) -> Iterator[DrillGround]:
    """Make production and staging, and back production up; all of it is gone after the block.

    Args:
        server: Where.
        s3: Where backups and journals go; by default into folders.
        variables: More of production's in the inventory.
    """
    # Not pytest's tmp_path, so that the folder is on a disk of the usual kind and its path is short.
    folder = Path(tempfile.mkdtemp(prefix="opsproof-drill-"))
    try:
        with ExitStack() as stack:
            erp = stack.enter_context(running_application(server, folder / "erp", attachments=12))
            shop = stack.enter_context(running_application(server, folder / "shop", attachments=5))
            stack.callback(drop_others, shop)
            with server.connect() as connection:
                connection.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(shop.role)))
            with server.connect(erp.name, erp.role, erp.password) as connection:
                make_outward(connection)
            service = stack.enter_context(supervised(shop, moody.__file__))
            project = make_project(folder / "project")
            bindir = {"pg_bindir": str(server.bindir)}
            stores: list[dict[str, object]] = [{"backup_dir": str(folder / name)} for name in ("prod", "staging")]
            bucket = make_bucket(s3) if s3 else None
            if s3 and bucket:
                place = {"bucket": bucket.name, "endpoint_url": s3.url, "region": "us-east-1", "path_style": True}
                stores = [{"customer": name, "store": place} for name in ("acme", "acme-staging")]
                project.environ.update(s3.variables)
            production = {"odoo_conf": str(erp.odoo_conf), **bindir, **stores[0], **variables}
            staging = {"odoo_conf": str(shop.odoo_conf), **bindir, **stores[1], **service.variables}
            project.write_inventory({PRODUCTION: {"erp": production}, STAGING: {"shop": staging}})
            backup = _take_backup(project, bucket)
            yield DrillGround(erp, shop, service, project, production, staging, backup, bucket)
    finally:
        shutil.rmtree(folder)


def _take_backup(project: Project, bucket: Bucket | None) -> Sidecar:
    run = project.run(env=PRODUCTION)
    assert run.status == 0, run.output
    made = sidecar_name(run.cases[-1].properties["backup_id"])
    if bucket is not None:
        (key,) = (one for one in bucket.keys() if one.endswith(made))  # noqa: SIM118 - no mapping
        return read_sidecar(bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read(), key)
    (path,) = project.folder.parent.glob(f"prod/{made}")
    return read_sidecar(path.read_bytes(), path.name)


@pytest.fixture(scope="session")
def prepared_drills(wheel_postgres: PostgresServer) -> Iterator[DrillGround]:
    """Production and staging, made once; tests take `ground`."""
    with drill_ground(wheel_postgres) as ground:
        yield ground


@pytest.fixture
def ground(prepared_drills: DrillGround) -> Iterator[DrillGround]:
    """The same for one test: what that makes of the inventory, of databases and of journals is gone afterwards."""
    yield prepared_drills
    drop_others(prepared_drills.shop)
    prepared_drills.describe()
    shutil.rmtree(Path(str(prepared_drills.staging["backup_dir"])), ignore_errors=True)
