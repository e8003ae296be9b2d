"""An application that has a verified backup and can be restored, by the real actions, as the role that owns it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from opsproof.archive.manifest import Sidecar, read_sidecar
from tests.lab.action_run import ActionRun, Project, make_project
from tests.lab.application import Application, file_contents, running_application, table_contents
from tests.lab.bucket import Bucket, make_bucket
from tests.lab.moto_server import S3Server
from tests.lab.postgres_server import PostgresServer
from tests.lab.supervised import Supervised, supervised

RESTORE = "actions/test_restore.py"
RECOVER = "actions/test_recover.py"
ENVIRONMENT = "staging"
TARGET = "shop"
ATTACHMENTS = "SELECT id, name, store_fname, checksum, file_size FROM public.ir_attachment ORDER BY id"


@dataclass(frozen=True)
class Restorable:
    """An application, and the backup that was taken of it.

    Attributes:
        variables: What the inventory says of the target.
        contents: Every table when the backup began.
        files: Every file likewise.
        committed: The attachments' rows just before the backup.
        backup: What stands beside the backup in the store.
        bucket: Where the backup is, unless it is in the project's folder.
    """

    application: Application
    project: Project
    variables: Mapping[str, object]
    contents: Mapping[str, tuple[int, str]]
    files: Mapping[str, str]
    committed: tuple[tuple[Any, ...], ...]
    backup: Sidecar
    service: Supervised | None = None
    bucket: Bucket | None = None

    @property
    def name(self) -> str:
        """The live database's name."""
        return self.application.name

    @property
    def server(self) -> PostgresServer:
        """Where it is."""
        return self.application.server

    def restore(self, *arguments: str, **how: Any) -> ActionRun:
        """Run `actions/test_restore.py` to its end."""
        return self.project.run(*arguments, **{"action": RESTORE, "env": ENVIRONMENT, **how})

    def recover(self, *arguments: str, **how: Any) -> ActionRun:
        """Run `actions/test_recover.py` to its end."""
        return self.project.run(*arguments, **{"action": RECOVER, "env": ENVIRONMENT, **how})

    def set(self, **variables: object) -> None:
        """Write the inventory anew, with these variables besides."""
        self.project.write_inventory({ENVIRONMENT: {TARGET: {**self.variables, **variables}}})

    def take_backup(self) -> Sidecar:
        """Take another backup."""
        return _take_backup(self.project, self.bucket)

    def databases(self) -> dict[str, tuple[bool, bool]]:
        """Return live, side and parked databases: whether each can be connected to, and is a template."""
        return databases_of(self.server, self.name)

    def parked(self) -> list[str]:
        """Return the parked databases, the oldest first."""
        return sorted(name for name in self.databases() if "__before_" in name)

    def live_contents(self) -> dict[str, tuple[int, str]]:
        """Return every table as it is now."""
        with self.application.connect() as connection:
            return table_contents(connection)

    def query(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a query on the live database."""
        with self.application.connect() as connection:
            return connection.execute(query.encode(), values).fetchall()

    def execute(self, *statements: str) -> None:
        """Run statements on the live database as the application's own role."""
        own = self.application
        with own.server.connect(own.name, own.role, own.password) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def contents_of_parked(self, name: str) -> dict[str, tuple[int, str]]:
        """Return every table of a parked database, of a copy of it, for it takes no connections itself."""
        copy = f"{name[:40]}_looked_at"
        with self.server.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(copy), sql.Identifier(name))
            )
        try:
            with self.server.connect(copy) as connection:
                return table_contents(connection)
        finally:
            self.server.drop_database(copy)

    def stored(self) -> dict[str, Sidecar]:
        """Return every verified backup of the store by its id."""
        return {one.id: one for one in _sidecars(self.project, self.bucket)}


@contextmanager
def restorable(
    server: PostgresServer, *, s3: S3Server | None = None, served: bool = False, **variables: object
) -> Iterator[Restorable]:
    """Make an application with a backup; both, and every database that a restore made, are gone after the block.

    Args:
        server: Where.
        s3: Where the backup goes; by default into a folder.
        served: With the stand-in application, which writes all the time, under supervisor.
        variables: More of the inventory.
    """
    # Not pytest's tmp_path, so that the folder is on a disk of the usual kind and its path is short.
    folder = Path(tempfile.mkdtemp(prefix="opsproof-restored-"))
    try:
        with ExitStack() as stack:
            application = stack.enter_context(running_application(server, folder, attachments=12))
            stack.callback(drop_others, application)
            with server.connect() as connection:
                connection.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(application.role)))
            with application.connect() as connection:
                contents = table_contents(connection)
            files = file_contents(application.filestore)
            service = stack.enter_context(supervised(application)) if served else None
            project = make_project(folder / "project")
            bucket = make_bucket(s3) if s3 else None
            own: dict[str, object] = {"odoo_conf": str(application.odoo_conf), "pg_bindir": str(server.bindir)}
            own |= service.variables if service else {}
            if s3 and bucket:
                store = {"bucket": bucket.name, "endpoint_url": s3.url, "region": "us-east-1", "path_style": True}
                own |= {"customer": "acme", "store": store}
                project.environ.update(s3.variables)
            else:
                own |= {"backup_dir": str(project.store)}
            own |= variables
            project.write_inventory({ENVIRONMENT: {TARGET: own}})
            with application.connect() as connection:
                committed = tuple(connection.execute(ATTACHMENTS.encode()).fetchall())
            backup = _take_backup(project, bucket)
            yield Restorable(application, project, own, contents, files, committed, backup, service, bucket)
    finally:
        shutil.rmtree(folder)


def databases_of(server: PostgresServer, name: str) -> dict[str, tuple[bool, bool]]:
    """Return a database and those that restores made of it: whether each can be connected to, and is a template."""
    with server.connect() as connection:
        rows = connection.execute(
            "SELECT datname, datallowconn, datistemplate FROM pg_database"
            " WHERE datname = %s OR starts_with(datname, %s) ORDER BY 1",
            (name, f"{name}__"),
        ).fetchall()
    return {datname: (allows, template) for datname, allows, template in rows}


def drop_others(application: Application) -> None:
    """Drop every side and parked database of an application."""
    for name, (_, template) in databases_of(application.server, application.name).items():
        if name == application.name:
            continue
        if template:
            with application.server.connect() as connection:
                connection.execute(sql.SQL("ALTER DATABASE {} WITH IS_TEMPLATE false").format(sql.Identifier(name)))
        application.server.drop_database(name)


def _take_backup(project: Project, bucket: Bucket | None) -> Sidecar:
    run = project.run(env=ENVIRONMENT)
    assert run.status == 0, run.output
    made = run.cases[-1].properties["backup_id"]
    return next(one for one in _sidecars(project, bucket) if one.id == made)


def _sidecars(project: Project, bucket: Bucket | None) -> Iterator[Sidecar]:
    if bucket is None:
        for path in sorted(project.store.glob("*.manifest.json")):
            yield read_sidecar(path.read_bytes(), path.name)
        return
    keys = [key for key in bucket.keys() if key.endswith(".manifest.json")]  # noqa: SIM118 - no mapping
    for key in keys:
        yield read_sidecar(bucket.client.get_object(Bucket=bucket.name, Key=key)["Body"].read(), key)
