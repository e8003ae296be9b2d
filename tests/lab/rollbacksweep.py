"""Ground for rollbacks that are killed: an application at the head of its history, and as it is further down.

The server is its own, so that it can be stopped without its leave and started again.
"""

from __future__ import annotations

import os
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
from psycopg import sql

from tests.lab.action_run import Begun
from tests.lab.application import Application, table_contents
from tests.lab.crash import CrashingServer, crashing
from tests.lab.ground import CONNECT_SECONDS, Data, Ground, Variant, counting_service
from tests.lab.migrated import PASSWORD, ROLLBACK, Migrated, Script, index, migrated, table
from tests.lab.postgres_server import SYSTEM, WHEEL, Session, running_postgres
from tests.lab.supervised import Supervised

GOAL = "orders_01"
# The live downgrade takes long enough to be met in it, the one on a side database does not.
SLEEP = "op.execute(\"SELECT pg_sleep(CASE WHEN strpos(current_database(), '__') = 0 THEN {0} ELSE {1} END)\")\n"
NAP_SECONDS = 0.15
# From the first nap to a moment after the commit.
UNDOING_SECONDS = 3 * NAP_SECONDS + 0.1
SCRIPTS = (
    table("ir_attachment", None),
    table("orders", "ir_attachment_01"),
    Script("total_01", "orders_01", "op.add_column('orders', sa.Column('total', sa.Integer))",
           "{nap}op.drop_column('orders', 'total')\n{nap}"),
    Script("notes_01", "total_01", "op.create_table('notes', sa.Column('id', sa.Integer, primary_key=True))",
           "op.drop_table('notes')\n{nap}"),
    index("orders_name", "orders", "notes_01"),
)  # fmt: skip
ROWS = (
    "INSERT INTO ir_attachment SELECT n, 'attachment ' || n FROM generate_series(1, 7) n",
    "INSERT INTO orders (id, name, total) SELECT n, 'order ' || n, n * 10 FROM generate_series(1, 2000) n",
    "INSERT INTO notes SELECT generate_series(1, 30)",
)
SHAPE = """
SELECT table_name::text, column_name::text, data_type::text, is_nullable::text, column_default::text
  FROM information_schema.columns WHERE table_schema = 'public'
UNION ALL SELECT tablename::text, indexname::text, indexdef, '', '' FROM pg_indexes WHERE schemaname = 'public'
ORDER BY 1, 2
"""


@dataclass(frozen=True)
class Chain(Variant):
    """What differs from one ground to the next: the server, and whether the chain is one transaction."""

    per_migration: bool = False

    def __str__(self) -> str:
        return f"{self.server}-{'per-migration' if self.per_migration else 'atomic'}"


CHAINS = (Chain(WHEEL), Chain(SYSTEM), Chain(WHEEL, per_migration=True), Chain(SYSTEM, per_migration=True))


