"""How fast and how much memory: a drill against the floor, in turn.

    python benchmarks/drill.py --runs=3                  the figure of docs/how-to/drill.md
    python benchmarks/drill.py --rows=550000             0.2 GB

The floor is that of benchmarks/restore.py: `pg_restore -j2 --exit-on-error` of the same dump, lying there unpacked,
into an empty database, ANALYZE, and reading every row once. Ours is the whole command, `pytest actions/test_drill.py`,
from the zip to the removal of the copy, with the files, into the same server. amcheck is looked at by itself: a
superuser's drill reads every table and index for it once more.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import MEGABYTE, Measured, middle, run_action, used_by_server
from benchmarks.project import parser_of, prepare
from benchmarks.restore import run_floor, settle, show, unpack
from tests.lab.postgres_server import PostgresServer, running_postgres

MOST_RATIO = 1.5
MOST_MEMORY = 300e6


def main() -> None:
    """Run the benchmark, print what was measured, and fail where it is more than is promised."""
    options = parser_of(__doc__).parse_args()
    with (
        running_postgres(options.server) as server,
        tempfile.TemporaryDirectory(prefix="opsproof-bench-", dir=options.folder) as name,
    ):
        folder = Path(name)
        prepare(server, folder, options)
        run_action("backup", folder)
        dump = unpack(folder)
        floors, ours = [], []
        for number in range(options.runs):
            floors.append(run_floor(server, folder, dump))
            ours.append(run_drill(server, folder))
            show(f"run {number + 1}", floors[-1], ours[-1])
        show("median of each", middle(floors), middle(ours))
        ratio = median(mine.seconds / floor.seconds for mine, floor in zip(ours, floors, strict=True))
        print(f"\nmedian of the runs: {ratio:.2f} times the floor", flush=True)
        if ratio > MOST_RATIO:
            raise SystemExit(f"more than {MOST_RATIO} times the floor")
        if max(mine.memory for mine in ours) > MOST_MEMORY:
            raise SystemExit(f"more than {MOST_MEMORY / MEGABYTE:.0f} MB")


def run_drill(server: PostgresServer, folder: Path) -> Measured:
    """Run a drill and measure it; it leaves nothing."""
    settle(server)
    used = used_by_server(server.pid)
    measured = run_action("drill", folder)
    measured.processor += used_by_server(server.pid) - used
    return measured


if __name__ == "__main__":
    main()
