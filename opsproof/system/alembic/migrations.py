"""Alembic, in the application's own interpreter and by its own env.py, on one database and no other.

`opsproof/system/alembic/agent.py` is what runs there; this is what asks it. Every request names the database by its oid
and its server by its start, so that an env.py that insists on another one is refused before its first statement.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psycopg import sql

from opsproof.errors import CommandFailed, CommandTimeout, MigrationError
from opsproof.system.alembic import agent as alembic_agent
from opsproof.system.alembic.errors import explain, last_lines
from opsproof.system.alembic.finding import find_ini, find_python, url_of
from opsproof.system.alembic.history import History, Revision
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.tunnel import database_host
from opsproof.system.postgres.server import Connection, connect, own_search_path
from opsproof.target import DatabaseAddress, Target

BOOT = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), 'alembic_agent.py', 'exec'))"
PLAN_SECONDS = 300.0
# A migration takes as long as it takes; this only ends one that never will.
RUN_SECONDS = 86_400.0
# What is set past SQLAlchemy can only read; what is set by the agent may write.
READ_ONLY = "-c default_transaction_read_only=on"


@dataclass(frozen=True)
class Place:
    """One database of one server's life: its name and oid, and when the server was started (seconds since 1970)."""

    name: str
    oid: int
    started: float


NOWHERE = Place("", 0, 0.0)
"""For a plan that no database is asked for."""


@dataclass(frozen=True)
class VersionTable:
    """Alembic's own table; `schema` is None where the search path finds it."""

    name: str = "alembic_version"
    schema: str | None = None


@dataclass(frozen=True)
class Versioning:
    """How the application's env.py keeps its revisions.

    Attributes:
        table: Where they stand.
        per_migration: Whether each revision has a transaction of its own.
        transactional: Whether the dialect can undo DDL at all.
        driver: SQLAlchemy's name of it.
    """

    table: VersionTable
    per_migration: bool
    transactional: bool
    driver: str


@dataclass(frozen=True)
class Planned:
    """What a downgrade would do.

    Attributes:
        heads: Where the database is.
        history: What the scripts have.
        target: Where to go; None where nobody said so.
        undone: The revisions that it undoes, in this order.
        left: The heads afterwards.
        sources: The text of each script that is undone, where there is one.
        versioning: None where the plan was made for heads of another database.
    """

    heads: tuple[str, ...]
    history: History
    target: str | None
    undone: tuple[Revision, ...]
    left: tuple[str, ...]
    sources: Mapping[str, str | None]
    versioning: Versioning | None

    @property
    def table(self) -> VersionTable:
        """Return where Alembic keeps its revisions: where it usually does, if env.py was not asked."""
        return self.versioning.table if self.versioning else VersionTable()


@dataclass(frozen=True)
class Step:
    """One revision that was undone or applied, and how many seconds it took."""

    revision: str
    seconds: float


