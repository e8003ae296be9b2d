"""Ground for deploys and release rollbacks that are killed: an application with two releases, of which one is live."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from tests.lab.action_run import Begun, Project
from tests.lab.deployable import COUPON, DEPLOY, Deployable, deployable
from tests.lab.migrated import ENVIRONMENT, RECOVER, ROLLBACK
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import require_nothing_left

OLD, NEW = "old", "new"
LEDGER = ".opsproof-ledger.jsonl"
# Nobody is ill here: however busy the machine is, the service comes up in this time.
PATIENCE = {"health_timeout": 15}


@dataclass
class DeployGround:
    """One application whose release is changed again and again.

    Attributes:
        shop: It.
        releases: Those that are there before: the first one, and the second where it is rolled back.
        goal: The state that the action brings about: `new` is the second release, `old` the first.
        command: The action's own arguments.
        migrates: Whether the second release has a migration.
        pristine: A copy of its database.
        ledger: The text of its ledger.
        rows: Of its tables, Alembic's own left out.
    """

    shop: Deployable
    releases: tuple[str, ...]
    goal: str
    command: tuple[str, ...]
    migrates: bool
    pristine: str
    ledger: str
    rows: Mapping[str, int]

    @property
    def first(self) -> str:
        """Its first release."""
        return self.releases[0]

    @property
    def project(self) -> Project:
        """Whence the actions run."""
        return self.shop.app.project

    def begin(
        self, action: str = DEPLOY, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Begun]:
        """Begin an action; whatever of it still runs at the end of the block is killed."""
        own = self.command if action in (DEPLOY, ROLLBACK) else ()
        return self.project.begin(*own, *arguments, action=action, env=ENVIRONMENT, environ=environ)

    def reset(self) -> None:
        """Bring everything into the state before the action."""
        app, service = self.shop.app, self.shop.service
        service.control("stop", service.name)
        for name in (*app.databases(), app.name):
            if name != self.pristine:
                app.server.drop_database(name)
        words = sql.Identifier(app.name), sql.Identifier(self.pristine), sql.Identifier(app.role)
        with app.server.connect() as connection:
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*words))
        root = self.shop.folder / "releases"
        for path in root.iterdir():
            if path.name not in self.releases:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        (root / LEDGER).write_text(self.ledger)
        link = self.shop.folder / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(f"releases/{self.releases[-1]}")
        for path in Path(self.project.temporary).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        service.control("start", service.name)
        service.await_answer()

    def require_whole(self) -> None:
        """Check that the live database and `current` are each one of the two, whatever else there is."""
        assert self.shop.app.heads() in (["customers_name"], ["coupon_01"])
        assert (self.shop.folder / "current" / "app.py").is_file(), "current dangles"
        self._require_rows()

    def recover(self) -> str:
        """Recover, which must succeed; check that what is live is one of the two states, whole. Return which."""
        run = self.project.run(action=RECOVER, env=ENVIRONMENT)
        assert run.status == 0, run.output
        return self.require_settled()

    def require_settled(self) -> str:
        """Check that nothing is unfinished, that link and database belong together; return which state it is."""
        self.shop.service.await_answer()
        now = self.shop.look()
        state = OLD if now.version == "one" else NEW
        assert (now.current == self.first) == (state == OLD), now
        heads = ["coupon_01"] if state == NEW and self.migrates else ["customers_name"]
        assert self.shop.app.heads() == heads
        databases = [one for one in now.databases if one != self.pristine]
        assert [one.split("__")[1][:6] for one in databases] == ["before"] * (state == self.goal and self.migrates)
        assert {one for one in now.releases if one != LEDGER} == {*self.releases, now.current}
        self._require_rows()
        require_nothing_left(self.shop.app)
        return state

    def _require_rows(self) -> None:
        found = {table: count for table, (count, _) in self.shop.app.contents().items() if "alembic" not in table}
        assert found == self.rows


@contextmanager
def deploy_ground(server: PostgresServer, *, migrates: bool) -> Iterator[DeployGround]:
    """Make a ground whose second release is deployed; all of it is gone after the block."""
    with deployable(server) as shop:
        shop.describe(**PATIENCE)
        shop.must_deploy(shop.write_release("one"))
        release = shop.write_release("two", *([COUPON] if migrates else []))
        yield _ground_of(shop, (shop.current,), NEW, (f"--release={release}",), migrates=migrates)


@contextmanager
def rollback_ground(server: PostgresServer, *, migrates: bool, with_backup: bool = False) -> Iterator[DeployGround]:
    """Make a ground whose second release is rolled back; all of it is gone after the block.

    Args:
        server: Where its database is.
        migrates: Whether that release has a migration: it is undone.
        with_backup: Whether the backup before that release is to come back, in the place of a downgrade.
    """
    with deployable(server) as shop:
        shop.describe(**PATIENCE)
        first = shop.run_through(shop.write_release("one")).release
        second = shop.run_through(shop.write_release("two", *([COUPON] if migrates else [])))
        # Named, so that the same command has a meaning whatever became of it.
        command = ["--type=release", f"--to-release={first}"]
        command += [f"--backup={second.safety}"] if with_backup else []
        yield _ground_of(shop, (first, second.release), OLD, tuple(command), migrates=migrates or with_backup)


def _ground_of(
    shop: Deployable, releases: tuple[str, ...], goal: str, command: tuple[str, ...], *, migrates: bool
) -> DeployGround:
    """Return the ground of an application as it is now, in its state before the action."""
    app, pristine = shop.app, f"{shop.app.name}__pristine"
    shop.service.control("stop", shop.service.name)
    with app.server.connect() as connection:
        words = sql.Identifier(pristine), sql.Identifier(app.name), sql.Identifier(app.role)
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*words))
    rows = {table: count for table, (count, _) in app.contents().items() if "alembic" not in table}
    ledger = (shop.folder / "releases" / LEDGER).read_text()
    ground = DeployGround(shop, releases, goal, command, migrates, pristine, ledger, rows)
    ground.reset()
    return ground
