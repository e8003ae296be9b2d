"""What can be said on the command line, as one frozen value."""

from __future__ import annotations

from argparse import ArgumentError
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from opsproof.errors import ConfigurationError
from opsproof.plugin.optiontexts import (
    Source,
    is_dry_run,
    read_file,
    read_role_map,
    read_seconds,
    read_source,
    read_span,
    read_time,
)

DEMO = "demo"
LATEST = "latest"
ROLLBACKS = ("schema", "data", "full", "release")
NAGIOS = pytest.StashKey[bool]()


@dataclass(frozen=True)
class Options:
    """The options of a run.

    Attributes:
        environment: What `--env` names.
        targets: What `--target` names; empty for all.
        backup: Which backup to bring back or to verify: `latest`, an id, an `s3://` address, a path; to verify, `all`.
        at: The newest backup not after this time (UTC) instead of the newest of all.
        source: Whose backup to bring back; None for the target's own.
        keep_identity: Whether what is brought back is moved here, and so not neutralized.
        confirm: Names of protected targets that may be changed.
        safety_backup: Whether a backup is taken before anything is replaced.
        in_place: Whether the live database is replaced itself, for want of room beside it.
        undo: Whether the last restore is taken back.
        role_map: The roles of the backup's server (keys) and those that stand for them here.
        rollback: What is rolled back: `schema`, `data`, `full`, `release`; None where nobody said so.
        names_backup: Whether somebody said which backup.
        revision: Where the schema is to go, as Alembic's command line takes it.
        data_loss: Whether a rollback may lose data.
        drift: Whether the schema may be another than its migrations make.
        plan: The plan that was read in a dry run, by its digest.
        step_timeout: The most seconds that any step may take; None for what the inventory says.
        older_than: The age from which a cleanup may remove backups; None for any that retention does not keep.
        random: Within how far back a drill's backup is chosen by chance; None for the newest.
        deep: Whether what is checked is read, or restored, to the last byte.
        metrics_file: Where the run's figures are written for Prometheus.
        nagios: Whether the answer is one line and an exit status as monitoring plugins have them.
        release: What is deployed: a folder, an archive, or a git repository with a ref; None where nobody said so.
        to_release: The release to go back to, by its name; None for the previous one.
        reuse_backup: How old a verified backup may be to stand for the one before a deploy; None takes one.
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
    older_than: timedelta | None = None
    random: timedelta | None = None
    deep: bool = False
    metrics_file: Path | None = None
    nagios: bool = False
    release: str | None = None
    to_release: str | None = None
    reuse_backup: timedelta | None = None


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
        help="the backup to restore: an id of --list-backups, s3://BUCKET/KEY, or a path (default: latest); "
        "with checks/test_backups.py the one to verify: an id, all, latest, or a FILE",
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
    group.addoption("--undo", action="store_true", help="take the last restore or rollback back")
    group.addoption(
        "--map-role",
        metavar="OLD=NEW",
        action="append",
        default=[],
        help="give what the role OLD owned in the backup to NEW; may be repeated",
    )
    group.addoption(
        "--type", choices=ROLLBACKS, help="what to roll back: the schema, the data, both (full), or a release"
    )
    group.addoption(
        "--to-revision",
        metavar="R",
        help="roll the schema back to this revision, as Alembic takes it: an id, its beginning, -1, base",
    )
    group.addoption(
        "--allow-data-loss",
        action="store_true",
        help="let a rollback destroy the data that its plan names, or a deploy begin with an empty database anew",
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
    group.addoption(
        "--older-than",
        metavar="SPAN",
        help="cleanup: remove only backups that are older, as in 30d; what the inventory's retention keeps stays, "
        "as does the last verified one whatever its age",
    )
    group.addoption(
        "--random", metavar="SPAN", help="drill: a backup chosen by chance from those of this span, as in 30d"
    )
    group.addoption(
        "--deep",
        action="store_true",
        help="checks: restore a backup into a scratch database and compare it; read every attachment's file",
    )
    group.addoption(
        "--metrics-file",
        metavar="FILE",
        help="write the run's figures for Prometheus: a file NAME.prom in node_exporter's textfile folder",
    )
    group.addoption(
        "--release",
        metavar="SOURCE",
        help="deploy this: a folder, an archive (.tar, .tar.gz, .zip), or a git repository with a ref, URL#REF",
    )
    group.addoption(
        "--reuse-backup",
        metavar="SPAN",
        help="deploy: a verified backup that is not older, as in 10m, stands for the one that is taken before",
    )
    group.addoption(
        "--to-release", metavar="NAME", help="with --type=release: go back to this release instead of the previous one"
    )
    group.addoption(
        "--report-html",
        metavar="FILE",
        help="write a report of the run: one HTML file that needs no network; pip install -e '.[report]'",
    )
    group.addoption(
        "--report-md", metavar="FILE", help="write a short report of the run, for the comment of a merge request"
    )
    _add_nagios(group)


def _add_nagios(group: pytest.OptionGroup) -> None:
    # testinfra's plugin has an option of this name, which is there first wherever that plugin is loaded.
    with suppress(ArgumentError, ValueError):
        group.addoption(
            "--nagios",
            action="store_true",
            dest="nagios",
            help="answer as a monitoring plugin: one line, and OK only where something ran and passed",
        )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Take `--nagios` before testinfra's plugin looks for it."""
    _take_nagios(config)


def _take_nagios(config: pytest.Config) -> bool:
    # testinfra's answer is OK where nothing ran at all, and it puts a terminal reporter of its own in place.
    if config.option.nagios:
        config.stash[NAGIOS] = True
        config.option.nagios = False
    return config.stash.get(NAGIOS, False)


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
    if config.getoption("--random") is not None and (named is not None or at is not None):
        raise ConfigurationError(
            "--random chooses a backup by chance, and another option names one",
            expected="one of them",
            found=f"--random={config.getoption('--random')!r} and "
            + (f"--at={at!r}" if at else f"--backup={backup!r}"),
            hint="leave one out",
        )
    source = config.getoption("--from")
    inventory = config.getoption("--inventory")
    return Options(
        environment=config.getoption("--env"),
        targets=tuple(config.getoption("--target")),
        inventory=Path(inventory) if inventory else None,
        settings=config.getoption("--settings"),
        dry_run=config.getoption("--dry-run") or is_dry_run(dry_run_variable),
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
        older_than=read_span("--older-than", config.getoption("--older-than")),
        random=read_span("--random", config.getoption("--random")),
        deep=config.getoption("--deep"),
        metrics_file=read_file("--metrics-file", config.getoption("--metrics-file")),
        nagios=_take_nagios(config),
        release=config.getoption("--release"),
        to_release=config.getoption("--to-release"),
        reuse_backup=read_span("--reuse-backup", config.getoption("--reuse-backup")),
    )
