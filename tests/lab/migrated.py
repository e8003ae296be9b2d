"""An application whose schema Alembic keeps: its scripts, its env.py in several kinds, its database, its inventory."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent, indent
from typing import Any

from psycopg import sql

from opsproof.system.alembic.finding import url_of
from tests.lab.action_run import ActionRun, Project, make_project
from tests.lab.application import table_contents
from tests.lab.postgres_server import PostgresServer, Session

ROLLBACK = "actions/test_rollback.py"
RECOVER = "actions/test_recover.py"
BACKUP = "actions/test_backup.py"
ENVIRONMENT = "staging"
TARGET = "shop"
# The characters that a URL has to encode, and that alembic.ini and a shell read in their own way.
PASSWORD = "p%4@ '\"$/:#"

ENV = """
import os
from alembic import context
from sqlalchemy import create_engine, pool, text

options = {options!r}
if context.is_offline_mode():
    context.configure(dialect_name="postgresql", literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
else:
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        context.configure(connection=connection, **options)
        with context.begin_transaction():
            context.run_migrations()
"""

ASYNC_ENV = """
import asyncio
import os
from alembic import context
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import create_async_engine

def run(connection):
    context.configure(connection=connection, **{options!r})
    with context.begin_transaction():
        context.run_migrations()

async def main():
    # asyncpg has no place for a socket's folder in a URL's host.
    url = os.environ["DATABASE_URL"].replace("postgresql://", "postgresql+asyncpg://")
    engine = create_async_engine(url, poolclass=pool.NullPool)
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()

asyncio.run(main())
"""

TWO_TABLES = "op.create_table('{0}', sa.Column('id', sa.Integer, primary_key=True), sa.Column('name', sa.String))"


@dataclass(frozen=True)
class Script:
    """One migration: its revision, what it builds on, and the bodies of its two functions."""

    id: str
    down: str | tuple[str, ...] | None
    upgrade: str
    downgrade: str
    title: str = ""
    extra: str = ""

    def write(self, folder: Path) -> None:
        """Write the file."""
        text = (
            f'"""{self.title or self.id}."""\nimport sqlalchemy as sa\nfrom alembic import op\n\n'
            f"revision = {self.id!r}\ndown_revision = {self.down!r}\n{dedent(self.extra)}\n\n"
            f"def upgrade():\n{indent(dedent(self.upgrade).strip() or 'pass', '    ')}\n\n"
            f"def downgrade():\n{indent(dedent(self.downgrade).strip() or 'pass', '    ')}\n"
        )
        (folder / f"{self.id}.py").write_text(text)


def table(name: str, down: str | tuple[str, ...] | None, *, revision: str = "") -> Script:
    """Return a script that makes a table, and drops it again."""
    return Script(revision or f"{name}_01", down, TWO_TABLES.format(name), f"op.drop_table({name!r})")


def index(name: str, on: str, down: str | tuple[str, ...] | None) -> Script:
    """Return a script that makes an index on a table's name, which loses nothing when it is undone."""
    return Script(name, down, f"op.create_index({name!r}, {on!r}, ['name'])", f"op.drop_index({name!r})")


# A chain of five: two tables with rows, a column with values, an index, a merge of nothing.
CHAIN = (
    table("customers", None),
    table("orders", "customers_01"),
    Script("total_01", "orders_01", "op.add_column('orders', sa.Column('total', sa.Integer))",
           "op.drop_column('orders', 'total')"),
    index("orders_name", "orders", "total_01"),
    index("customers_name", "customers", "orders_name"),
)  # fmt: skip
ROWS = (
    "INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 50) n",
    "INSERT INTO orders (id, name, total) SELECT n, 'order ' || n, n * 10 FROM generate_series(1, 200) n",
)


@dataclass(frozen=True)
class Migrated:
    """An application: its folder with alembic.ini, its database, and the project that acts on it."""

    server: PostgresServer
    name: str
    role: str
    folder: Path
    project: Project
    variables: Mapping[str, object]

    @property
    def url(self) -> str:
        """Where its database is, as its owner, over TCP."""
        return url_of(self.server.address(self.name, self.role, PASSWORD))

    @property
    def ini(self) -> Path:
        """Its alembic.ini."""
        return self.folder / "alembic.ini"

    def write(self, scripts: Sequence[Script]) -> None:
        """Write its scripts, in the place of those that it had."""
        versions = self.folder / "migrations" / "versions"
        shutil.rmtree(versions, ignore_errors=True)
        versions.mkdir(parents=True)
        for one in scripts:
            one.write(versions)

    def write_env(self, text: str = ENV, **options: object) -> None:
        """Write its env.py; the options are those of `context.configure`."""
        place = self.folder / "migrations" / "env.py"
        place.parent.mkdir(exist_ok=True)
        place.write_text(text.replace("{options!r}", repr(options)))

    def alembic(self, *words: str) -> None:
        """Run Alembic itself, as the application's developers do."""
        subprocess.run(
            [sys.executable, "-m", "alembic", "-c", str(self.ini), *words],
            cwd=self.folder, env={"DATABASE_URL": self.url, "PATH": "/usr/bin:/bin"}, check=True, capture_output=True,
        )  # fmt: skip

    def connect(self) -> Session:
        """Connect as the application does, in autocommit mode."""
        return self.server.connect(self.name, self.role, PASSWORD)

    def execute(self, *statements: str) -> None:
        """Run statements as the application's own role."""
        with self.connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def query(self, query: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query."""
        with self.connect() as connection:
            return connection.execute(query.encode()).fetchall()

    def heads(self, table: str = "alembic_version") -> list[str]:
        """Return where the database is."""
        return sorted(row[0] for row in self.query(f"SELECT version_num FROM {table}"))

    def contents(self) -> dict[str, tuple[int, str]]:
        """Return rows and content of every table, Alembic's own among them."""
        with self.connect() as connection:
            return table_contents(connection)

    def databases(self) -> list[str]:
        """Return what else there is of it on the server: side, scratch and parked databases."""
        with self.server.connect() as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE starts_with(datname, %s) ORDER BY 1", (f"{self.name}__",)
            ).fetchall()
        return [name for (name,) in rows]

    def backups(self) -> list[str]:
        """Return the names of what is in its store, without the journals of runs."""
        return self.project.stored()

    def describe(self, **variables: object) -> None:
        """Write the inventory, with more variables than it has."""
        self.project.write_inventory({ENVIRONMENT: {TARGET: {**self.variables, **variables}}})

    def rollback(self, *arguments: str, **how: Any) -> ActionRun:
        """Run `actions/test_rollback.py` to its end."""
        return self.project.run(*arguments, **{"action": ROLLBACK, "env": ENVIRONMENT, **how})

    def recover(self, *arguments: str, **how: Any) -> ActionRun:
        """Run `actions/test_recover.py` to its end."""
        return self.project.run(*arguments, **{"action": RECOVER, "env": ENVIRONMENT, **how})

    def back_up(self) -> str:
        """Take a backup; return its id."""
        run = self.project.run(action=BACKUP, env=ENVIRONMENT)
        assert run.status == 0, run.output
        return run.cases[-1].properties["backup_id"]


@contextmanager
def migrated(
    server: PostgresServer, scripts: Sequence[Script] = CHAIN, rows: Sequence[str] = ROWS, **variables: object
) -> Iterator[Migrated]:
    """Make an application at the head of its scripts; all of it is gone after the block.

    Args:
        server: Where.
        scripts: Its history.
        rows: Statements that fill it.
        variables: More of the inventory.
    """
    folder, token = Path(tempfile.mkdtemp(prefix="opsproof-migrated-")), secrets.token_hex(4)
    name, role = f"shop_{token}", f"owner {token}"
    project = make_project(folder / "project")
    known: dict[str, object] = {
        "database_url": url_of(server.address(name, role, PASSWORD)),
        "filestore": "none",
        "backup_dir": str(project.store),
        "pg_bindir": str(server.bindir),
        "alembic_ini": str(folder / "application" / "alembic.ini"),
        "alembic_python": sys.executable,
        **variables,
    }
    app = Migrated(server, name, role, folder / "application", project, known)
    app.folder.mkdir(parents=True)
    app.ini.write_text("[alembic]\nscript_location = %(here)s/migrations\n")
    app.write_env()
    app.write(scripts)
    app.describe()
    identifier = sql.Identifier(role)
    with server.connect() as connection:
        connection.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEDB PASSWORD {}").format(identifier, PASSWORD))
    try:
        server.create_database(name, owner=role)
        app.alembic("upgrade", "heads")
        app.execute(*rows)
        yield app
    finally:
        server.drop_database(name)
        for other in app.databases():
            server.drop_database(other)
        with server.connect() as connection:
            connection.execute(sql.SQL("DROP ROLE IF EXISTS {}").format(identifier))
        shutil.rmtree(folder, ignore_errors=True)
