"""How long an outage: a schema's rollback against plain `alembic downgrade` and the service's own stop and start.

    python benchmarks/rollback.py                                a 0.2 GB database
    python benchmarks/rollback.py --rows=2500000                 a 0.9 GB one

Two revisions are undone, a column and an index, in one transaction. The floor is what nobody can do without: the
service's own stop and start, and `alembic downgrade` of the same on a copy of the database, as a whole command. Ours is
the live part of `pytest actions/test_rollback.py --type=schema`: from the stop of the service until it answers again,
with the copy that is kept, and the comparison of the schema, in between.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from textwrap import dedent, indent

from psycopg import sql

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.data import INDEXES, TABLES
from benchmarks.measure import MEGABYTE, Measured, measure, run_action
from benchmarks.project import DATABASE, parser_of, prepare
from benchmarks.service import Supervised, Visitor, supervised
from tests.lab.postgres_server import PostgresServer, running_postgres

ROWS = 550_000
COPY = "plain"
GOAL, HEAD = "tables", "subject"
MOST_EXCESS = 2.0
ENVIRONMENT = """
import os
from alembic import context
from sqlalchemy import create_engine, pool

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        context.configure(connection=connection)
        with context.begin_transaction():
            context.run_migrations()
"""


@dataclass(frozen=True)
class Script:
    """One migration: its revision, what it builds on, and the bodies of its two functions."""

    revision: str
    down: str | None
    upgrade: str
    downgrade: str


SCRIPTS = (
    Script(GOAL, None, f'op.execute("""{TABLES}""")\nop.execute("""{INDEXES}""")', "raise RuntimeError('no')"),
    Script(
        "rating", GOAL,
        "op.add_column('messages', sa.Column('rating', sa.Integer, server_default='3'))",
        "op.drop_column('messages', 'rating')",
    ),
    Script(
        HEAD, "rating",
        "op.create_index('messages_subject', 'messages', ['subject'])",
        "op.drop_index('messages_subject')",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Application:
    """The migrations of an application, as its developers run them."""

    server: PostgresServer
    ini: Path

    def alembic(self, *words: str, database: str = DATABASE) -> Measured:
        """Run Alembic on a database, and measure it."""
        environment = {**os.environ, "DATABASE_URL": self.server.url(database)}
        argv = [sys.executable, "-m", "alembic", "-c", str(self.ini), *words]
        return measure(argv, self.ini.parent, environment, [])


def main() -> None:
    """Run the benchmark, print what was measured, and fail where it is more than is promised."""
    parser = parser_of(__doc__)
    parser.set_defaults(rows=ROWS, files=20)
    options = parser.parse_args()
    with (
        running_postgres(options.server) as server,
        tempfile.TemporaryDirectory(prefix="opsproof-bench-", dir=options.folder) as name,
        supervised(Path(name), server.url(DATABASE)) as service,
    ):
        folder = Path(name)
        application = Application(server, write_migrations(folder / "application"))
        settings = {"alembic_ini": str(application.ini), "alembic_python": sys.executable}
        prepare(server, folder, options, **service.settings, **settings)
        application.alembic("stamp", GOAL)
        application.alembic("upgrade", HEAD)
        excess = [run_once(application, folder, service) for _ in range(options.runs)]
    typical = median(excess)
    print(f"\nmedian of the runs: {typical:.2f} s more than the floor", flush=True)
    if typical > MOST_EXCESS:
        raise SystemExit(f"an outage that is more than {MOST_EXCESS} s longer than the floor")


def run_once(application: Application, folder: Path, service: Supervised) -> float:
    """Downgrade a copy, restart the service, then roll back below it; print and return by how much ours is longer."""
    service.wait()
    restart = service.restart()
    plain = run_plain(application)
    settle(application.server)
    with Visitor(service.port) as visitor:
        ours = run_action("rollback", folder, "--type=schema", f"--to-revision={GOAL}", "--allow-data-loss")
    reset(application)
    (outage,) = (event for event in ours.events if event["event"] == "outage")
    excess = float(outage["total"]) - restart - plain
    parts = ", ".join(f"{phase} {seconds:.2f}" for phase, seconds in live_phases(ours).items())
    print(
        f"outage {outage['total']:.2f} s ({parts}) in {ours.seconds:.1f} s of rollback, load {os.getloadavg()[0]:.1f};"
        f" a visitor got no answer for {visitor.longest:.2f} s;\n  the service's own stop and start {restart:.2f} s,"
        f" alembic downgrade {plain:.2f} s: {excess:.2f} s more; memory {ours.memory / MEGABYTE:.0f} MB",
        flush=True,
    )
    return excess


def run_plain(application: Application) -> float:
    """Return the seconds of `alembic downgrade` on a copy of the database."""
    server = application.server
    with server.connect() as connection:
        words = sql.Identifier(COPY), sql.Identifier(DATABASE)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*words))
    settle(server)
    plain = application.alembic("downgrade", GOAL, database=COPY)
    server.drop_database(COPY)
    return plain.seconds


def live_phases(ours: Measured) -> dict[str, float]:
    """Return the seconds of each phase from the stop of the service on."""
    names = [event.get("phase") for event in ours.events]
    after = ours.events[names.index("stop") :]
    return {event["phase"]: event["seconds"] for event in after if event["event"] == "phase ends"}


def reset(application: Application) -> None:
    """Drop what was kept, and bring the database to the head again."""
    server = application.server
    with server.connect() as connection:
        kept = connection.execute("SELECT datname FROM pg_database WHERE NOT datallowconn AND NOT datistemplate")
        for (name,) in kept.fetchall():
            server.drop_database(name)
    application.alembic("upgrade", HEAD)


def settle(server: PostgresServer) -> None:
    """Let no run pay for what another one wrote."""
    with server.connect() as connection:
        connection.execute("CHECKPOINT")


def write_migrations(folder: Path) -> Path:
    """Write an application's migrations; return its alembic.ini."""
    versions = folder / "migrations" / "versions"
    versions.mkdir(parents=True)
    (folder / "migrations" / "env.py").write_text(ENVIRONMENT)
    for one in SCRIPTS:
        (versions / f"{one.revision}.py").write_text(
            f'"""{one.revision}."""\nimport sqlalchemy as sa\nfrom alembic import op\n\n'
            f"revision = {one.revision!r}\ndown_revision = {one.down!r}\n\n"
            f"def upgrade():\n{indent(dedent(one.upgrade), '    ')}\n\n"
            f"def downgrade():\n{indent(dedent(one.downgrade), '    ')}\n"
        )
    ini = folder / "alembic.ini"
    ini.write_text("[alembic]\nscript_location = %(here)s/migrations\n")
    return ini


if __name__ == "__main__":
    main()
