"""A first deploy that is killed: there is no database yet, or there is one already; either way it is brought to an end.

With `OPSPROOF_MOMENTS` above 12 it is killed after each of its steps, from the first one on that changes anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass

import pytest

from actions import test_deploy
from tests.lab.action_run import Begun, Project
from tests.lab.deployable import COUPON, DEPLOY, WANTS_COUPON, Deployable, deployable
from tests.lab.migrated import ENVIRONMENT
from tests.lab.moments import MOMENTS, Event, kill_when, passed, phase
from tests.lab.postgres_server import PostgresServer
from tests.lab.rollbacklab import require_nothing_left

STEPS = [name for name in vars(test_deploy.TestDeploy) if name.startswith("test_")]
# While the database is made beside its name, and as soon as it has that.
QUICK = {"while it is made": phase("update"), "test_update_database": passed("test_update_database")}
BEGUN = STEPS[STEPS.index("test_upload") :]
MORE = {step: passed(step) for step in BEGUN if MOMENTS > 12 and step not in QUICK}
LIVE = STEPS[STEPS.index("test_update_database") :]


@dataclass(frozen=True)
class Beginning:
    """An application that was never deployed, and has no database."""

    shop: Deployable
    release: str

    @property
    def project(self) -> Project:
        """Whence the actions run."""
        return self.shop.app.project

    def begin(
        self, action: str = DEPLOY, *arguments: str, environ: Mapping[str, str] | None = None
    ) -> AbstractContextManager[Begun]:
        """Begin the deploy; whatever of it still runs at the end of the block is killed."""
        own = f"--release={self.release}"
        return self.project.begin(own, *arguments, action=action, env=ENVIRONMENT, environ=environ)

    def databases(self) -> list[str]:
        """Return the names of its databases."""
        query = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
        with self.shop.app.server.connect() as connection:
            return [name for (name,) in connection.execute(query, (self.shop.app.name,)).fetchall()]


@pytest.fixture
def beginning(wheel_postgres: PostgresServer) -> Iterator[Beginning]:
    with deployable(wheel_postgres) as shop:
        shop.describe(health_timeout=15)
        shop.app.server.drop_database(shop.app.name)
        yield Beginning(shop, shop.write_release("one", COUPON, wants=WANTS_COUPON))


@pytest.mark.parametrize(
    ("moment", "happened"),
    [
        pytest.param(name, happened, id=name, marks=[] if name in QUICK else [pytest.mark.slow])
        for name, happened in (QUICK | MORE).items()
    ],
)
def test_a_first_deploy_killed(beginning: Beginning, moment: str, happened: Callable[[Event], bool]) -> None:
    shop = beginning.shop
    kill_when(beginning, happened, DEPLOY)
    recovered = shop.app.recover()
    assert recovered.status == 0, recovered.output
    require_nothing_left(shop.app)
    if moment not in LIVE:
        assert beginning.databases() == []
        assert not shop.current
        assert not [path for path in (shop.folder / "releases").glob("*") if path.is_dir()]
        shop.run_through(beginning.release)
    now = shop.look()
    assert (now.version, beginning.databases()) == ("one", [shop.app.name])
    assert now.current in now.releases
    assert shop.app.heads() == ["coupon_01"]
