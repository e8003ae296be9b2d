"""How fast, how big, how much memory: the seed's recipe against this backup, in turn, on equal terms.

    python benchmarks/backup.py                                  the table of docs/explanation/speed.md
    python benchmarks/backup.py --rows=10000000 --runs=1         a 3 GB database
    python benchmarks/backup.py --rows=20000 --files=200000 --file-bytes=100 --runs=1

The recipe is what people run: `pg_dump -Fc`, `pg_dump`, `cp -r` of the filestore, `zip -r`, then the upload. Both
read the same PostgreSQL over the same socket and end with a durable copy in a folder on the same disk. Ours is the
whole command, `pytest actions/test_backup.py`, with all of its proof.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.data import FULL_ROWS, fill_database, fill_filestore  # noqa: E402
from tests.lab.postgres_server import KINDS, PostgresServer, running_postgres  # noqa: E402

DATABASE = "bench"
# Not oftener: sampling takes processor time, and only one of the two ways leaves a core idle for it.
SAMPLE_SECONDS = 0.25
MEGABYTE = 1e6
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Measured:
    """One run: seconds, the archive's bytes, and the peaks of memory and of temporary disk, in bytes."""

    seconds: float = 0.0
    archive: int = 0
    memory: int = 0
    disk: int = 0
    phases: dict[str, float] = field(default_factory=dict)


class Watch:
    """Samples the memory of a process and all its children, and the disk that a folder and their nameless files take.

    The server's backends are not among them: both ways use the same. Memory is what each process has
    for itself alone, which costs next to nothing to ask for.
    """

    def __init__(self, pid: int, folders: list[Path]) -> None:
        self.memory = self.disk = 0
        self._pid = pid
        self._folders = folders
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def finish(self) -> None:
        """Stop sampling."""
        self._stop.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            pids = family(self._pid)
            self.memory = max(self.memory, sum(memory_of(pid) for pid in pids))
            named = sum(size_of(folder) for folder in self._folders)
            self.disk = max(self.disk, named + sum(nameless_files(pid) for pid in pids))


def main() -> None:
    """Run the benchmark and print its table."""
    options = parse()
    with (
        running_postgres(options.server) as server,
        tempfile.TemporaryDirectory(prefix="opsproof-bench-", dir=options.folder) as name,
    ):
        folder = Path(name)
        prepare(server, folder, options)
        recipes, ours = [], []
        for number in range(options.runs):
            recipes.append(run_recipe(server, folder))
            ours.append(run_ours(folder, number))
            show(f"run {number + 1}", recipes[-1], ours[-1])
        if options.runs > 1:
            show("median", middle(recipes), middle(ours))


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=FULL_ROWS, help="rows in the database")
    parser.add_argument("--files", type=int, default=1662, help="files in the filestore")
    parser.add_argument("--file-bytes", type=int, default=120_000, help="bytes of each")
    parser.add_argument("--runs", type=int, default=3, help="how often each way is run")
    parser.add_argument("--server", choices=KINDS, default="system", help="whose PostgreSQL")
    parser.add_argument("--folder", help="where everything is made (default: the temporary folder)")
    return parser.parse_args()


def prepare(server: PostgresServer, folder: Path, options: argparse.Namespace) -> None:
    """Make the data and the inventory."""
    server.create_database(DATABASE)
    filestore = folder / "data" / "filestore" / DATABASE
    filestore.mkdir(parents=True)
    with server.connect(DATABASE) as connection:
        fill_database(connection, options.rows)
        fill_filestore(filestore, connection, options.files, options.file_bytes)
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
    print(
        f"database {row[0] / MEGABYTE:.0f} MB, {options.files} files, {size_of(filestore) / MEGABYTE:.0f} MB"
        if row
        else ""
    )
    (folder / "odoo.conf").write_text(
        f"[options]\ndb_host = {server.folder}\ndb_port = {server.port}\ndb_user = postgres\n"
        f"db_password = {server.password}\ndb_name = {DATABASE}\ndata_dir = {folder / 'data'}\n"
    )
    hosts = {
        "ansible_connection": "local",
        "dbname": DATABASE,
        "odoo_conf": str(folder / "odoo.conf"),
        "pg_bindir": str(server.bindir),
        "backup_dir": str(folder / "backups"),
        "customer": "bench",
    }
    (folder / "hosts.yml").write_text(json.dumps({"bench": {"hosts": {"app": hosts}}}))