class Migrations:
    """The migrations of one target.

    Args:
        host: Where the application is.
        target: Whose.

    Raises:
        MigrationError: There is no alembic.ini, or more than one.
    """

    def __init__(self, host: Host, target: Target) -> None:
        # It reaches the database as the application does: over its socket as the account of the role.
        self._host = host if target.database.via is None else database_host(target.database)
        self._address = target.database
        self._settings = target.migrations
        self.ini = self._settings.ini or find_ini(host, target)
        self.python = self._settings.python or find_python(host, self.ini)

    def plan(self, place: Place, target: str | None = None, heads: Sequence[str] | None = None) -> Planned:
        """Return where the database is, and what a downgrade to a revision would undo. Nothing is changed.

        Args:
            place: The database.
            target: The revision, as Alembic's command line takes it; None looks only.
            heads: Plan for a database that is at these, instead of this one.

        Raises:
            MigrationError: env.py fails or leads elsewhere, or Alembic cannot go there; its `found` is what it says.
        """
        answer = self._ask(
            {"action": "plan", "target": target, "heads": None if heads is None else list(heads)}, place, PLAN_SECONDS
        )
        history = History(tuple(_revision(one) for one in answer["revisions"]))
        database = answer["database"]
        planned = tuple(history.by_id[one] for one in answer["planned"] or ())
        at = tuple(answer["heads"])
        return Planned(
            heads=at,
            history=history,
            target=target,
            undone=planned,
            left=history.after_undoing(at, [one.id for one in planned]) if answer["planned"] is not None else at,
            sources=answer.get("sources", {}),
            versioning=None if database is None else _versioning(database),
        )

    def preview(self, place: Place, planned: Planned) -> str:
        """Return the SQL of a downgrade. It is to be read: nobody runs it.

        Raises:
            MigrationError: The migrations cannot be told without a database, or there is more than one head.
        """
        if len(planned.heads) != 1:
            raise MigrationError("Alembic previews the way from one head only", found=f"{len(planned.heads)} heads")
        request = {"action": "preview", "heads": list(planned.heads), "target": planned.target}
        return str(self._ask(request, place, PLAN_SECONDS)["output"])

    def downgrade(
        self, place: Place, planned: Planned, *, settings: Mapping[str, str], permit: str = ""
    ) -> tuple[Step, ...]:
        """Undo what was planned, and nothing else.

        Args:
            place: The database.
            planned: For a database at the same heads.
            settings: Of the session, as `SET` takes them: `lock_timeout`, `application_name`.
            permit: A query that has to return a row before the first and after the last step, within the transaction.

        Raises:
            LockTimeout: Somebody holds a lock for longer than `lock_timeout`; nothing was changed by an atomic chain.
            MigrationError: A migration failed, or the database is not where it was when the plan was made.
        """
        request = {
            "action": "downgrade",
            "target": planned.target,
            "heads": list(planned.heads),
            "revisions": [one.id for one in planned.undone],
            "permit": permit,
        }
        return self._run(request, place, settings)

    def upgrade(self, place: Place, targets: Sequence[str], *, settings: Mapping[str, str]) -> tuple[Step, ...]:
        """Apply every revision up to these.

        Raises:
            LockTimeout: Somebody holds a lock for longer than `lock_timeout`.
            MigrationError: A migration failed.
        """
        return self._run({"action": "upgrade", "targets": list(targets)}, place, settings)

    def _run(self, request: Mapping[str, Any], place: Place, settings: Mapping[str, str]) -> tuple[Step, ...]:
        writing = {**settings, "default_transaction_read_only": "off"}
        answer = self._ask({**request, "settings": writing}, place, RUN_SECONDS)
        return tuple(Step(one["revision"], one["seconds"]) for one in answer["steps"])

    def _ask(self, request: Mapping[str, Any], place: Place, timeout: float) -> dict[str, Any]:
        whole = {**request, "ini": str(self.ini), "database": place.name, "oid": place.oid, "started": place.started}
        output, stderr = self._talk(json.dumps(whole), timeout)
        try:
            answer = json.loads(output)
        except ValueError as error:
            raise MigrationError(
                f"Alembic of {self.ini} ended without an answer",
                expected="the application's env.py to run, and to return",
                found=last_lines(stderr) or "nothing on stderr",
                kept="what it was at work on is as its transaction left it",
                hint=f"cd {self.ini.parent} && {self.python} -m alembic -c {self.ini} current",
            ) from error
        if "error" in answer:
            raise explain(answer["error"], place.name, self.ini, self.python)
        return dict(answer)

    def _talk(self, request: str, timeout: float) -> tuple[bytes, str]:
        """Return what the agent answers, and the last lines of what the application printed."""
        text = Path(alembic_agent.__file__).read_bytes()
        output, deadline = bytearray(), time.monotonic() + timeout
        argv = (self.python, "-c", BOOT, str(len(text)), request)
        with self._host.pipe(*argv, env=self._environment(), feed=True) as pipe:
            try:
                pipe.write(text)
                # Its input stays open until its answer is here: so it ends when this process does.
                while piece := pipe.read():
                    output += piece
                    if time.monotonic() > deadline:
                        raise CommandTimeout(
                            f"Alembic of {self.ini} did not answer within {timeout:.0f} seconds",
                            expected="env.py to connect, and to return",
                            found=pipe.stderr,
                            kept="it was ended; its transaction is undone",
                            hint="see whether something holds a lock: SELECT * FROM pg_stat_activity",
                        )
                pipe.finish()
            except CommandFailed as error:
                return b"", error.found
            return bytes(output), pipe.stderr

    def _environment(self) -> dict[str, str]:
        """Return what env.py finds: the application's own variables, and the database's in the two usual forms."""
        address, own = self._address, {name: one.reveal() for name, one in self._settings.environ.items()}
        options = f"{address.parameters.get('options', '')} {READ_ONLY}".strip()
        words = {
            "PGHOST": address.host,
            "PGPORT": str(address.port),
            "PGUSER": address.user,
            "PGPASSWORD": address.password.reveal() if address.password else "",
            "PGDATABASE": address.name,
            "DATABASE_URL": url_of(address),
        }
        # What is compiled would stand beside the scripts: a dry run writes nothing, and a release that another account
        # has written into cannot be removed by its own.
        own |= {"PGOPTIONS": options, "PYTHONDONTWRITEBYTECODE": "1"}
        return {**{name: value for name, value in words.items() if value}, **own}


def place_of(address: DatabaseAddress, name: str) -> Place:
    """Return what tells a database from all others.

    Raises:
        DatabaseError: It cannot be reached.
    """
    with connect(address, database=name) as connection:
        row = connection.execute(
            "SELECT oid::bigint, extract(epoch FROM pg_postmaster_start_time())::text FROM pg_database"
            " WHERE datname = current_database()"
        ).fetchone()
    oid, started = row or (0, "0")
    return Place(name, int(oid), float(started))


def read_heads(connection: Connection, table: VersionTable) -> tuple[str, ...]:
    """Return the heads that stand in Alembic's own table; none where there is no such table."""
    name = sql.Identifier(table.schema, table.name) if table.schema else sql.Identifier(table.name)
    with own_search_path(connection):
        row = connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name.as_string(),)).fetchone()
        if row is None or not row[0]:
            return ()
        rows = connection.execute(sql.SQL("SELECT version_num::text FROM {} ORDER BY 1").format(name)).fetchall()
    return tuple(one for (one,) in rows)


def _revision(one: Mapping[str, Any]) -> Revision:
    return Revision(
        one["revision"], tuple(one["down"]), tuple(one["depends_on"]), tuple(one["labels"]), one["title"], one["path"]
    )


def _versioning(one: Mapping[str, Any]) -> Versioning:
    table = VersionTable(one["version_table"], one["version_table_schema"])
    return Versioning(table, one["per_migration"], one["transactional"], one["driver"])
