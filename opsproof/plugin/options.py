"""What can be said on the command line, as one frozen value."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opsproof.errors import ConfigurationError

TRUE = {"1", "true", "yes", "on"}
DEMO = "demo"
LATEST = "latest"
MOST_SECONDS = 31_536_000  # a year; a timer cannot be set to just any number
ROLLBACKS = ("schema", "data", "full")
SPACE_BEFORE_ZONE = re.compile(r"\s+(?=[+-]\d\d(:?\d\d)?$|[Zz]$)")


@dataclass(frozen=True)
class Source:
    """What `--from` names: another environment of the inventory, and its target where there are several."""

    environment: str
    target: str | None = None


@dataclass(frozen=True)
class Options:
    """The options of a run.

    Attributes:
        environment: What `--env` names.
        targets: What `--target` names; empty for all.
        backup: Which backup to bring back: `latest`, an id, an `s3://` address, or a path.
        at: The newest backup not after this time (UTC) instead of the newest of all.
        source: Whose backup to bring back; None for the target's own.
        keep_identity: Whether what is brought back is moved here, and so not neutralized.
        confirm: Names of protected targets that may be changed.
        safety_backup: Whether a backup is taken before anything is replaced.
        in_place: Whether the live database is replaced itself, for want of room beside it.
        undo: Whether the last restore is taken back.
        role_map: The roles of the backup's server (keys) and those that stand for them here.
        rollback: What is rolled back: `schema`, `data`, `full`; None where nobody said so.
        names_backup: Whether somebody said which backup.
        revision: Where the schema is to go, as Alembic's command line takes it.
        data_loss: Whether a rollback may lose data.
        drift: Whether the schema may be another than its migrations make.
        plan: The plan that was read in a dry run, by its digest.
        step_timeout: The most seconds that any step may take; None for what the inventory says.
    """

    environment: str
    targets: tuple[str, ...]
    inventory: Path | None
    settings: str | None
    dry_run: bool
    logs: Path
    list_backups: bool
    list_targets: bool
    json: bool
    backup: str
    at: datetime | None
    source: Source | None
    keep_identity: bool
    confirm: tuple[str, ...]
    safety_backup: bool
    in_place: bool
    undo: bool
    role_map: Mapping[str, str]
    rollback: str | None
    names_backup: bool
    revision: str | None
    data_loss: bool
    drift: bool
    plan: str | None
    step_timeout: float | None = None


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
    group.addoption(
        "--backup",
        metavar="ID",
        help="the backup to restore: an id of --list-backups, s3://BUCKET/KEY, or a path (default: latest)",
    )
    group.addoption(
        "--at",
        metavar="TIME",
        help="the newest backup not after this time, in UTC where it names no zone: '2026-01-31 02:00', "
        "2026-01-31T05:00+03:00; a date alone is its first moment",
    )
    group.addoption("--from", metavar="ENV[/TARGET]", help="restore a backup of another environment or target")
    group.addoption(
        "--keep-identity", action="store_true", help="the database moves here: do not neutralize what is restored"
    )
    group.addoption(
        "--confirm", metavar="TARGET", action="append", default=[], help="change this protected target; may be repeated"
    )
    group.addoption(
        "--no-safety-backup", action="store_true", help="take no backup before the database is replaced by a restore"
    )
    group.addoption(
        "--in-place", action="store_true", help="replace the live database itself, where there is no room beside it"
    )
    group.addoption("--undo", action="store_true", help="take the last restore back")
    group.addoption(
        "--map-role",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="give what the role OLD owned in the backup to NEW; may be repeated",
    )
    group.addoption("--type", choices=ROLLBACKS, help="what to roll back: the schema, the data, or both")
    group.addoption(
        "--to-revision",
        metavar="R",
        help="roll the schema back to this revision, as Alembic takes it: an id, its beginning, -1, base",
    )
    group.addoption(
        "--allow-data-loss", action="store_true", help="let a rollback destroy the data that its plan names"
    )
    group.addoption(
        "--allow-drift", action="store_true", help="roll back a schema that is not what its migrations make of it"
    )
    group.addoption(
        "--step-timeout",
        metavar="SECONDS",
        help="interrupt a step that takes longer, and undo (default: step_timeout of the inventory, or 6 hours)",
    )
    group.addoption("--plan", metavar="DIGEST", help="only if the plan is still the one that a dry run has printed")


def read_options(config: pytest.Config, dry_run_variable: str) -> Options:
    """Return what was said, once.

    Args:
        config: pytest's.
        dry_run_variable: The value of the variable DRY_RUN.

    Raises:
        ConfigurationError: An option's value cannot be read, or two contradict each other.
    """
    at, named = config.getoption("--at"), config.getoption("--backup")
    backup = LATEST if named is None else named.strip()
    if not backup:
        raise ConfigurationError(
            "--backup names nothing",
            expected="latest, an id, s3://BUCKET/KEY, or a path",
            found="an empty text: a variable that is not set?",
            hint="pytest --list-backups --env=NAME",
        )
    if at is not None and backup != LATEST:
        raise ConfigurationError(
            "--at and --backup both say which backup it is to be",
            expected="one of them",
            found=f"--at={at!r} and --backup={backup!r}",
            hint="leave one out",
        )
    source = config.getoption("--from")
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
        backup=backup,
        at=None if at is None else read_time(at),
        source=None if source is None else read_source(source),
        keep_identity=config.getoption("--keep-identity"),
        confirm=tuple(config.getoption("--confirm")),
        safety_backup=not config.getoption("--no-safety-backup"),
        in_place=config.getoption("--in-place"),
        undo=config.getoption("--undo"),
        role_map=read_role_map(config.getoption("--map-role")),
        rollback=config.getoption("--type"),
        names_backup=named is not None or at is not None,
        revision=config.getoption("--to-revision"),
        data_loss=config.getoption("--allow-data-loss"),
        drift=config.getoption("--allow-drift"),
        plan=config.getoption("--plan"),
        step_timeout=read_seconds("--step-timeout", config.getoption("--step-timeout")),
    )


def read_time(text: str) -> datetime:
    """Return the time of `--at`, in UTC; one that names no zone is UTC already.

    >>> str(read_time("2026-01-31 02:00 +03:00")), str(read_time("2026-01-31"))
    ('2026-01-30 23:00:00+00:00', '2026-01-31 00:00:00+00:00')

    Raises:
        ConfigurationError: It is no time.
    """
    try:
        moment = datetime.fromisoformat(SPACE_BEFORE_ZONE.sub("", text.strip()))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigurationError(
            f"--at={text!r} is no time",
            expected="a date and a time as ISO 8601 writes them; UTC where no zone is named",
            found=str(error),
            hint="--at=2026-01-31   --at='2026-01-31 02:00'   --at=2026-01-31T02:00:00Z   --at=2026-01-31T05:00+03:00",
        ) from error


def read_source(text: str) -> Source:
    """Return what `--from` names.

    >>> read_source("prod/erp"), read_source("prod")
    (Source(environment='prod', target='erp'), Source(environment='prod', target=None))

    Raises:
        ConfigurationError: It is neither an environment nor an environment and a target.
    """
    environment, slash, target = text.strip().partition("/")
    if not environment or (slash and not target):
        raise ConfigurationError(
            f"--from={text!r} names no environment or no target",
            expected="ENV or ENV/TARGET",
            found=repr(text),
            hint="pytest --list-targets   shows both",
        )
    return Source(environment, target or None)


def read_role_map(pairs: Iterable[str]) -> dict[str, str]:
    """Return what `--map-role` says, the old role as key.

    Raises:
        ConfigurationError: One is not OLD=NEW, or two say different things of one role.
    """
    roles: dict[str, str] = {}
    for pair in pairs:
        old, _, new = pair.partition("=")
        if not old or not new:
            raise ConfigurationError(
                f"--map-role={pair} does not say which role stands for which",
                expected="OLD=NEW",
                found=pair or "nothing",
                hint="--map-role=odoo_prod=odoo_staging",
            )
        if roles.setdefault(old, new) != new:
            raise ConfigurationError(
                f"--map-role says two things of the role {old}",
                expected="one role that stands for it",
                found=f"{roles[old]} and {new}",
                hint="leave one out",
            )
    return roles


def read_seconds(option: str, text: str | None) -> float | None:
    """Return the seconds that an option says; None where it was not given.

    Raises:
        ConfigurationError: It is no number, or not more than nothing.
    """
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= MOST_SECONDS:
        raise ConfigurationError(
            f"{option}={text!r} is no number of seconds",
            expected=f"more than 0 and at most {MOST_SECONDS:,}",
            found=repr(text),
            hint=f"{option}=3600",
        )
    return seconds
