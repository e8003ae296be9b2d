"""How fast, how big, how much memory: the seed's recipe against this backup, in turn, on equal terms.

    python benchmarks/backup.py                                  the table of docs/explanation/speed.md
    python benchmarks/backup.py --rows=10000000 --runs=1         a 3 GB database
    python benchmarks/backup.py --rows=20000 --files=200000 --file-bytes=100 --runs=1

The recipe is what people run: `pg_dump -Fc`, `pg_dump`, `cp -r` of the filestore, `zip -r`, then the upload. Both
read the same PostgreSQL over the same socket and end with a durable copy in a folder on the same disk. Ours is the
whole command, `pytest actions/test_backup.py`, with all of its proof.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measure import MEGABYTE, Measured, measure, middle, run_action
from benchmarks.project import DATABASE, parser_of, prepare, variables_of
from tests.lab.postgres_server import PostgresServer, running_postgres


def main() -> None:
    """Run the benchmark and print its table."""
    options = parser_of(__doc__).parse_args()
    with (
        running_postgres(options.server) as server,
        tempfile.TemporaryDirectory(prefix="opsproof-bench-", dir=options.folder) as name,
    ):
        folder = Path(name)
        prepare(server, folder, options)
        recipes, ours = [], []
        for number in range(options.runs):
            recipes.append(run_recipe(server, folder))
            ours.append(run_ours(folder))
            show(f"run {number + 1}", recipes[-1], ours[-1])
        if options.runs > 1:
            show("median", middle(recipes), middle(ours))


def run_recipe(server: PostgresServer, folder: Path) -> Measured:
    """Run the recipe and measure it."""
    work, store = folder / "work", folder / "store"
    for place in (work, store):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    environment = {
        **os.environ,
        **variables_of(server),
        "PATH": f"{server.bindir}:{os.environ['PATH']}",
    }
    steps = {
        "pg_dump -Fc": f"pg_dump -Fc -f {DATABASE}.dump {DATABASE}",
        "pg_dump": f"pg_dump -f {DATABASE}.sql {DATABASE}",
        "cp -r": f"cp -r {folder / 'data' / 'filestore' / DATABASE} filestore",
        "zip -r": f"zip -q -r ../{DATABASE}.zip .",
        "upload": f"cp ../{DATABASE}.zip {store}/ && sync {store}/{DATABASE}.zip",
    }
    measured = Measured()
    for step, command in steps.items():
        one = measure(["bash", "-c", command], work, environment, [work, folder / f"{DATABASE}.zip"])
        measured.seconds += one.seconds
        measured.phases[step] = one.seconds
        measured.memory, measured.disk = max(measured.memory, one.memory), max(measured.disk, one.disk)
    measured.archive = (store / f"{DATABASE}.zip").stat().st_size
    (folder / f"{DATABASE}.zip").unlink()
    shutil.rmtree(work)
    shutil.rmtree(store)
    return measured


def run_ours(folder: Path) -> Measured:
    """Run this backup and measure it."""
    measured = run_action("backup", folder)
    (bundle,) = (folder / "backups").rglob("*.zip")
    measured.archive = bundle.stat().st_size
    shutil.rmtree(folder / "backups")
    return measured


def show(title: str, recipe: Measured, ours: Measured) -> None:
    """Print one comparison."""
    faster, bigger = recipe.seconds / ours.seconds, ours.archive / recipe.archive
    print(f"\n{title}: {faster:.2f} times faster, archive {bigger:.2f} times as big")
    for name, run in (("recipe", recipe), ("ours", ours)):
        archive, memory, disk = (value / MEGABYTE for value in (run.archive, run.memory, run.disk))
        print(
            f"  {name:7}{run.seconds:7.1f} s, MB: archive {archive:.0f}, memory {memory:.0f}, temporary disk {disk:.0f}"
        )
        print("          " + ", ".join(f"{phase} {seconds:.1f}" for phase, seconds in run.phases.items()))


if __name__ == "__main__":
    main()
