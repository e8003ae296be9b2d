"""The floor of a restore, what no restore can do without, and runs of ours that are set against it.

It is `pg_restore -j2 --exit-on-error` of the same dump, lying there unpacked, into an empty database, ANALYZE, and
reading every row once.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from statistics import median
from zipfile import ZipFile

from psycopg import sql

from benchmarks.measure import MEGABYTE, Measured, measure, middle, run_action, used_by_server
from benchmarks.project import DATABASE, variables_of
from tests.lab.postgres_server import PostgresServer

FLOOR = "floor"
MOST_MEMORY = 300e6


def measure_ratios(
    server: PostgresServer, folder: Path, runs: int, run_ours: Callable[[], Measured], most: float
) -> None:
    """Run the floor and ours in turn, print both, and fail where ours is more than is promised.

    Args:
        server: Where both run.
        folder: Has the inventory and one backup.
        runs: How often each is run.
        run_ours: Does so once.
        most: How many times the floor ours may take.
    """
    dump = unpack(folder)
    floors, ours = [], []
    for number in range(runs):
        floors.append(run_floor(server, folder, dump))
        ours.append(run_ours())
        show(f"run {number + 1}", floors[-1], ours[-1])
    show("median of each", middle(floors), middle(ours))
    ratio = median(mine.seconds / floor.seconds for mine, floor in zip(ours, floors, strict=True))
    print(f"\nmedian of the runs: {ratio:.2f} times the floor", flush=True)
    if ratio > most:
        raise SystemExit(f"more than {most} times the floor")
    if max(mine.memory for mine in ours) > MOST_MEMORY:
        raise SystemExit(f"more than {MOST_MEMORY / MEGABYTE:.0f} MB")


def unpack(folder: Path) -> Path:
    """Unpack the dump of the backup, for the floor."""
    (bundle,) = (folder / "backups").rglob("*.zip")
    with ZipFile(bundle) as archive:
        (name,) = (one for one in archive.namelist() if one.endswith(".dump"))
        return Path(archive.extract(name, folder))


def run_floor(server: PostgresServer, folder: Path, dump: Path) -> Measured:
    """Restore into an empty database, analyze, read every row; measure it."""
    server.create_database(FLOOR)
    settle(server)
    environment = {**os.environ, **variables_of(server), "PGDATABASE": FLOOR}
    programs = server.bindir
    steps = {
        "pg_restore": [str(programs / "pg_restore"), "-j2", "--exit-on-error", f"--dbname={FLOOR}", str(dump)],
        "analyze": [str(programs / "psql"), "-qXc", "ANALYZE"],
        "read": [str(programs / "psql"), "-qX", "--output=/dev/null"],
    }
    with server.connect(DATABASE) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'").fetchall()
    for (table,) in tables:
        steps["read"].append(f"--command=COPY {sql.Identifier(table).as_string()} TO STDOUT")
    measured = Measured(processor=-used_by_server(server.pid))
    for step, argv in steps.items():
        one = measure(argv, folder, environment, [])
        measured.seconds += one.seconds
        measured.processor += one.processor
        measured.phases[step] = one.seconds
        measured.memory = max(measured.memory, one.memory)
    measured.processor += used_by_server(server.pid)
    server.drop_database(FLOOR)
    return measured


def run_on_server(server: PostgresServer, folder: Path, action: str, *options: str) -> Measured:
    """Run an action and measure it, with what the server did meanwhile."""
    settle(server)
    used = used_by_server(server.pid)
    measured = run_action(action, folder, *options)
    measured.processor += used_by_server(server.pid) - used
    return measured


def settle(server: PostgresServer) -> None:
    """Let no run pay for what another one wrote."""
    with server.connect() as connection:
        connection.execute("CHECKPOINT")


def show(title: str, floor: Measured, ours: Measured) -> None:
    """Print one comparison."""
    print(f"\n{title}: {ours.seconds / floor.seconds:.2f} times the floor; load {os.getloadavg()[0]:.1f}", flush=True)
    for name, run in (("floor", floor), ("ours", ours)):
        memory, disk = (f"{value / MEGABYTE:.0f}" for value in (run.memory, run.disk))
        print(f"  {name:7}{run.seconds:7.1f} s, {run.processor:.1f} s of processors", end="")
        print(f", MB: memory {memory}, temporary disk {disk}")
        print("          " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in run.phases.items()), flush=True)