def run_recipe(server: PostgresServer, folder: Path) -> Measured:
    """Run the recipe and measure it."""
    work, store = folder / "work", folder / "store"
    for place in (work, store):
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
    environment = {
        **os.environ,
        "PGHOST": str(server.folder),
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "PGPASSWORD": server.password,
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
        with measuring(["bash", "-c", command], work, environment, [work, folder / f"{DATABASE}.zip"]) as one:
            pass
        measured.seconds += one.seconds
        measured.phases[step] = one.seconds
        measured.memory, measured.disk = max(measured.memory, one.memory), max(measured.disk, one.disk)
    measured.archive = (store / f"{DATABASE}.zip").stat().st_size
    (folder / f"{DATABASE}.zip").unlink()
    shutil.rmtree(work)
    shutil.rmtree(store)
    return measured


def run_ours(folder: Path, number: int) -> Measured:
    """Run this backup and measure it; it must have passed."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    logs = folder / f"logs-{number}"
    argv = [
        sys.executable, "-m", "pytest", str(ROOT / "actions" / "test_backup.py"), "--env=bench", "-q",
        f"--inventory={folder / 'hosts.yml'}", f"--logs={logs}", "-p", "no:cacheprovider",
    ]  # fmt: skip
    environment = {**os.environ, "TMPDIR": str(temporary)}
    with measuring(argv, ROOT, environment, [temporary]) as measured:
        pass
    (bundle,) = (folder / "backups").rglob("*.zip")
    measured.archive = bundle.stat().st_size
    shutil.rmtree(folder / "backups")
    for line in next(logs.glob("*.jsonl")).read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "phase ends":
            measured.phases[event["phase"]] = measured.phases.get(event["phase"], 0.0) + event["seconds"]
    return measured


@contextmanager
def measuring(argv: list[str], folder: Path, environment: dict[str, str], disk: list[Path]) -> Iterator[Measured]:
    """Run a command to its successful end and measure it."""
    measured = Measured()
    started = time.monotonic()
    with subprocess.Popen(
        argv, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        watch = Watch(process.pid, disk)
        output = process.stdout.read() if process.stdout else b""
        status = process.wait()
        measured.seconds = time.monotonic() - started
        watch.finish()
    if status != 0:
        raise SystemExit(f"{argv[0]} ended with {status}:\n{output.decode()}")
    measured.memory, measured.disk = watch.memory, watch.disk
    yield measured


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except OSError:
                continue
    return found


def memory_of(pid: int) -> int:
    """Return what a process has in memory for itself alone, in bytes; 0 when it is gone."""
    try:
        _, resident, shared, *_ = map(int, Path(f"/proc/{pid}/statm").read_text().split())
    except (OSError, ValueError):
        return 0
    return (resident - shared) * PAGE_BYTES


def nameless_files(pid: int) -> int:
    """Return the bytes on disk of files that a process has open but that no folder names."""
    total = 0
    try:
        for link in Path(f"/proc/{pid}/fd").iterdir():
            if str(link.readlink()).endswith("(deleted)"):
                total += link.stat().st_blocks * 512
    except OSError:
        return total
    return total


def size_of(place: Path) -> int:
    """Return the bytes on disk of a file or a folder, as far as it holds still."""
    try:
        if place.is_dir():
            return sum(size_of(Path(entry)) for entry in os.scandir(place))
        return place.lstat().st_blocks * 512
    except OSError:
        return 0


def middle(runs: list[Measured]) -> Measured:
    """Return the run of median duration, with the peaks of all."""
    typical = next(
        run for run in sorted(runs, key=lambda run: run.seconds) if run.seconds >= median(r.seconds for r in runs)
    )
    return Measured(
        typical.seconds, typical.archive, max(run.memory for run in runs), max(run.disk for run in runs), typical.phases
    )


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
