"""Ground for restores that are killed: an application as it was, and as a backup has it, again and again.

The server is its own, so that it can be stopped without its leave and started again. Nothing here asks the engine what
became of a restore: databases are told apart by their rows, files by their SHA-1.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.lab.action_run import ActionRun, Begun, Project, make_project
from tests.lab.application import Application, running_application, table_contents
from tests.lab.postgres_server import PostgresServer, Session, running_postgres
from tests.lab.supervised_service import SupervisedService, await_true, supervised_service

RESTORE = "actions/test_restore.py"
RECOVER = "actions/test_recover.py"
ENVIRONMENT = "staging"
CONNECT_SECONDS = 10.0
MARK = "opsproof.intent "
COMMENT = "the shop's"

Contents = Mapping[str, tuple[int, str]]


@dataclass
class Ground:
    """One application, its service, and the two states that its database may be in.

    Attributes:
        server: Its own; `crash_server` ends it and starts it again.
        application: Whose database is restored.
        project: Whence the actions run.
        service: Which the restore stops and starts.
        old: What is live before a restore.
        new: What the backup holds.
    """

    server: PostgresServer
    application: Application
    project: Project
    service: SupervisedService
    pristine: str
    files: Path
    stored: frozenset[str]
    old: Contents
    new: Contents
    servers: list[subprocess.Popen[bytes]]

    def reset(self) -> None:
        """Bring everything into the state before a restore."""
        name = self.application.name
        with self.server.connect() as connection:
            for one in self.databases(connection):
                identifier = sql.Identifier(one)
                connection.execute(sql.SQL("ALTER DATABASE {} WITH IS_TEMPLATE false").format(identifier))
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))
            words = sql.Identifier(name), sql.Identifier(self.pristine), sql.Identifier(self.application.role)
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*words))
            connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(words[0], COMMENT))
        shutil.rmtree(self.application.filestore)
        shutil.copytree(self.files, self.application.filestore)
        if self.application.frozen.exists():
            shutil.rmtree(self.application.frozen)
        for stored in set(self.project.stored()) - self.stored:
            (self.project.store / stored).unlink()
        shutil.rmtree(self.project.temporary)
        self.project.temporary.mkdir()
        self.service.control("start", "application")
        self.service.await_answer()

    def clear(self) -> None:
        """Stop the service and drop all that was made of the live database, and what it was made from."""
        self.service.control("stop", "application")
        with self.server.connect() as connection:
            for one in [*self.databases(connection), self.pristine]:
                identifier = sql.Identifier(one)
                connection.execute(sql.SQL("ALTER DATABASE {} WITH IS_TEMPLATE false").format(identifier))
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))

    def begin(self, action: str = RESTORE) -> AbstractContextManager[Begun]:
        """Begin an action; whatever of it still runs at the end of the block is killed."""
        return self.project.begin(action=action, env=ENVIRONMENT)

    def recover(self, project: Project | None = None) -> ActionRun:
        """Run the recovery to its end."""
        return (project or self.project).run(action=RECOVER, env=ENVIRONMENT)

    def move_elsewhere(self) -> Project:
        """Return a project on a runner that knows nothing of this one, whose disk is wiped."""
        elsewhere = make_project(Path(tempfile.mkdtemp(prefix="elsewhere-", dir=self.project.folder.parent)))
        shutil.copy(self.project.inventory, elsewhere.inventory)
        shutil.rmtree(self.project.temporary)
        self.project.temporary.mkdir()
        shutil.rmtree(self.project.logs, ignore_errors=True)
        return elsewhere

    def require_whole(self) -> str:
        """Check that the live database is one of the two, and has all its files; return which: `old` or `new`."""
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                with self.application.connect() as connection:
                    contents = table_contents(connection)
                    connection.execute("SET search_path = public")
                    names = connection.execute("SELECT store_fname FROM ir_attachment").fetchall()
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        for (name,) in names:
            content = (self.application.filestore / name).read_bytes()
            assert hashlib.sha1(content, usedforsecurity=False).hexdigest() == name.rpartition("/")[2], name
        assert contents in (self.old, self.new), "the live database is neither what was nor what the backup holds"
        return "old" if contents == self.old else "new"

    def require_settled(self, project: Project | None = None) -> str:
        """Check that nothing of a run is left but what it is to keep; return which database is live."""
        live = self.require_whole()
        name = self.application.name
        with self.server.connect() as connection:
            databases = self.databases(connection)
            assert [one for one in databases if one.startswith(f"{name}__side_")] == []
            row = connection.execute(
                "SELECT datallowconn, datistemplate, datconnlimit, shobj_description(oid, 'pg_database')"
                " FROM pg_database WHERE datname = %s",
                (name,),
            ).fetchone()
            assert row == (True, False, -1, COMMENT)
            stages = self.stages(connection)
            parked = {one for one in databases if one != name}
            assert stages == dict.fromkeys(parked, "kept")
            assert len(parked) == (live == "new")
            await_true(lambda: _locks(connection) == 0, "an advisory lock is left")
        # A service that was killed is started again by supervisor, which takes a second to call it running.
        await_true(lambda: "RUNNING" in self.service.control("status", "application"), "the service does not run", 30)
        with self.application.connect() as connection:
            rows = connection.execute("SELECT count(*) FROM public.ir_attachment").fetchone()
        assert rows is not None
        assert self.service.await_answer() == str(rows[0])
        assert not self.application.frozen.exists()
        assert list(self.application.filestore.rglob(".opsproof*")) == []
        assert [one for one in self.project.stored() if ".part-" in one] == []
        for one in {id(here): here for here in (self.project, project or self.project)}.values():
            await_true(lambda one=one: one.litter() == [], f"left: {one.litter()}")  # type: ignore[misc]
        return live

    def databases(self, connection: Session) -> list[str]:
        """Return the live database and all that were made of it."""
        rows = connection.execute(
            "SELECT datname::text FROM pg_database WHERE datname = %s OR starts_with(datname, %s) ORDER BY 1",
            (self.application.name, self.application.name + "__"),
        ).fetchall()
        return [str(row[0]) for row in rows]

    def stages(self, connection: Session) -> dict[str, str]:
        """Return the stage of every database's intent."""
        rows = connection.execute(
            "SELECT datname::text, shobj_description(oid, 'pg_database') FROM pg_database"
            " WHERE starts_with(shobj_description(oid, 'pg_database'), %s)",
            (MARK,),
        ).fetchall()
        return {
            str(name): json.loads(json.loads(str(text).removeprefix(MARK))["intent"])["stage"] for name, text in rows
        }

    def crash_server(self) -> None:
        """End the server at once, as a crash does, and start it again."""
        data = self.server.folder / "data"
        pid = int((data / "postmaster.pid").read_text().split()[0])
        os.kill(pid, signal.SIGQUIT)
        for process in self.servers:
            process.wait(30)
        await_true(lambda: not _is_alive(pid), "the server does not end")
        owner = data.stat()
        account: dict[str, Any] = (
            {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
        )
        with (self.server.folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [str(self.server.bindir / "postgres"), "-D", str(data)],
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                **account,
            )
        self.servers.append(process)

    def child(self, program: str) -> int | None:
        """Return the process of a program that the project's runs started; None where there is none."""
        for pid in self._processes():
            with suppress(OSError):
                if Path(f"/proc/{pid}/comm").read_text().strip() == program:
                    return pid
        return None

    def _processes(self) -> Iterator[int]:
        mark = f"TMPDIR={self.project.environ['TMPDIR']}\0".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if mark in (process / "environ").read_bytes() and _is_alive(int(process.name)):
                    yield int(process.name)

    def end_children(self) -> None:
        """Kill what a killed run left running: its machine is gone."""
        while pid := next(iter(self._processes()), None):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await_true(lambda pid=pid: not _is_alive(pid), "it does not end")  # type: ignore[misc]


@contextmanager
def prepared_ground() -> Iterator[Ground]:
    """Make an application, back it up, and change it, so that a restore has something to bring back."""
    # Not pytest's tmp_path: a socket's path ends at 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="opsproof-sweep-"))
    try:
        with (
            running_postgres("wheel") as server,
            _restartable() as servers,
            running_application(server, folder, attachments=20) as application,
            supervised_service(folder, application) as service,
        ):
            ground = _prepare(folder, application, service, servers)
            ground.reset()
            try:
                yield ground
            finally:
                ground.clear()
    finally:
        shutil.rmtree(folder)


def _prepare(
    folder: Path, application: Application, service: SupervisedService, servers: list[subprocess.Popen[bytes]]
) -> Ground:
    project = make_project(folder / "project")
    variables = {
        "odoo_conf": str(application.odoo_conf),
        "pg_bindir": str(application.server.bindir),
        "backup_dir": str(project.store),
        "services": ["application"],
        "service_manager": "supervisor",
        "supervisor_conf": str(service.conf),
        "health_url": service.url,
        "health_timeout": 15,
    }
    project.write_inventory({ENVIRONMENT: {"shop": variables}})
    with application.connect() as connection:
        connection.execute("DELETE FROM mail_message WHERE id > 300")
        connection.execute(sql.SQL("ALTER ROLE {} CREATEDB").format(sql.Identifier(application.role)))
        new = table_contents(connection)
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
        old = table_contents(connection)
    for path in gone:
        path.unlink()
    files, pristine = folder / "files", f"pristine_{application.name}"
    shutil.copytree(application.filestore, files)
    with application.server.connect() as connection:
        words = sql.Identifier(pristine), sql.Identifier(application.name)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*words))
    stored = frozenset(project.stored())
    return Ground(application.server, application, project, service, pristine, files, stored, old, new, servers)


@contextmanager
def _restartable() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Collect the servers that take the place of one that was crashed, and end them."""
    servers: list[subprocess.Popen[bytes]] = []
    try:
        yield servers
    finally:
        for process in servers:
            process.send_signal(signal.SIGINT)
            process.wait(30)


def _locks(connection: Session) -> int:
    row = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
    return int(row[0]) if row else 0


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
