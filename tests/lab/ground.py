"""What must be true of an application once a restore of it was killed.

Nothing here asks the engine what became of a restore: databases are told apart by their rows, files by their content.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.lab import counting
from tests.lab.action_run import ActionRun, Begun, Project, make_project
from tests.lab.application import Application, file_contents, table_contents
from tests.lab.crash import CrashingServer
from tests.lab.postgres_server import WHEEL, PostgresServer, Session
from tests.lab.supervised import Supervised, supervised
from tests.lab.waiting import await_true

RESTORE = "actions/test_restore.py"
RECOVER = "actions/test_recover.py"
ENVIRONMENT = "staging"
CONNECT_SECONDS = 10.0
MARK = "opsproof.intent "
COMMENT = "the shop's"


@dataclass(frozen=True)
class Variant:
    """What differs from one ground to the next.

    Attributes:
        server: Which: `wheel` or `system`.
        exchanged: The filestore is not content-addressed: its folder is exchanged with the database.
        in_place: Restores drop the live database first.
    """

    server: str = WHEEL
    exchanged: bool = False
    in_place: bool = False

    def __str__(self) -> str:
        return "-".join(filter(None, (self.server, "exchanged" * self.exchanged, "in_place" * self.in_place)))


@dataclass(frozen=True)
class Data:
    """What an application has: every table, and every file."""

    tables: Mapping[str, tuple[int, str]]
    files: Mapping[str, str]


@dataclass
class Ground:
    """One application, its service, and the two states that its database may be in.

    Attributes:
        variant: Which of several.
        server: Its own.
        crashing: Ends it and starts it again.
        application: Whose database is restored.
        project: Whence the actions run.
        service: Which the restore stops and starts.
        old: What is live before a restore.
        new: What the backup holds.
    """

    variant: Variant
    server: PostgresServer
    crashing: CrashingServer
    application: Application
    project: Project
    service: Supervised
    pristine: str
    files: Path
    stored: frozenset[str]
    old: Data
    new: Data

    def reset(self) -> None:
        """Bring everything into the state before a restore."""
        name, files = self.application.name, self.application.filestore
        with self.server.connect() as connection:
            self._drop(connection, self.databases(connection))
            words = sql.Identifier(name), sql.Identifier(self.pristine), sql.Identifier(self.application.role)
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*words))
            connection.execute(sql.SQL("COMMENT ON DATABASE {} IS {}").format(words[0], COMMENT))
        for folder in [files, self.application.frozen, *self.folders()]:
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.files, files)
        for stored in set(self.project.stored()) - self.stored:
            (self.project.store / stored).unlink()
        shutil.rmtree(self.project.temporary)
        self.project.temporary.mkdir()
        self.service.control("start", self.service.name)
        self.service.await_answer()

    def lose(self) -> None:
        """Lose the live database, without which the service does not start."""
        self.service.control("stop", self.service.name)
        with self.server.connect() as connection:
            self._drop(connection, self.databases(connection))

    def clear(self) -> None:
        """Stop the service and drop all that was made of the live database, and what it was made from."""
        self.service.control("stop", self.service.name)
        with self.server.connect() as connection:
            self._drop(connection, [*self.databases(connection), self.pristine])

    def begin(
        self, action: str = RESTORE, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Begun]:
        """Begin an action; whatever of it still runs at the end of the block is killed."""
        own = ("--in-place",) if self.variant.in_place and action == RESTORE else ()
        return self.project.begin(*own, *arguments, action=action, env=ENVIRONMENT, environ=environ)

    def recover(self, project: Project | None = None) -> ActionRun:
        """Run the recovery to its end."""
        return (project or self.project).run(action=RECOVER, env=ENVIRONMENT)

    def restore(self) -> None:
        """Restore without being disturbed, which must succeed."""
        with self.begin() as begun:
            run = begun.finish()
        assert run.status == 0, run.output

    def move_elsewhere(self) -> Project:
        """Return a project on a runner that knows nothing of this one, whose disk is wiped."""
        elsewhere = make_project(Path(tempfile.mkdtemp(prefix="elsewhere-", dir=self.project.folder.parent)))
        shutil.copy(self.project.inventory, elsewhere.inventory)
        shutil.rmtree(self.project.temporary)
        self.project.temporary.mkdir()
        shutil.rmtree(self.project.logs, ignore_errors=True)
        return elsewhere

    def require_whole(self) -> str:
        """Check that the live database is one of the two, and has all its files; return which: `old` or `new`.

        In place it may be `gone`, where a safety backup is told of that is there. Files that are exchanged may be
        those of the other database for as long as the service is down, and somebody is told to put that right.
        """
        live = self._find_live()
        if live == "gone":
            assert self.variant.in_place, "there is no live database"
            with self.server.connect() as connection:
                intents = self.intents(connection).values()
            assert any(f"{one['safety']}.manifest.json" in self.project.stored() for one in intents), intents
        if not self.variant.exchanged:
            return live
        files = file_contents(self.application.filestore)
        wanted = self.new if live == "new" else self.old
        if files != wanted.files:
            assert files in (self.old.files, self.new.files, {}), "the files are neither of the two"
            with self.server.connect() as connection:
                assert "swapped" in self.stages(connection).values(), self.stages(connection)
            status = self.service.control("status", self.service.name)
            assert "STOPPED" in status, status
        return live

    def require_refusal(self) -> None:
        """Check that the next restore does nothing where something is unfinished, and says what to do."""
        if not self._is_unfinished():
            return
        with self.begin(RESTORE, "--dry-run") as begun:
            run = begun.finish()
        if run.status == 0:
            # The server goes on dropping a side database after the kill, and may have come to the end of that.
            assert not self._is_unfinished(), run.output
            return
        assert run.status == 1, run.output
        refusal = run.failed_step()
        assert refusal.step == "test_nothing_is_unfinished", run.output
        assert "pytest actions/test_recover.py --env=staging --target=shop" in refusal.message

    def require_settled(self, project: Project | None = None, *, parked: int | None = None) -> str:
        """Check that nothing of a run is left but what it is to keep; return which database is live.

        Args:
            project: Where the last run was.
            parked: How many databases are kept; by default one if the new one is live, unless it was made in place.
        """
        live, name = self.require_whole(), self.application.name
        if parked is None:
            parked = int(live == "new" and not self.variant.in_place)
        with self.server.connect() as connection:
            databases = self.databases(connection)
            assert [one for one in databases if one.startswith(f"{name}__side_")] == [], databases
            row = connection.execute(
                "SELECT datallowconn, datistemplate, datconnlimit, shobj_description(oid, 'pg_database')"
                " FROM pg_database WHERE datname = %s",
                (name,),
            ).fetchone()
            assert row == (True, False, -1, COMMENT), row
            others = [one for one in databases if one != name]
            assert self.stages(connection) == dict.fromkeys(others, "kept"), self.intents(connection)
            assert len(others) == parked, databases
            await_true(lambda: _locks(connection) == 0, "an advisory lock is left")
        # A service that was killed is started again by supervisor, which takes a second to call it running.
        await_true(
            lambda: "RUNNING" in self.service.control("status", self.service.name), "the service does not run", 30
        )
        with self.application.connect() as connection:
            rows = connection.execute("SELECT count(*) FROM public.ir_attachment").fetchone()
        assert rows is not None
        assert self.service.await_answer() == str(rows[0])
        self._require_no_litter()
        for one in {id(here): here for here in (self.project, project or self.project)}.values():
            await_true(lambda one=one: one.litter() == [], f"left: {one.litter()}")  # type: ignore[misc]
        return live

    def folders(self) -> list[Path]:
        """Return the folders of files beside the live one that restores have made."""
        files = self.application.filestore
        return [*files.parent.glob(f".{files.name}.opsproof-side-*"), *files.parent.glob(f"{files.name}__before_*")]

    def databases(self, connection: Session) -> list[str]:
        """Return the live database and all that were made of it."""
        rows = connection.execute(
            "SELECT datname::text FROM pg_database WHERE datname = %s OR starts_with(datname, %s) ORDER BY 1",
            (self.application.name, self.application.name + "__"),
        ).fetchall()
        return [str(row[0]) for row in rows]

    def intents(self, connection: Session) -> dict[str, dict[str, Any]]:
        """Return every database's intent."""
        rows = connection.execute(
            "SELECT datname::text, shobj_description(oid, 'pg_database') FROM pg_database"
            " WHERE starts_with(shobj_description(oid, 'pg_database'), %s)",
            (MARK,),
        ).fetchall()
        return {str(name): json.loads(json.loads(str(text).removeprefix(MARK))["intent"]) for name, text in rows}

    def stages(self, connection: Session) -> dict[str, str]:
        """Return the stage of every database's intent."""
        return {name: one["stage"] for name, one in self.intents(connection).items()}

    def _is_unfinished(self) -> bool:
        with self.server.connect() as connection:
            return not {*self.stages(connection).values()} <= {"kept"}

    def _find_live(self) -> str:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                with self.application.connect() as connection:
                    tables = table_contents(connection)
                    connection.execute("SET search_path = public")
                    names = connection.execute("SELECT store_fname FROM ir_attachment").fetchall()
                break
            except psycopg.OperationalError as error:
                if f'database "{self.application.name}" does not exist' in str(error):
                    return "gone"
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        assert tables in (self.old.tables, self.new.tables), "live is neither what was nor what the backup holds"
        # Files that are exchanged with their database are looked at as a whole.
        for (name,) in names if not self.variant.exchanged else ():
            content = (self.application.filestore / name).read_bytes()
            assert hashlib.sha1(content, usedforsecurity=False).hexdigest() == name.rpartition("/")[2], name
        return "old" if tables == self.old.tables else "new"

    def _require_no_litter(self) -> None:
        files = self.application.filestore
        left = [*files.rglob(".opsproof*"), *files.parent.glob(f".{files.name}.opsproof-*")]
        assert left == [], left
        unfinished = [one for one in self.project.stored() if ".part-" in one]
        assert unfinished == [], unfinished

    @staticmethod
    def _drop(connection: Session, databases: list[str]) -> None:
        for one in databases:
            identifier = sql.Identifier(one)
            connection.execute(sql.SQL("ALTER DATABASE {} WITH IS_TEMPLATE false").format(identifier))
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def counting_service(application: Application) -> AbstractContextManager[Supervised]:
    """Have the counting application under supervisor, which starts it again whenever it is killed; not started yet."""
    options = {"autostart": "false", "autorestart": "true", "startsecs": "1", "startretries": "20"}
    return supervised(application, counting.__file__, name="application", **options)


def _locks(connection: Session) -> int:
    row = connection.execute("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'").fetchone()
    return int(row[0]) if row else 0
