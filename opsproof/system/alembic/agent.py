"""What runs in the application's own interpreter, with the application's own Alembic and env.py.

Its text is handed to that interpreter on standard input, with its length and a request (JSON) as arguments, and it
answers with one line of JSON on standard output; whatever the application prints goes to standard error. So it stands
alone: the standard library, Alembic and SQLAlchemy, in versions that applications have, and nothing of opsproof.

Standard input stays open for as long as somebody waits for the answer. Once it ends, nobody does: whoever asked was
killed, or cannot be reached, and the work ends at once, with its transaction. An empty line now and then says that it
goes on.

A request has:

- `action`: `plan`, `preview`, `downgrade` or `upgrade`;
- `ini`: the path of alembic.ini (or pyproject.toml);
- `database`, `oid`, `started`: where alone it may work: the database's name and oid, and when its server was started
  (seconds since 1970). Every connection that SQLAlchemy makes is pointed there and, before its first statement, asked
  whether it is there. One that is made past SQLAlchemy can only read: PGOPTIONS, which the caller sets, says so.
- `target`: the revision to go to, as Alembic's command line takes it; for `upgrade`, `targets`;
- `heads`, `revisions`: for `downgrade`, what was planned: anything else is refused, inside the transaction;
- `permit`: for `downgrade`, a query that has to return a row before the first and after the last step;
- `settings`: of each session, as SQL `SET` knows them.
"""

from __future__ import annotations

import io
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

Request = dict[str, Any]
Answer = dict[str, Any]
SIGN_SECONDS = 5.0
SPEAKING = threading.Lock()

Work = Callable[[Any, Any], Iterable[Any]]


class Refused(Exception):
    """What was asked for is not what is there; `kind` says which of the two is wrong."""

    def __init__(self, kind: str, message: str, **found: object) -> None:
        super().__init__(message)
        self.kind = kind
        self.found = found


def main() -> None:
    """Answer one request."""
    answer_to = os.dup(1)
    os.dup2(2, 1)
    threading.Thread(target=end_with_the_asker, daemon=True).start()
    threading.Thread(target=show_signs_of_life, args=(answer_to,), daemon=True).start()
    # The current folder is on the path of a program that comes from standard input; Alembic's command has it not.
    sys.path[:] = [entry for entry in sys.path if entry]
    request = json.loads(sys.argv[2])
    try:
        answer = answer_to_request(request)
    except Refused as error:
        answer = {"error": {"kind": error.kind, "message": str(error), **error.found}}
    except (Exception, SystemExit) as error:  # whatever the application's own code raises
        answer = {"error": describe(error)}
    sys.stdout.flush()
    sys.stderr.flush()
    text = (json.dumps(answer, default=str) + "\n").encode()
    with SPEAKING:
        while text:
            text = text[os.write(answer_to, text) :]
    # What the application started (threads, loops) is not waited for. Only now does the reader see the end, and close
    # the input in its turn.
    os._exit(0)


def end_with_the_asker() -> None:
    """End this process as soon as nobody waits for its answer any more."""
    sys.stdin.buffer.read(1)
    os._exit(1)


def show_signs_of_life(answer_to: int) -> None:
    """Write an empty line every few seconds."""
    while True:
        time.sleep(SIGN_SECONDS)
        with SPEAKING:
            os.write(answer_to, b"\n")


def answer_to_request(request: Request) -> Answer:
    """Return the answer."""
    try:
        import alembic
        import sqlalchemy
        from alembic.config import Config
        from alembic.script import ScriptDirectory
    except ImportError as error:
        raise Refused("no alembic", str(error), interpreter=sys.executable) from error
    ini = request["ini"]
    if not Path(ini).is_file():
        raise Refused("no ini", "there is no such file")
    # Relative paths in it are relative to where people run `alembic`: beside it.
    os.chdir(Path(ini).parent)
    output = io.StringIO()
    options = {"toml_file": ini} if ini.endswith(".toml") else {"file_": ini}
    config = Config(output_buffer=output, **options)
    script = ScriptDirectory.from_config(config)
    guard(request)
    actions = {"plan": plan, "preview": preview, "downgrade": downgrade, "upgrade": upgrade}
    answer = actions[request["action"]](request, config, script)
    versions = {"python": sys.version.split()[0], "alembic": alembic.__version__, "sqlalchemy": sqlalchemy.__version__}
    return {**answer, "versions": versions, "output": output.getvalue()}