@dataclass(frozen=True)
class Held:
    """A process that is stopped until it is released."""

    pid: int

    def __post_init__(self) -> None:
        self.hold()

    def hold(self) -> None:
        """Stop it."""
        os.kill(self.pid, signal.SIGSTOP)

    def release(self) -> None:
        """Let it go on."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)


@dataclass
class Slope(Ground):
    """A ground whose `old` is the head of its history, and whose `new` is the goal of a rollback.

    Attributes:
        shapes: The columns and indexes of either.
    """

    shapes: Mapping[str, list[tuple[object, ...]]] = field(default_factory=dict)

    def begin(
        self, action: str = ROLLBACK, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Begun]:
        """Begin an action; a rollback goes to the goal, and may lose data."""
        own = ("--type=schema", f"--to-revision={GOAL}", "--allow-data-loss") if action == ROLLBACK else ()
        return super().begin(action, *own, *arguments, environ=environ)

    def restore(self) -> None:
        """Roll back without being disturbed, which must succeed."""
        with self.begin() as begun:
            run = begun.finish()
        assert run.status == 0, run.output

    def require_refusal(self) -> None:
        """Check that the next action does nothing where something is unfinished, and says what to do."""
        if not self._unfinished():
            return
        with self.begin(ROLLBACK, "--dry-run") as begun:
            run = begun.finish()
        if not self._unfinished():
            return  # the server has ended a drop that a killed run had begun
        assert run.status == 1, run.output
        refusal = run.failed_step()
        assert refusal.step == "test_nothing_is_unfinished", run.output
        assert "pytest actions/test_recover.py --env=staging --target=shop" in refusal.message

    @property
    def chain(self) -> Chain:
        """Its variant."""
        assert isinstance(self.variant, Chain)
        return self.variant

    def undoing(self) -> list[int]:
        """Return the server's processes that undo revisions of what is live, or will be."""
        with self.server.connect() as connection:
            rows = connection.execute(
                "SELECT pid FROM pg_stat_activity WHERE starts_with(application_name, 'opsproof rollback ')"
                " AND strpos(query, 'pg_sleep') > 0 AND state = 'active' AND starts_with(datname, %s)",
                (self.application.name,),
            ).fetchall()
        return [int(pid) for (pid,) in rows]

    @contextmanager
    def copying_held(self, begun: Begun) -> Iterator[Held]:
        """Stop the server's process that copies the live database, in the midst of it, until it is released."""
        query = (
            "SELECT pid FROM pg_stat_activity WHERE state = 'active' AND starts_with(query, 'CREATE DATABASE')"
            " AND strpos(query, %s) > 0"
        )
        with self.server.connect() as connection:
            found: list[tuple[int]] = []

            def is_copying() -> bool:
                found[:] = connection.execute(query, (f'TEMPLATE "{self.application.name}"',)).fetchall()
                return found != []

            begun.wait_until(is_copying, 60)
        held = Held(found[0][0])
        try:
            # Stopped while it has a lock of the server's own memory, it would hold everybody, and not only its copy.
            while not self._answers():
                held.release()
                time.sleep(0.001)
                held.hold()
            yield held
        finally:
            held.release()

    def _answers(self) -> bool:
        """Tell whether the server lets a newcomer in."""
        address = self.server.address("postgres")
        try:
            psycopg.connect(address.conninfo(), password=self.server.password, connect_timeout=2).close()
        except psycopg.errors.ConnectionTimeout:
            return False
        return True

    def _unfinished(self) -> list[str]:
        """Return the side databases and those that bear the intent of something unfinished."""
        with self.server.connect() as connection:
            stages = self.stages(connection)
            side = f"{self.application.name}__side_"
            return [
                one for one in self.databases(connection) if one.startswith(side) or stages.get(one, "kept") != "kept"
            ]

    def _find_live(self) -> str:
        deadline = time.monotonic() + CONNECT_SECONDS
        while True:
            try:
                with self.application.connect() as connection:
                    tables, shape = table_contents(connection), shape_of(connection)
                break
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        assert tables in (self.old.tables, self.new.tables), "live is neither what was nor what it was to be"
        live = "old" if tables == self.old.tables else "new"
        assert shape == self.shapes[live]
        return live


@contextmanager
def prepared_slope(chain: Chain) -> Iterator[Slope]:
    """Make an application with a service, and a history to go down."""
    with (
        # Not pytest's tmp_path: a socket's path ends at 107 bytes.
        tempfile.TemporaryDirectory(prefix="opsproof-slope-") as path,
        running_postgres(chain.server) as server,
        crashing(server) as crashing_server,
        migrated(server, written(chain), ROWS) as shop,
    ):
        if chain.per_migration:
            shop.write_env(transaction_per_migration=True)
        application = Application(server, shop.name, shop.role, PASSWORD, Path(path, "odoo"))
        with counting_service(application) as service:
            shop.describe(**{**service.variables, "health_timeout": 15})
            slope = _prepare(chain, Path(path), shop, application, service, crashing_server)
            slope.reset()
            try:
                yield slope
            finally:
                slope.clear()


def written(chain: Chain) -> list[Script]:
    """Return the scripts, with naps in those that are undone; on a side database only where it will be the live one."""
    nap = SLEEP.format(NAP_SECONDS, NAP_SECONDS if chain.per_migration else 0)
    return [
        Script(one.id, one.down, one.upgrade, one.downgrade.replace("{nap}", nap), one.title, one.extra)
        for one in SCRIPTS
    ]


def shape_of(connection: Session) -> list[tuple[object, ...]]:
    """Return a row for each column and each index."""
    return connection.execute(SHAPE).fetchall()


def find_agent(begun: Begun) -> int:
    """Return the process in which Alembic runs."""
    for task in Path(f"/proc/{begun.process.pid}/task").glob("*/children"):
        for pid in task.read_text().split():
            if b"alembic_agent.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                return int(pid)
    raise ProcessLookupError("Alembic does not run")


def _prepare(
    chain: Chain,
    folder: Path,
    shop: Migrated,
    application: Application,
    service: Supervised,
    crashing_server: CrashingServer,
) -> Slope:
    application.filestore.mkdir(parents=True)
    files, pristine = folder / "files", f"pristine_{shop.name}"
    files.mkdir()
    states: dict[str, Data] = {}
    shapes: dict[str, list[tuple[object, ...]]] = {}
    for state in ("old", "new"):
        if state == "new":
            with shop.server.connect() as connection:
                words = sql.Identifier(pristine), sql.Identifier(shop.name)
                connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(*words))
            shop.alembic("downgrade", GOAL)
        with shop.connect() as connection:
            states[state] = Data(table_contents(connection), {})
            shapes[state] = shape_of(connection)
    stored = frozenset(shop.project.stored())
    return Slope(
        variant=chain,
        server=shop.server,
        crashing=crashing_server,
        application=application,
        project=shop.project,
        service=service,
        pristine=pristine,
        files=files,
        stored=stored,
        shapes=shapes,
        **states,
    )
