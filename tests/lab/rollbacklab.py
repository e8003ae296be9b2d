"""A rollback as it is watched from outside: a service with moods, clients in the way, and all that must stay."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from opsproof.intent import MARK
from tests.lab import shopkeeper
from tests.lab.action_run import ActionRun, require_failure
from tests.lab.application import Application
from tests.lab.background import Background
from tests.lab.migrated import BACKUP, ENV, ENVIRONMENT, PASSWORD, Migrated, Script
from tests.lab.supervised import SLOW_TO_TRUST, Supervised, supervised
from tests.lab.waiting import await_true

LOCKED = "orders"


@dataclass(frozen=True)
class State:
    """All of an application that a rollback which fails has to leave, or to bring back.

    Attributes:
        oid: Which database has the live name.
        properties: Owner, grants, comment, connection limit, whether it takes connections and is a template; settings.
        contents: Every table, Alembic's own among them.
        others: What else there is of it on the server.
    """

    oid: int
    properties: tuple[Any, ...]
    contents: Mapping[str, tuple[int, str]]
    others: tuple[str, ...]


def look(app: Migrated) -> State:
    """Return the state as it is."""
    with app.server.connect() as connection:
        row = connection.execute(
            "SELECT d.oid::bigint, datdba::regrole::text, datacl::text, shobj_description(d.oid, 'pg_database'),"
            " datconnlimit, datallowconn, datistemplate,"
            " ARRAY(SELECT setrole::regrole::text || setconfig::text FROM pg_db_role_setting WHERE setdatabase = d.oid"
            " ORDER BY 1) FROM pg_database d WHERE datname = %s",
            (app.name,),
        ).fetchone()
    assert row is not None, "there is no live database"
    return State(row[0], row[1:], app.contents(), tuple(app.databases()))


def require_as_before(app: Migrated, before: State, service: Supervised | None = None, *, same: bool = True) -> None:
    """Check that everything is as it was, and that nothing of the run is left.

    Args:
        app: Whose.
        before: What `look` returned.
        service: What has to run.
        same: Whether it is the very same database; else a copy of it may have its name.
    """
    now = look(app)
    assert (now.contents, now.properties, now.others) == (before.contents, before.properties, before.others)
    assert not same or now.oid == before.oid
    if service is not None:
        assert "RUNNING" in service.control("status", service.name)
        await_true(service.is_healthy, "the service does not answer")
    require_nothing_left(app)


def require_nothing_left(app: Migrated) -> None:
    """Check that there are no temporary files, processes, sessions or intents of unfinished runs."""
    await_true(lambda: app.project.litter() == [], "the run has left something")
    with app.server.connect() as connection:
        bearing = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
            " AND strpos(shobj_description(oid, 'pg_database'), %s) > 0 AND datallowconn",
            (app.name, MARK),
        ).fetchall()
        assert bearing == []

        def no_session() -> bool:
            query = "SELECT FROM pg_stat_activity WHERE starts_with(datname, %s) AND application_name ~ '^opsproof'"
            return connection.execute(query, (app.name,)).fetchall() == []

        await_true(no_session, "a session of the run is left")


def require_refusal(app: Migrated, run: ActionRun, step: str, *words: str, before: State, **how: Any) -> str:
    """Check that a run failed at a step with these words, and that all is as before; return the error."""
    message = require_failure(run, step, *words)
    require_as_before(app, before, **how)
    return message


def adopt(
    app: Migrated, scripts: Sequence[Script], rows: Sequence[str] = (), env: str = ENV, **options: object
) -> None:
    """Give an application that has no scripts yet a history of another kind, and go to its heads.

    Args:
        app: Made by `migrated(server, (), ())`.
        scripts: Its history.
        rows: Statements that fill it.
        env: Text of its env.py.
        options: Those of `context.configure`.
    """
    app.execute("DROP TABLE IF EXISTS alembic_version")
    app.write_env(env, **options)
    app.write(scripts)
    app.alembic("upgrade", "heads")
    app.execute(*rows)


def back_up(app: Migrated) -> str:
    """Take a backup; return its id."""
    run = app.project.run(action=BACKUP, env=ENVIRONMENT)
    assert run.status == 0, run.output
    return run.cases[-1].properties["backup_id"]


@contextmanager
def served(app: Migrated, **variables: object) -> Iterator[Supervised]:
    """Run the shopkeeper on an application, as the service of its target; `variables` are more of the inventory."""
    with supervised(application_of(app), shopkeeper.__file__, **SLOW_TO_TRUST) as service:
        app.describe(**{**service.variables, "health_timeout": 3, **variables})
        try:
            yield service
        finally:
            app.describe()


def feel(service: Supervised, mood: str) -> None:
    """Tell the shopkeeper what to take offence at; its docstring lists it."""
    (service.conf.parent / "mood").write_text(mood)


def application_of(app: Migrated) -> Application:
    """Return it as what a service runs on."""
    return Application(app.server, app.name, app.role, PASSWORD, app.folder / "files")


class Reconnecting(Background):
    """A client that connects again and again, whoever ends it; `seen` counts how often it got through."""

    pause = 0.01

    def __init__(self, app: Migrated) -> None:
        super().__init__()
        self.seen = 0
        self._app = app

    def work(self) -> None:
        """Connect, ask, and stay until it is ended."""
        while not self.is_over():
            try:
                with self._app.connect() as connection:
                    while not self.is_over():
                        connection.execute("SELECT 1")
                        self.seen += 1
            except psycopg.Error:
                continue


class Holding(Background):
    """A client that reads a table in a transaction which it does not end, and begins again whenever it is ended.

    Attributes:
        released: Set, it lets go for good.
    """

    pause = 0.01

    def __init__(self, app: Migrated, table: str = LOCKED) -> None:
        super().__init__()
        self.released = threading.Event()
        self._app = app
        self._table = table

    def work(self) -> None:
        """Hold the table."""
        query = sql.SQL("BEGIN; LOCK TABLE {} IN ACCESS SHARE MODE").format(sql.Identifier(self._table))
        while not self._is_done():
            try:
                with self._app.connect() as connection:
                    connection.execute(query)
                    while not self._is_done():
                        connection.execute("SELECT 1")
            except psycopg.Error:
                continue

    def _is_done(self) -> bool:
        return self.released.is_set() or self.is_over()
