"""What can be said on the command line, as one frozen value."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

TRUE = {"1", "true", "yes", "on"}
DEMO = "demo"


@dataclass(frozen=True)
class Options:
    """The options of a run; `environment_given` tells whether `--env` was said or is the default."""

    environment: str
    targets: tuple[str, ...]
    inventory: Path | None
    settings: str | None
    dry_run: bool
    logs: Path
    list_backups: bool
    list_targets: bool
    json: bool


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add opsproof's options."""
    group = parser.getgroup("opsproof", "opsproof: backup, restore, rollback")
    group.addoption("--env", metavar="NAME", default=DEMO, help="environment: a group of the inventory (default: demo)")
    group.addoption("--target", metavar="NAME", action="append", default=[], help="only this target; may be repeated")
    group.addoption("--inventory", metavar="FILE", help="Ansible inventory (default: hosts.yml, where there is one)")
    group.addoption(
        "--settings",
        metavar="MODULE:NAME",
        help="without an inventory: the application's own setting of its database URL",
    )
    group.addoption(
        "--dry-run",
        action="store_true",
        help="look, print the plan, change nothing (or DRY_RUN=true in the environment)",
    )
    group.addoption("--logs", metavar="DIR", default="logs", help="where logs and journals go (default: logs)")
    group.addoption("--list-backups", action="store_true", help="show the backups of an environment and exit")
    group.addoption("--list-targets", action="store_true", help="show the environments and targets and exit")
    group.addoption("--json", action="store_true", help="with --list-backups or --list-targets: print JSON")


def read_options(config: pytest.Config, dry_run_variable: str) -> Options:
    """Return what was said, once.

    Args:
        config: pytest's.
        dry_run_variable: The value of the variable DRY_RUN.
    """
    inventory = config.getoption("--inventory")
    return Options(
        environment=config.getoption("--env"),
        targets=tuple(config.getoption("--target")),
        inventory=Path(inventory) if inventory else None,
        settings=config.getoption("--settings"),
        dry_run=config.getoption("--dry-run") or dry_run_variable.strip().lower() in TRUE,
        logs=Path(config.getoption("--logs")),
        list_backups=config.getoption("--list-backups"),
        list_targets=config.getoption("--list-targets"),
        json=config.getoption("--json"),
    )
