"""How fast, how much memory, how long an outage: a restore that proves itself against the floor, in turn.

    python benchmarks/restore.py                                 the table of docs/explanation/speed.md
    python benchmarks/restore.py --rows=8500000 --runs=1         a 3 GB database
    python benchmarks/restore.py --service --rows=550000         the outage of a supervised application, 0.2 GB

The floor is that of benchmarks/floor.py. Ours is the whole command, `pytest actions/test_restore.py
--no-safety-backup`, from the zip to the last check, into the same server.
"""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.floor import measure_ratios, run_on_server
from benchmarks.measure import MEGABYTE, Measured, run_action
from benchmarks.project import DATABASE, parser_of, prepare
from benchmarks.service import Supervised, Visitor, supervised
from tests.lab.postgres_server import PostgresServer, running_postgres

MOST_RATIO = 1.4
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
            measure_ratios(server, folder, options.runs, lambda: run_ours(server, folder), MOST_RATIO)


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


def run_ours(server: PostgresServer, folder: Path) -> Measured:
    """Restore by the action and measure it; what it parked is dropped."""
    measured = run_on_server(server, folder, "restore", "--no-safety-backup")
    with server.connect() as connection:
        parked = connection.execute("SELECT datname FROM pg_database WHERE NOT datallowconn AND NOT datistemplate")
        for (name,) in parked.fetchall():
            server.drop_database(name)
    return measured


if __name__ == "__main__":
    main()
