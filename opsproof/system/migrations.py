"""Alembic, in the application's own interpreter and by its own env.py, on one database and no other.

`opsproof/system/alembic_agent.py` is what runs there; this is what asks it. Every request names the database by its oid
and its server by its start, so that an env.py that insists on another one is refused before its first statement.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from psycopg import sql

from opsproof.errors import CommandFailed, CommandTimeout, LockTimeout, MigrationError
from opsproof.system import alembic_agent
from opsproof.system.history import History, Revision
from opsproof.system.host import Host
from opsproof.system.postgres import Connection, connect, own_search_path
from opsproof.target import DatabaseAddress, Target

INI = "alembic.ini"
BOOT = "import sys; exec(compile(sys.stdin.buffer.read(int(sys.argv[1])), 'alembic_agent.py', 'exec'))"
ENVIRONMENTS = (".venv", "venv", "env", ".env")
PLAN_SECONDS = 300.0
# A migration takes as long as it takes; this only ends one that never will.
RUN_SECONDS = 86_400.0
LOCK_NOT_AVAILABLE = "55P03"
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
        self._host = host
        self._address = target.database
        self._settings = target.migrations
        self.ini = self._settings.ini or find_ini(target)
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
                found=_last(stderr) or "nothing on stderr",
                kept="what it was at work on is as its transaction left it",
                hint=f"cd {self.ini.parent} && {self.python} -m alembic -c {self.ini} current",
            ) from error
        if "error" in answer:
            raise self._explain(answer["error"], place)
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
        return {**{name: value for name, value in words.items() if value}, **own, "PGOPTIONS": options}

    def _explain(self, error: Mapping[str, Any], place: Place) -> MigrationError | LockTimeout:
        kind, message = str(error["kind"]), str(error["message"])
        if error.get("sqlstate") == LOCK_NOT_AVAILABLE:
            return LockTimeout(
                f"A migration did not get a lock on {place.name!r} in time",
                expected="every table that it changes free for a moment",
                found=message.splitlines()[0],
                kept="the migration's transaction was undone",
                hint="see who holds it: SELECT pid, usename, query FROM pg_stat_activity WHERE state <> 'idle'",
            )
        told = _EXPLAINED.get(kind, _EXPLAINED["application"])
        found = f"{message}\n{_last(str(error['trace']))}" if error.get("trace") else message
        if kind == "elsewhere":
            found = f"{message}: {error.get('database')!r} (oid {error.get('oid')}, user {error.get('user')})"
        return MigrationError(
            told[0].format(place=place.name, ini=self.ini, python=self.python),
            expected=told[1].format(place=place.name),
            found=found,
            kept="nothing was changed by what was refused; what had begun was undone with its transaction",
            hint=told[2].format(ini=self.ini, python=self.python, folder=self.ini.parent),
        )


_EXPLAINED = {
    "no ini": (
        "{ini} cannot be read",
        "the alembic.ini of the application, where the inventory says it is",
        "correct alembic_ini; ls -l {folder}",
    ),
    "no alembic": (
        "{python} has no Alembic",
        "the application's own interpreter, with Alembic and the application's libraries",
        "alembic_python: /srv/app/venv/bin/python",
    ),
    "elsewhere": (
        "env.py of {ini} leads to another database than {place!r}",
        "every connection to {place!r}",
        "let env.py take its database from the application's settings, through SQLAlchemy",
    ),
    "several": (
        "env.py of {ini} migrates more than one database",
        "one database for each alembic.ini",
        "give each database an alembic.ini and a target of its own",
    ),
    "target": (
        "Alembic cannot go there",
        "a revision below the current one",
        "cd {folder} && {python} -m alembic -c {ini} history",
    ),
    "stale": (
        "The plan is not true any more: {place!r} is somewhere else, or the scripts were changed",
        "the database and the scripts as they were when the plan was made",
        "run it again, and read the new plan",
    ),
    "withdrawn": (
        "The run that began this downgrade is over: another one has cleared up after it",
        "the intent of this run on the server",
        "run it again",
    ),
    "nothing run": (
        "env.py of {ini} ran no migrations",
        "a call of context.run_migrations()",
        "compare it with Alembic's template: alembic init -t generic",
    ),
    "application": (
        "Alembic failed on {place!r}",
        "every migration to run",
        "cd {folder} && {python} -m alembic -c {ini} current",
    ),
}


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


def find_ini(target: Target) -> PurePosixPath:
    """Return the one alembic.ini of an application.

    Raises:
        MigrationError: There is none, or there are several.
    """
    folders = [Path(folder) for folder in (target.deploy_folder, ".") if folder]
    if target.deploy_folder:
        folders.insert(0, Path(target.deploy_folder) / "current")
    for folder in folders:
        found = [folder / INI] if (folder / INI).is_file() else sorted(folder.glob(f"*/{INI}"))
        if len(found) == 1:
            return PurePosixPath(found[0].resolve())
        if found:
            raise MigrationError(
                f"{target.name} has more than one alembic.ini",
                expected="one, or the inventory to say which",
                found=", ".join(map(str, found)),
                kept="nothing was changed",
                hint=f"alembic_ini: {found[0].resolve()}",
            )
    raise MigrationError(
        f"{target.name} has no alembic.ini",
        expected=f"alembic_ini in the inventory, or one in {', '.join(str(one.resolve()) for one in folders)}",
        found="none",
        kept="nothing was changed",
        hint="alembic_ini: /srv/app/alembic.ini",
    )


def find_python(host: Host, ini: PurePosixPath) -> str:
    """Return the interpreter of the virtual environment beside an alembic.ini or above it; this one where none is."""
    for folder in (ini.parent, ini.parent.parent):
        for name in ENVIRONMENTS:
            if host.is_executable(str(folder / name / "bin" / "python")):
                return str(folder / name / "bin" / "python")
    return sys.executable


def url_of(address: DatabaseAddress) -> str:
    """Return the address as a URL, every part percent-encoded; a socket's folder stands in the query."""
    user = quote(address.user, safe="")
    if address.password is not None:
        user += ":" + quote(address.password.reveal(), safe="")
    is_socket = address.host.startswith("/")
    place = "" if is_socket or not address.host else f"{address.host}:{address.port}"
    query = f"?host={quote(address.host, safe='/')}&port={address.port}" if is_socket else ""
    return f"postgresql://{user}{'@' if user else ''}{place}/{quote(address.name, safe='')}{query}"


def _revision(one: Mapping[str, Any]) -> Revision:
    return Revision(
        one["revision"], tuple(one["down"]), tuple(one["depends_on"]), tuple(one["labels"]), one["title"], one["path"]
    )


def _versioning(one: Mapping[str, Any]) -> Versioning:
    table = VersionTable(one["version_table"], one["version_table_schema"])
    return Versioning(table, one["per_migration"], one["transactional"], one["driver"])


def _last(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-6:])