def guard(request: Request) -> None:
    """Point every connection at the one database, and let none do anything that is not there."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine
    from sqlalchemy.pool import Pool

    def aim(dialect: Any, _record: object, _arguments: object, parameters: dict[str, Any]) -> None:
        if dialect.name == "postgresql":
            key = next((one for one in ("dbname", "database") if one in parameters), None)
            if key is None:
                key = "dbname" if dialect.driver.startswith("psycopg") else "database"
            parameters[key] = request["database"]

    def ask(connection: Any, _record: object) -> None:
        cursor = connection.cursor()
        cursor.execute(
            "SELECT current_database(), oid::bigint, extract(epoch FROM pg_postmaster_start_time())::text,"
            " current_user::text FROM pg_database WHERE datname = current_database()"
        )
        name, oid, started, user = cursor.fetchone()
        if (int(oid), float(started)) != (request["oid"], request["started"]):
            connection.rollback()
            raise Refused("elsewhere", "env.py connects to another database", database=name, oid=int(oid), user=user)
        for setting, value in request.get("settings", {}).items():
            # The values are ours, and quotes in them are doubled; asyncpg's SET takes no parameters.
            cursor.execute("SET {} = '{}'".format(setting, str(value).replace("'", "''")))
        cursor.close()
        connection.commit()

    event.listen(Engine, "do_connect", aim)
    event.listen(Pool, "connect", ask)


def run_environment(config: Any, script: Any, work: Work, **options: object) -> Answer:
    """Run the application's env.py; `work(heads, context)` yields the steps. Return what is known of the database."""
    from alembic.runtime.environment import EnvironmentContext

    seen: list[Answer] = []

    def migrate(heads: Any, context: Any) -> Iterable[Any]:
        if seen:
            raise Refused("several", "env.py migrates more than one database")
        heads = [heads] if isinstance(heads, str) else list(heads or ())
        seen.append(
            {
                "heads": sorted(heads),
                "version_table": context.version_table,
                "version_table_schema": context.version_table_schema,
                "per_migration": bool(getattr(context, "_transaction_per_migration", False)),
                "transactional": bool(context.impl.transactional_ddl),
                "dialect": context.dialect.name,
                "driver": context.dialect.driver,
            }
        )
        return work(heads, context)

    with EnvironmentContext(config, script, fn=migrate, **options):
        script.run_env()
    if not seen:
        raise Refused("nothing run", "env.py did not call context.run_migrations()")
    return seen[0]


def plan(request: Request, config: Any, script: Any) -> Answer:
    """Return the current heads, all revisions, and those that a downgrade to the target undoes, in its order."""
    heads = request.get("heads")
    database = None
    if heads is None:
        database = run_environment(config, script, lambda _heads, _context: (), dont_mutate=True)
        heads = database["heads"]
    known = {}
    for revision in script.walk_revisions("base", "heads"):
        known[revision.revision] = {
            "revision": revision.revision,
            "down": as_list(revision.down_revision),
            "depends_on": as_list(revision.dependencies),
            "labels": sorted(revision.branch_labels or ()),
            "title": (revision.doc or "").split("\n")[0],
            "path": revision.path,
        }
    answer = {
        "database": database,
        "heads": heads,
        "revisions": list(known.values()),
        "script_heads": script.get_heads(),
    }
    target = request.get("target")
    if target is None or any(head not in known for head in heads):
        return {**answer, "planned": None}
    with_errors_of_alembic(lambda: require_target(script, target))
    planned = with_errors_of_alembic(
        lambda: [one.revision for one in script.iterate_revisions(tuple(heads), target, select_for_downgrade=True)]
    )
    sources: dict[str, str | None] = {}
    for one in planned:
        try:
            sources[one] = Path(known[one]["path"]).read_text(encoding="utf-8")
        except (OSError, ValueError):
            sources[one] = None
    return {**answer, "planned": planned, "sources": sources}


