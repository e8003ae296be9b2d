"""Ground for restores that are killed: an application as it was, and as a backup has it, again and again.

The server is its own, so that it can be stopped without its leave and started again.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from psycopg import sql

from tests.lab.action_run import make_project
from tests.lab.application import Application, file_contents, running_application, table_contents
from tests.lab.crash import CrashingServer, crashing
from tests.lab.ground import ENVIRONMENT, RECOVER, RESTORE, Data, Ground, Variant, counting_service
from tests.lab.postgres_server import running_postgres
from tests.lab.supervised import Supervised

__all__ = ["ENVIRONMENT", "RECOVER", "RESTORE", "Ground", "Variant", "prepared_ground"]

USUAL = Variant()


@contextmanager
def prepared_ground(variant: Variant = USUAL) -> Iterator[Ground]:
    """Make an application, back it up, and change it, so that a restore has something to bring back."""
    with (
        # Not pytest's tmp_path: a socket's path ends at 107 bytes.
        tempfile.TemporaryDirectory(prefix="opsproof-sweep-") as path,
        running_postgres(variant.server) as server,
        crashing(server) as crashing_server,
        running_application(server, Path(path), attachments=20) as application,
        counting_service(application) as service,
    ):
        ground = _prepare(variant, Path(path), application, service, crashing_server)
        ground.reset()
        try:
            yield ground
        finally:
            ground.clear()


def _prepare(
    variant: Variant,
    folder: Path,
    application: Application,
    service: Supervised,
    crashing_server: CrashingServer,
) -> Ground:
    project = make_project(folder / "project")
    variables = {
        "odoo_conf": str(application.odoo_conf),
        "pg_bindir": str(application.server.bindir),
        "backup_dir": str(project.store),
        **service.variables,
        "health_timeout": 15,
    }
    if variant.exchanged:
        variables["filestore"] = str(application.filestore)
        (application.filestore / "notes.txt").write_text("when the backup was taken")
    project.write_inventory({ENVIRONMENT: {"shop": variables}})
    with application.connect() as connection:
        connection.execute("DELETE FROM mail_message WHERE id > 300")
        connection.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(application.role)))
        new = Data(table_contents(connection), file_contents(application.filestore))
    taken = project.run(env=ENVIRONMENT)
    assert taken.status == 0, taken.output
    gone = application.attachments()[:8]
    with application.connect() as connection:
        # Weeks later: the clean-up has removed files, people have added some.
        connection.execute("DELETE FROM ir_attachment WHERE checksum = ANY(%s)", ([path.name for path in gone],))
        for number in range(5):
            application.attach(connection, f"later {number}".encode())
        connection.execute("INSERT INTO mail_message (partner_id, body) VALUES (1, 'later')")
        connection.execute("DROP TABLE nothing")
        old_tables = table_contents(connection)
    for path in gone:
        path.unlink()
    if variant.exchanged:
        (application.filestore / "notes.txt").write_text("written since")
    old = Data(old_tables, file_contents(application.filestore))
    files, pristine = folder / "files", f"pristine_{application.name}"
    shutil.copytree(application.filestore, files)
    with application.server.connect() as connection:
        words = sql.Identifier(pristine), sql.Identifier(application.name)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*words))
    stored = frozenset(project.stored())
    return Ground(
        variant, application.server, crashing_server, application, project, service, pristine, files, stored, old, new
    )
