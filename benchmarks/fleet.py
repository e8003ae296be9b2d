"""Ten targets on one host: side by side in four workers against one after another, in turn.

    python benchmarks/fleet.py                       one has no database, one a pg_dump that never ends: eight are done
    python benchmarks/fleet.py --all-well            ten are done
    python benchmarks/fleet.py --rows=2000000        bigger databases

Both are whole commands, `pytest actions/test_backup.py`, from start to exit status, into folders, from one PostgreSQL
server. The median of `-n 4` has to be the smaller one. A worker takes about 0.8 s of a processor to start, which the
waiting for the hanging target, or databases of some size and processors that are free, have to make up for.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.lab.fleets import Fleet, fleet_of
from tests.lab.postgres_server import KINDS, running_postgres

STEP_SECONDS = 10
FAILED, HUNG = "t6", "t1"


def main() -> None:
    """Run the benchmark, print what was measured, and fail where side by side is not the faster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", type=int, default=10, help="how many")
    parser.add_argument("--workers", type=int, default=4, help="how many side by side")
    parser.add_argument("--rows", type=int, default=500_000, help="rows in each database")
    parser.add_argument("--runs", type=int, default=5, help="how often each way is run")
    parser.add_argument("--all-well", action="store_true", help="no target fails or hangs")
    parser.add_argument("--server", choices=KINDS, default="wheel", help="whose PostgreSQL")
    parser.add_argument("--folder", help="where everything is made (default: the temporary folder)")
    options = parser.parse_args()
    with (
        running_postgres(options.server) as server,
        tempfile.TemporaryDirectory(prefix="opsproof-fleet-", dir=options.folder) as name,
        fleet_of(options.targets, server, Path(name) / "project", options.rows) as fleet,
    ):
        # As for everybody who runs it a second time: what was compiled is kept.
        fleet.project.environ["PYTHONPYCACHEPREFIX"] = str(Path(name) / "compiled")
        del fleet.project.environ["PYTHONDONTWRITEBYTECODE"]
        fleet.project.run("--collect-only")
        bad = () if options.all_well else (FAILED, HUNG)
        if bad:
            fleet.describe(**{FAILED: fleet.missing(), HUNG: fleet.hang(HUNG)[1]})
        one_by_one, side_by_side = [], []
        for number in range(options.runs):
            one_by_one.append(seconds_of(fleet, bad))
            side_by_side.append(seconds_of(fleet, bad, "-n", str(options.workers)))
            print(
                f"run {number + 1}: one after another {one_by_one[-1]:.1f} s, side by side {side_by_side[-1]:.1f} s,"
                f" load {os.getloadavg()[0]:.1f}",
                flush=True,
            )
        print(f"median: {median(one_by_one):.1f} s and {median(side_by_side):.1f} s")
        if median(side_by_side) >= median(one_by_one):
            raise SystemExit("side by side is not faster")


def seconds_of(fleet: Fleet, bad: tuple[str, ...], *arguments: str) -> float:
    """Run a backup of all targets, check that it came to what it has to, and return how long it took.

    Args:
        fleet: The targets.
        bad: Those that fail.
        arguments: More of pytest's.
    """
    before = {target: fleet.stored(target) for target in fleet.targets}
    started = time.monotonic()
    run = fleet.project.run(f"--step-timeout={STEP_SECONDS}", *arguments)
    seconds = time.monotonic() - started
    stored = [target for target in fleet.targets if fleet.stored(target) == before[target] + 2]
    if run.status != (1 if bad else 0) or stored != [target for target in fleet.targets if target not in bad]:
        raise SystemExit(f"exit status {run.status}; stored: {', '.join(stored)}\n{run.output}")
    return seconds


if __name__ == "__main__":
    main()
