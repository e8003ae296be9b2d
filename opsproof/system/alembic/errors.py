"""What an answer of the agent that is an error means, and what to type next."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from opsproof.errors import LockTimeout, MigrationError

LOCK_NOT_AVAILABLE = "55P03"
LAST_LINES = 6
# For each kind: what happened, what was expected, what to do.
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


def explain(error: Mapping[str, Any], database: str, ini: PurePosixPath, python: str) -> MigrationError | LockTimeout:
    """Return the error that the agent's answer stands for.

    Args:
        error: Its kind and message, as `agent.py` writes them.
        database: The one that was asked for.
        ini: Of the application.
        python: Its interpreter.
    """
    kind, message = str(error["kind"]), str(error["message"])
    if error.get("sqlstate") == LOCK_NOT_AVAILABLE:
        return LockTimeout(
            f"A migration did not get a lock on {database!r} in time",
            expected="every table that it changes free for a moment",
            found=message.splitlines()[0],
            kept="the migration's transaction was undone",
            hint="see who holds it: SELECT pid, usename, query FROM pg_stat_activity WHERE state <> 'idle'",
        )
    told = _EXPLAINED.get(kind, _EXPLAINED["application"])
    found = f"{message}\n{last_lines(str(error['trace']))}" if error.get("trace") else message
    if kind == "elsewhere":
        found = f"{message}: {error.get('database')!r} (oid {error.get('oid')}, user {error.get('user')})"
    return MigrationError(
        told[0].format(place=database, ini=ini, python=python),
        expected=told[1].format(place=database),
        found=found,
        kept="nothing was changed by what was refused; what had begun was undone with its transaction",
        hint=told[2].format(ini=ini, python=python, folder=ini.parent),
    )


def last_lines(text: str) -> str:
    """Return the end of what a program has printed."""
    return "\n".join(text.strip().splitlines()[-LAST_LINES:])
