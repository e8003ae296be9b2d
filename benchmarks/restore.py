"""How fast, how much memory, how long an outage: a restore that proves itself against the floor, in turn.

    python benchmarks/restore.py                                 the table of docs/explanation/speed.md
    python benchmarks/restore.py --rows=8500000 --runs=1         a 3 GB database
    python benchmarks/restore.py --service --rows=550000         the outage of a supervised application, 0.2 GB

The floor is what no restore can do without: `pg_restore -j2 --exit-on-error` of the same dump, lying there unpacked,
into an empty database, ANALYZE, and reading every row once. Ours is the whole command, `pytest
actions/test_restore.py --no-safety-backup`, from the zip to the last check, into the same server.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from zipfile import ZipFile

from psycopg import sql

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import MEGABYTE, Measured, measure, middle, run_action, used_by_server
from benchmarks.project import DATABASE, parser_of, prepare, variables_of
from benchmarks.service import Supervised, Visitor, supervised
from tests.lab.postgres_server import PostgresServer, running_postgres

FLOOR = "floor"
MOST_RATIO = 1.4
MOST_MEMORY = 300e6
MOST_OUTAGE = 3.0


def main() -> None:
    """Run the benchmark, print what was measured, and fail where it is more than is promised."""
    parser = parser_of(__doc__)
    parser.add_argument("--service", action="store_true", help="measure a supervised application's outage instead")
    options = parser.parse_args()
    with (
        running_postgres(options.server) as server,
        tempfile.TemporaryDirectory(prefix="opsproof-bench-", dir=options.folder) as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        service = stack.enter_context(supervised(folder, server.url(DATABASE))) if options.service else None
        prepare(server, folder, options, **(service.settings if service else {}))
        run_action("backup", folder)
        if service is not None:
            measure_outages(server, folder, service, options.runs)
        else:
            measure_ratios(server, folder, unpack(folder), options.runs)


def measure_ratios(server: PostgresServer, folder: Path, dump: Path, runs: int) -> None:
    """Run the floor and ours in turn, and print both."""
    floors, ours = [], []
    for number in range(runs):
        floors.append(run_floor(server, folder, dump))
        ours.append(run_ours(server, folder))
        show(f"run {number + 1}", floors[-1], ours[-1])
    show("median of each", middle(floors), middle(ours))
    ratio = median(mine.seconds / floor.seconds for mine, floor in zip(ours, floors, strict=True))
    print(f"\nmedian of the runs: {ratio:.2f} times the floor", flush=True)
    if ratio > MOST_RATIO:
        raise SystemExit(f"more than {MOST_RATIO} times the floor")
    if max(mine.memory for mine in ours) > MOST_MEMORY:
        raise SystemExit(f"more than {MOST_MEMORY / MEGABYTE:.0f} MB")


def measure_outages(server: PostgresServer, folder: Path, service: Supervised, runs: int) -> None:
    """Restart the application, then restore below it, in turn; print how long it was away."""
    excess = 0.0
    for _ in range(runs):
        service.wait()
        restart = service.restart()
        with Visitor(service.port) as visitor:
            measured = run_ours(server, folder)
        (outage,) = (event for event in measured.events if event["event"] == "outage")
        excess = max(excess, outage["total"] - restart)
        shown = ", ".join(f"{part} {outage[part]:.2f}" for part in ("stop", "swap", "start", "healthy"))
        print(
            f"outage {outage['total']:.2f} s ({shown}) in {measured.seconds:.1f} s of restore, load"
            f" {os.getloadavg()[0]:.1f}; a visitor got no answer for {visitor.longest:.2f} s;"
            f" the service's own stop and start {restart:.2f} s; memory {measured.memory / MEGABYTE:.0f} MB",
            flush=True,
        )
    if excess > MOST_OUTAGE:
        raise SystemExit(f"an outage that is more than {MOST_OUTAGE} s longer than the service's own")


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


def run_ours(server: PostgresServer, folder: Path) -> Measured:
    """Restore by the action and measure it; what it parked is dropped."""
    settle(server)
    used = used_by_server(server.pid)
    measured = run_action("restore", folder, "--no-safety-backup")
    measured.processor += used_by_server(server.pid) - used
    with server.connect() as connection:
        parked = connection.execute("SELECT datname FROM pg_database WHERE NOT datallowconn AND NOT datistemplate")
        for (name,) in parked.fetchall():
            server.drop_database(name)
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


if __name__ == "__main__":
    main()
