"""Fleets: several small databases on one server as the targets of one environment, each with a folder of its own."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.lab.action_run import ActionRun, Project, make_project
from tests.lab.client_programs import wrap_clients
from tests.lab.postgres_server import PostgresServer

ROWS = 2000
NEVER_ENDS = "exec sleep 600"


@dataclass(frozen=True)
class Fleet:
    """Targets `t0`, `t1` and so on, in the environment prod of a project."""

    project: Project
    server: PostgresServer
    databases: Mapping[str, str]

    @property
    def targets(self) -> list[str]:
        """The names of the targets, in the inventory's order."""
        return list(self.databases)

    def folder(self, target: str) -> Path:
        """Where a target's backups go."""
        return self.project.store / target

    def stored(self, target: str) -> int:
        """Return how many files are in a target's store, unfinished ones too, without the journals of runs."""
        folder = self.folder(target)
        return sum(path.is_file() and path.parent != folder / "journals" for path in folder.rglob("*"))

    def describe(self, **changes: Mapping[str, object]) -> None:
        """Write the inventory, with more settings for some targets."""
        self.project.write_inventory(
            {"prod": {target: {**self._settings(target), **changes.get(target, {})} for target in self.targets}}
        )

    def hang(self, target: str, script: str = NEVER_ENDS) -> tuple[Path, dict[str, object]]:
        """Return the folder of a pg_dump that a script stands in for, and the settings of a target that has it."""
        bindir = wrap_clients(self.project.folder / f"bin-{target}", self.server.bindir, pg_dump=script)
        return bindir, {"pg_bindir": str(bindir)}

    def missing(self) -> dict[str, object]:
        """Return the settings of a target whose database is not there."""
        return {"database_url": self.server.url("no_such_database")}

    def sessions(self) -> int:
        """Return how many sessions of runs there are in the targets' databases."""
        query = "SELECT count(*) FROM pg_stat_activity WHERE datname = ANY(%s)"
        with self.server.connect() as connection:
            row = connection.execute(query, (list(self.databases.values()),)).fetchone()
        return int(row[0]) if row else 0

    def _settings(self, target: str) -> dict[str, object]:
        return {
            "database_url": self.server.url(self.databases[target]),
            "backup_dir": str(self.folder(target)),
            "pg_bindir": str(self.server.bindir),
        }


@contextmanager
def fleet_of(number: int, server: PostgresServer, folder: Path, rows: int = ROWS) -> Iterator[Fleet]:
    """Make so many small databases, and a project whose inventory has them."""
    # Every worker would load Hypothesis at its end, which takes longer than its targets.
    project = make_project(folder, PYTEST_ADDOPTS="-p no:hypothesispytest")
    mark = secrets.token_hex(3)
    databases = {f"t{count}": f"fleet_{mark}_{count}" for count in range(number)}
    fleet = Fleet(project, server, databases)
    try:
        for name in databases.values():
            server.create_database(
                name, f"CREATE TABLE notes AS SELECT n, md5(n::text) AS word FROM generate_series(1, {rows}) AS n"
            )
        fleet.describe()
        yield fleet
    finally:
        for name in databases.values():
            server.drop_database(name)


def require_in_order(run: ActionRun, targets: list[str]) -> None:
    """Check that of each target every step was told once, in the order of the class, by one worker."""
    told: dict[str, list[str]] = {target: [] for target in targets}
    workers: dict[str, set[str]] = {target: set() for target in targets}
    for event in run.named("step"):
        if event["when"] == "call" and event["target"] in told:
            told[event["target"]].append(event["step"])
            workers[event["target"]].add(event["worker"])
    orders = {target: list(run.outcomes(target)) for target in targets}
    for target in targets:
        assert told[target] == orders[target][: len(told[target])], target
        assert len(workers[target]) == 1, target
    assert max(Counter((case.target, case.step) for case in run.cases).values()) == 1


def children(pid: int) -> list[int]:
    """Return the processes that a process has started, by whichever of its threads."""
    lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    return [int(child) for text in lists for child in text.split()]


def is_above(pid: int, word: str) -> bool:
    """Tell whether this process, or one below it, has the word in its command line."""
    try:
        line = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return False
    return word in line or any(is_above(child, word) for child in children(pid))


def worker_with(pid: int, word: str) -> int:
    """Return the worker of a run that has started something with this in its command line."""
    (worker,) = [child for child in children(pid) if is_above(child, word)]
    return worker
