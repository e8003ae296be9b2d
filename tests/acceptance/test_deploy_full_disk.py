"""A deploy to a host whose disk fills up while the release is uploaded."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.lab.action_run import require_failure
from tests.lab.deployable import DEPLOY, deployable
from tests.lab.disks import small_disk
from tests.lab.migrated import ENVIRONMENT
from tests.lab.moments import passed
from tests.lab.postgres_server import PostgresServer

DISK, RELEASE = 4_000_000, 2_000_000


def test_a_disk_that_fills_up_while_the_release_is_uploaded(wheel_postgres: PostgresServer) -> None:
    """There was room when the deploy looked; somebody else took it meanwhile."""
    with deployable(wheel_postgres) as shop, small_disk(shop.folder, DISK) as mounted:
        if not mounted:
            pytest.skip("this account cannot mount")
        shop.describe(health_timeout=15)
        shop.run_through(shop.write_release("one"))
        before = shop.look()
        source = Path(shop.write_release("two"))
        (source / "assets").write_bytes(os.urandom(RELEASE))
        with shop.app.project.begin(f"--release={source}", action=DEPLOY, env=ENVIRONMENT) as begun:
            begun.wait_until(lambda: any(passed("test_take_lock")(event) for event in begun.events()), 60)
            (shop.folder / "taken").write_bytes(b"\0" * (DISK - RELEASE))
            run = begun.finish()
        room, look = "room for 2,0", f"df -h {shop.folder}"
        require_failure(run, "test_upload", "could not be written", room, "No space left", look)
        shop.require_as_before(before)
        assert not list((shop.folder / "releases").glob(".*.u*")), "something of the release is left"
