"""How fast and how much memory: a drill against the floor, in turn.

    python benchmarks/drill.py --runs=3                  the figure of docs/how-to/drill.md
    python benchmarks/drill.py --rows=550000             0.2 GB

The floor is that of benchmarks/floor.py. Ours is the whole command, `pytest actions/test_drill.py`, from the zip to the
removal of the copy, with the files, into the same server. amcheck is looked at by itself: a superuser's drill reads
every table and index for it once more.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.floor import measure_ratios, run_on_server
from benchmarks.measure import run_action
from benchmarks.project import parser_of, prepare
from tests.lab.postgres_server import running_postgres

MOST_RATIO = 1.5


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
        measure_ratios(server, folder, options.runs, lambda: run_on_server(server, folder, "drill"), MOST_RATIO)


if __name__ == "__main__":
    main()
