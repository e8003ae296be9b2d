"""The demo's first run: roles and database, then schema and data by the release that it begins with."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Callable

from opsproof.demo import cluster
from opsproof.demo.folder import DemoFolder
from opsproof.demo.state import State, save_state
from opsproof.demo.supervision import minimal_environment, tail
from opsproof.errors import HostError

Progress = Callable[[str], None]

_SECONDS = 120


def prepare(folder: DemoFolder, state: State, say: Progress) -> None:
    """Make roles, database, schema and data; each of them does nothing the second time.

    Args:
        folder: The demo, in which PostgreSQL runs and a release is current.
        state: Of it; written down as prepared at the end.
        say: Is called with a line for whoever waits.

    Raises:
        HostError: A step failed.
    """
    say("making the database: schema and data ...")
    cluster.create_database(state)
    _run_step(folder, "migrate", ["alembic", "-c", str(folder.alembic_ini), "upgrade", "head"])
    _run_step(folder, "seed", ["shop.seed", "-c", str(folder.odoo_conf)])
    save_state(folder, dataclasses.replace(state, prepared=True))


def _run_step(folder: DemoFolder, name: str, module: list[str]) -> None:
    log = folder.logs / f"{name}.log"
    with log.open("wb") as output:
        done = subprocess.run(
            [sys.executable, "-m", *module],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=_SECONDS,
            check=False,
            cwd=folder.current,
            env=minimal_environment(folder),
            umask=0o077,
        )
    if done.returncode != 0:
        raise HostError(
            f"the demo's first run failed at the step {name}",
            expected="exit status 0",
            found=f"exit status {done.returncode}\n" + tail(log),
            kept="PostgreSQL runs; the next start takes up this step again",
            hint="python -m opsproof.demo reset && python -m opsproof.demo start",
        )
