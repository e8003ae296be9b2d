"""An application that is deployed: releases with an app and Alembic's scripts, a supervisor, and what is live of it."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from opsproof.inventory.loading import load_environment
from opsproof.journal import Journal, Redactor
from opsproof.procedures.deploy.deploying import DeployRequest
from opsproof.procedures.deploy.procedure import Deploy
from opsproof.system.store import open_store
from opsproof.target import Target
from tests.lab import released_app
from tests.lab.action_run import ActionRun
from tests.lab.migrated import CHAIN, ENV, ENVIRONMENT, ROWS, Migrated, Script, migrated
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import application_of, require_nothing_left
from tests.lab.supervised import Supervised, supervised

DEPLOY = "actions/test_deploy.py"
COUPON = Script("coupon_01", "customers_name", "op.add_column('orders', sa.Column('coupon', sa.String))",
                "op.drop_column('orders', 'coupon')")  # fmt: skip
WANTS_COUPON = "orders.coupon"


@dataclass(frozen=True)
class Live:
    """What people have: the version that answers, the release that is current, all rows, and what else there is.

    Attributes:
        version: Empty where nothing answers.
        current: The release that `current` leads to.
        releases: The names in `releases/`, the ledger's among them.
        contents: Every table.
        databases: Side and parked databases.
    """

    version: str
    current: str
    releases: tuple[str, ...]
    contents: Mapping[str, tuple[int, str]]
    databases: tuple[str, ...]


@dataclass
class Deployable:
    """An application with a folder of releases.

    Attributes:
        app: Its database, its project and its inventory.
        folder: `deploy_folder`.
        service: What supervisor runs in `current`.
    """

    app: Migrated
    folder: Path
    service: Supervised

    def write_release(
        self, version: str, *more: Script, mood: str = "well", wants: str = "", files: Mapping[str, str] | None = None
    ) -> str:
        """Write a release's source; return its path.

        Args:
            version: What it answers.
            more: Migrations on top of those that the database has been through.
            mood: See `released_app`.
            wants: A column that it cannot do without.
            files: More files.
        """
        source = Path(tempfile.mkdtemp(prefix=f"release-{version}-", dir=self.folder.parent))
        shutil.copy(released_app.__file__, source / "app.py")
        (source / "release.json").write_text(json.dumps({"version": version, "mood": mood, "wants": wants}))
        (source / "alembic.ini").write_text("[alembic]\nscript_location = %(here)s/migrations\n")
        versions = source / "migrations" / "versions"
        versions.mkdir(parents=True)
        (source / "migrations" / "env.py").write_text(ENV.replace("{options!r}", "{}"))
        for one in (*CHAIN, *more):
            one.write(versions)
        for name, text in (files or {}).items():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_text(text)
        return str(source)

    def describe(self, **variables: object) -> None:
        """Write the inventory, with more variables than it has."""
        self.app.describe(**{**self.service.variables, "health_timeout": 2, **variables})

    def deploy(self, release: str, *arguments: str, **how: Any) -> ActionRun:
        """Run `actions/test_deploy.py` to its end."""
        return self.app.project.run(f"--release={release}", *arguments, action=DEPLOY, env=ENVIRONMENT, **how)

    def must_deploy(self, release: str, *arguments: str) -> ActionRun:
        """Deploy, which must succeed."""
        run = self.deploy(release, *arguments)
        assert run.status == 0, run.output
        return run

    def roll_back(self, *arguments: str) -> ActionRun:
        """Run the rollback to another release to its end."""
        return self.app.rollback("--type=release", *arguments)

    def target(self) -> Target:
        """Return the target, as the inventory says it."""
        environ = self.app.project.environ
        (target,) = load_environment(ENVIRONMENT, inventory=self.app.project.inventory, environ=environ).targets
        return target

    def procedure(self, release: str, reuse_backup: timedelta | None = None) -> Deploy:
        """Return a deploy that runs in this process."""
        target = self.target()
        journal = Journal(None, Redactor())
        request = DeployRequest(release, reuse_backup)
        return Deploy(target, open_store(target.store, target.customer), journal, request)

    def run_through(self, release: str, reuse_backup: timedelta | None = None) -> Deploy:
        """Deploy in this process, which must succeed; return the procedure."""
        deploy = self.procedure(release, reuse_backup)
        try:
            for _, step in STEPS:
                step(deploy)
            deploy.keep()
            deploy.prune()
            deploy.run_hooks("after_cleanup")
        finally:
            deploy.close()
        return deploy

    @property
    def current(self) -> str:
        """The name of the release that is current; empty for none."""
        link = self.folder / "current"
        return link.readlink().name if link.is_symlink() else ""

    def look(self) -> Live:
        """Return what is live."""
        root = self.folder / "releases"
        names = (
            tuple(sorted(one.name for one in root.iterdir() if one.name != ".opsproof-lock")) if root.exists() else ()
        )
        assert not list(self.folder.glob(".*")), "the link of a flip is left"
        version = self.service.await_answer() if self.service.is_healthy() else ""
        return Live(version, self.current, names, self.app.contents(), tuple(self.app.databases()))

    def require_as_before(self, before: Live) -> None:
        """Check that everything is as it was, that the service runs, and that nothing of a run is left."""
        self.service.await_answer()
        assert self.look() == before
        require_nothing_left(self.app)


STEPS: tuple[tuple[str, Callable[[Deploy], object]], ...] = (
    ("choose_release", Deploy.choose_release),
    ("find_server", Deploy.find_server),
    ("examine", Deploy.examine),
    ("take_lock", Deploy.take_lock),
    ("take_backup", Deploy.take_backup),
    ("upload", Deploy.upload),
    ("after_update_code", lambda deploy: deploy.run_hooks("after_update_code")),
    ("link_shared", Deploy.link_shared),
    ("before_symlink", lambda deploy: deploy.run_hooks("before_symlink")),
    ("plan_update", Deploy.plan_update),
    ("stop_services", Deploy.stop_services),
    ("update_database", Deploy.update_database),
    ("flip", Deploy.flip),
    ("start_services", Deploy.start_services),
    ("wait_for_health", Deploy.wait_for_health),
    ("validate", Deploy.validate),
)
"""The steps up to the one that says that a release is live, as they are called."""


@contextmanager
def deployable(
    server: PostgresServer, scripts: Sequence[Script] = CHAIN, rows: Sequence[str] = ROWS, **variables: object
) -> Iterator[Deployable]:
    """Make an application that was never deployed; its database is at the head of its scripts.

    Args:
        server: Where its database is.
        scripts: Its history.
        rows: Statements that fill it.
        variables: More of the inventory.
    """
    folder = Path(tempfile.mkdtemp(prefix="opsproof-deployable-")) / "srv"
    folder.mkdir()
    own = {"deploy_folder": str(folder), "alembic_ini": f"{folder}/current/alembic.ini", **variables}
    options = {"autostart": "false", "startsecs": "1", "startretries": "0"}
    try:
        with (
            migrated(server, scripts, rows, **own) as app,
            supervised(application_of(app), f"{folder}/current/app.py", **options) as service,
        ):
            made = Deployable(app, folder, service)
            made.describe()
            yield made
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)