def require_target(script: Any, target: str) -> None:
    """Raise what Alembic raises for a revision that it does not know or that several have; relative ones pass."""
    name = target.split("@")[-1]
    if name in ("base", "head", "heads") or "+" in name or "-" in name:
        return
    script.get_revisions(target)


def with_errors_of_alembic(work: Callable[[], Any]) -> Any:
    """Return what the work returns; tell an error of Alembic's from those of the application."""
    from alembic.script.revision import RevisionError
    from alembic.util import CommandError

    try:
        return work()
    except (CommandError, RevisionError) as error:
        causes = [type(one).__name__ for one in chain_of(error)]
        raise Refused("target", str(error), causes=causes) from error


def preview(request: Request, config: Any, _script: Any) -> Answer:
    """Return the SQL that Alembic would send, where the migrations can be told without a database."""
    from alembic import command

    command.downgrade(config, "{}:{}".format(request["heads"][0], request["target"]), sql=True)
    return {}


def downgrade(request: Request, config: Any, script: Any) -> Answer:
    """Undo the planned revisions, and no others."""
    steps: list[Answer] = []

    def work(heads: Any, context: Any) -> Iterator[Any]:
        require_permit(request, context)
        # Alembic's own, as its command has it.
        found = list(script._downgrade_revs(request["target"], heads))
        names = [step.revision.revision for step in found]
        if sorted(heads) != sorted(request["heads"]) or names != request["revisions"]:
            raise Refused("stale", "the plan is not true any more", heads=sorted(heads), revisions=names)
        yield from timed(found, steps)
        # Still in the transaction, where the whole chain is one.
        require_permit(request, context)

    database = run_environment(config, script, work, destination_rev=request["target"])
    return {"database": database, "steps": steps}


def require_permit(request: Request, context: Any) -> None:
    """Raise unless whoever asked still wants it: a later run may have cleared up after one that was killed."""
    query = request.get("permit")
    if query and context.connection.exec_driver_sql(query).fetchone() is None:
        raise Refused("withdrawn", "the run that asked for it is over")


def upgrade(request: Request, config: Any, script: Any) -> Answer:
    """Apply every revision up to the targets."""
    steps: list[Answer] = []
    for target in request["targets"]:

        def work(heads: Any, _context: Any, target: str = target) -> Iterator[Any]:
            return timed(list(script._upgrade_revs(target, heads)), steps)

        run_environment(config, script, work, destination_rev=target)
    return {"steps": steps}


def timed(found: list[Any], steps: list[Answer]) -> Iterator[Any]:
    """Yield steps, and note how many seconds each took."""
    for step in found:
        started = time.monotonic()
        yield step
        steps.append({"revision": step.revision.revision, "seconds": time.monotonic() - started})


def describe(error: BaseException) -> Answer:
    """Return an error of the application as JSON has it: what, SQLSTATE, and where in the application."""
    found: Answer = {"kind": "application", "message": f"{type(error).__name__}: {error}", "sqlstate": None}
    for one in chain_of(error):
        if isinstance(one, Refused):
            return {"kind": one.kind, "message": str(one), **one.found}
        state = getattr(one, "sqlstate", None) or getattr(one, "pgcode", None)
        if isinstance(state, str) and found["sqlstate"] is None:
            found["sqlstate"] = state
    found["trace"] = "".join(traceback.format_exception(type(error), error, error.__traceback__)[-4:])
    return found


def chain_of(error: BaseException | None) -> list[BaseException]:
    """Return an error and all that it came from."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = getattr(error, "orig", None) or error.__cause__ or error.__context__
    return chain


def as_list(value: Any) -> list[str]:
    """Return one, several or no revisions as a list."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


if __name__ == "__main__":
    main()
