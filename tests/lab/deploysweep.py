"""Ground for deploys that are killed: an application whose first release is live, and two states that it may be in."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from tests.lab.action_run import Begun, Project
from tests.lab.deployable import COUPON, DEPLOY, Deployable, deployable
from tests.lab.migrated import ENVIRONMENT, RECOVER
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import require_nothing_left

OLD, NEW = "old", "new"


@dataclass
class DeployGround:
    """One application that is deployed to again and again.

    Attributes:
        shop: It.
        first: Its first release.
        release: The source of the second one.
        migrates: Whether that one has a migration.
        pristine: A copy of its database.
        rows: Of its tables, Alembic's own left out.
    """

    shop: Deployable
    first: str
    release: str
    migrates: bool
    pristine: str
    rows: Mapping[str, int]

    @property
    def project(self) -> Project:
        """Whence the actions run."""
        return self.shop.app.project

    def begin(
        self, action: str = DEPLOY, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Begun]:
        """Begin an action; whatever of it still runs at the end of the block is killed."""
        own = (f"--release={self.release}",) if action == DEPLOY else ()
        return self.project.begin(*own, *arguments, action=action, env=ENVIRONMENT, environ=environ)

    def reset(self) -> None:
        """Bring everything into the state before the deploy."""
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
            if path.name != self.first:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        link = self.shop.folder / "current"
        link.unlink(missing_ok=True)
        link.symlink_to(f"releases/{self.first}")
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
        assert [one.split("__")[1][:6] for one in databases] == ["before"] * (state == NEW and self.migrates)
        assert {one for one in now.releases if one != ".opsproof-ledger.jsonl"} == {self.first, now.current}
        self._require_rows()
        require_nothing_left(self.shop.app)
        return state

    def _require_rows(self) -> None:
        found = {table: count for table, (count, _) in self.shop.app.contents().items() if "alembic" not in table}
        assert found == self.rows


@contextmanager
def deploy_ground(server: PostgresServer, *, migrates: bool) -> Iterator[DeployGround]:
    """Make a ground; all of it is gone after the block."""
    with deployable(server) as shop:
        shop.must_deploy(shop.write_release("one"))
        release = shop.write_release("two", *([COUPON] if migrates else []))
        app, pristine = shop.app, f"{shop.app.name}__pristine"
        shop.service.control("stop", shop.service.name)
        with app.server.connect() as connection:
            words = sql.Identifier(pristine), sql.Identifier(app.name), sql.Identifier(app.role)
            connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*words))
        rows = {table: count for table, (count, _) in app.contents().items() if "alembic" not in table}
        ground = DeployGround(shop, shop.current, release, migrates, pristine, rows)
        ground.reset()
        yield ground
