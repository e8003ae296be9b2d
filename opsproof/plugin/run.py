"""The run: its options, its environment, its journal and its log. Made when the first procedure is collected."""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import pytest

from opsproof.errors import ConfigurationError
from opsproof.inventory.ansible import find_inventory
from opsproof.inventory.loading import load_environment
from opsproof.journal import Redactor
from opsproof.plugin.logbook import PrivateLog, TargetJournal, join_logbook, open_logbook
from opsproof.plugin.options import DEMO, Options, read_options
from opsproof.plugin.redaction import redacted_records
from opsproof.plugin.startup import reading_of
from opsproof.procedures.backup.procedure import Outcome
from opsproof.procedures.deploy.deployed import DeployOutcome
from opsproof.procedures.drill.drilled import DrillOutcome
from opsproof.procedures.restore.procedure import RestoreOutcome
from opsproof.procedures.rollback.rolledback import RollbackOutcome
from opsproof.system.hosts.farmachine import machine_of
from opsproof.system.store import Store, open_store
from opsproof.target import Environment, S3StoreSettings, Target

SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PGPASSWORD")
# A key's text, of several lines, or the path of a file that holds it.
KEY_VARIABLES = ("OPSPROOF_AGE_IDENTITY", "OPSPROOF_SIGNING_KEY")
# What an application's own secrets are called; a file's name is none, and a switch or a number of seconds would blot
# out half of a log.
TELLING_NAME = re.compile(r"(?i)PASS|SECRET|TOKEN|CREDENTIAL|(?:^|_)(?:API_?)?KEY(?:$|_)")
NAMES_A_PLACE = re.compile(r"(?i)_(?:FILE|PATH|DIR|FOLDER)$")
SWITCHES = ("true", "false", "none", "null")
SHORT_NUMBER = 8
URL_PASSWORD = re.compile(r"://[^\s/@:]*:([^\s/]+)@")
STAMP_FORMAT = "%Y-%m-%d_%H-%M-%S"
LOGGER = "opsproof"


@dataclass
class Run:
    """What lasts as long as the session.

    `outcomes`, `restored`, `rolled_back`, `deployed`, `recovered`, `cleaned`, `drilled` and `plans` are what the
    terminal summary shows of each target; `told`, the lines that the workers of a fleet have made of theirs.
    """

    options: Options
    environment: Environment
    redactor: Redactor
    journal: TargetJournal
    inventory: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    stores: dict[str, Store] = field(default_factory=dict)
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    restored: dict[str, RestoreOutcome] = field(default_factory=dict)
    rolled_back: dict[str, RollbackOutcome] = field(default_factory=dict)
    deployed: dict[str, DeployOutcome] = field(default_factory=dict)
    recovered: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cleaned: dict[str, tuple[str, ...]] = field(default_factory=dict)
    drilled: dict[str, DrillOutcome] = field(default_factory=dict)
    plans: dict[str, list[str]] = field(default_factory=dict)
    told: dict[str, list[str]] = field(default_factory=dict)

    def store(self, target: Target) -> Store:
        """Return the store of a target, opened once."""
        if target.name not in self.stores:
            self.stores[target.name] = open_store(target.store, target.customer)
        return self.stores[target.name]

    def source_of(self, target: Target) -> tuple[Target, Store] | None:
        """Return whose backups `--from` names, and their store; None where it was not said.

        Raises:
            ConfigurationError: There is no such environment or target, or it is not said which of several.
        """
        source = self.options.source
        if source is None:
            return None
        only = [source.target] if source.target else []
        inventory = self.inventory
        targets = load_environment(
            source.environment, inventory=inventory, environ=self.variables, only=only, machine_of=machine_of
        ).targets
        same = [one for one in targets if one.name == target.name]
        if len(targets) > 1 and not same:
            raise ConfigurationError(
                f"--from={source.environment} does not say which target",
                expected=" or ".join(f"--from={source.environment}/{one.name}" for one in targets),
                found=f"{len(targets)} targets, none of them named {target.name}",
                kept="nothing was changed",
                hint=f"--from={source.environment}/{targets[0].name}",
            )
        chosen = same[0] if same else targets[0]
        return chosen, self._open(chosen)

    def _open(self, target: Target) -> Store:
        store = open_store(target.store, target.customer)
        for secret in store.secrets():
            self.redactor.add(secret)
        return store

    def target(self, name: str) -> Target:
        """Return a target by its name."""
        return next(target for target in self.environment.targets if target.name == name)


@dataclass(frozen=True)
class Shared:
    """What the processes of a fleet have in common.

    Attributes:
        stamp: The end of the names of their journal and log.
        worker: Which worker of pytest-xdist this process is; empty for the one that they report to.
        environment: The environment, loaded once for all of them; None where each of them has to.
    """

    stamp: str
    worker: str = ""
    environment: Environment | None = None


RUN = pytest.StashKey[Run]()
SHARED = pytest.StashKey[Shared]()
VARIABLES = pytest.StashKey[Mapping[str, str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Set libpq's variables aside: they make a target, and may not leak into connections to another."""
    config.stash[VARIABLES] = dict(os.environ)


def begin_run(config: pytest.Config, action: str | None) -> Run:
    """Return the session's run; the first call makes it.

    Args:
        config: pytest's.
        action: What the log and the journal are named for; None keeps neither.

    Raises:
        OpsproofError: The configuration is wrong.
    """
    if RUN in config.stash:
        return config.stash[RUN]
    variables = config.stash[VARIABLES]
    options = read_options(config, variables.get("DRY_RUN", ""))
    inventory = choose_inventory(options, announcer(config))
    shared = config.stash.get(SHARED, None)
    environment = (shared and shared.environment) or load_chosen(config, options, inventory)
    redactor = Redactor()
    for secret in _secrets(environment, variables):
        redactor.add(secret)
    run = Run(options, environment, redactor, TargetJournal(None, redactor), inventory, variables)
    if action is not None:
        _begin_logbook(run, action, shared)
    lasting = ExitStack()
    lasting.enter_context(redacted_records(redactor))
    config.add_cleanup(lasting.close)
    config.stash[RUN] = run
    return run


def load_chosen(config: pytest.Config, options: Options, inventory: Path | None) -> Environment:
    """Load the environment that the options choose.

    Raises:
        OpsproofError: The configuration is wrong.
    """
    return load_environment(
        options.environment,
        inventory=inventory,
        reading=reading_of(config, inventory),
        environ=config.stash[VARIABLES],
        only=options.targets,
        settings=options.settings,
        machine_of=machine_of,
    )


def choose_inventory(options: Options, announce: Callable[[str], None]) -> Path | None:
    """Return the inventory to read: the one that was named, or the demo's own, or hosts.yml where there is one.

    Args:
        options: What was said.
        announce: Told what is being waited for.
    """
    if options.inventory is not None:
        return options.inventory
    if options.environment == DEMO:
        from opsproof import demo  # only here: it is an extra, and most runs do without

        return demo.start(announce)
    return find_inventory(Path())


def announcer(config: pytest.Config) -> Callable[[str], None]:
    """Return what shows a line at once, past pytest's capture; on stderr, so that a listing's output stays clean."""
    capture = config.pluginmanager.get_plugin("capturemanager")

    def announce(line: str) -> None:
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            print(line, file=sys.stderr, flush=True)

    return announce


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the journal and the log."""
    run = config.stash.get(RUN, None)
    if run is not None:
        run.journal.close()
        logger = logging.getLogger(LOGGER)
        for handler in [one for one in logger.handlers if isinstance(one, PrivateLog)]:
            logger.removeHandler(handler)
            handler.close()


@contextmanager
def without_libpq_variables() -> Iterator[None]:
    """Hide every `PG*` variable from libpq in this process."""
    hidden = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("PG")}
    try:
        yield
    finally:
        os.environ.update(hidden)


def _begin_logbook(run: Run, action: str, shared: Shared | None) -> None:
    stem = f"{action}_{run.options.environment}"
    if shared is not None:
        book = join_logbook(run.options.logs, f"{stem}_{shared.stamp}", run.redactor, shared.worker)
    else:
        book = open_logbook(run.options.logs, f"{stem}_{datetime.now(UTC):{STAMP_FORMAT}}", run.redactor)
    run.journal, run.log = book.journal, book.log
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.addHandler(PrivateLog(book.log, book.journal))
    if shared is None or not shared.worker:
        run.journal.record("run begins", action=action, environment=run.environment.name, dry_run=run.options.dry_run)


def _secrets(environment: Environment, variables: Mapping[str, str]) -> Iterator[str]:
    yield from (variables[name] for name in SECRET_VARIABLES if name in variables)
    yield from secret_lines(variables.get(name, "") for name in KEY_VARIABLES)
    for target in environment.targets:
        if target.database.password is not None:
            yield target.database.password.reveal()
        for name, secret in target.migrations.environ.items():
            yield from _secrets_of_application(name, secret.reveal())
        if isinstance(target.store, S3StoreSettings):
            yield from open_store(target.store, target.customer).secrets()


def secret_lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield each line of a private key that is secret; a path is none."""
    for text in texts:
        lines = [line.strip() for line in text.replace("\\n", "\n").splitlines()]
        if any("SECRET-KEY-" in line.upper() or "PRIVATE KEY" in line for line in lines):
            yield from (line for line in lines if line and not line.startswith(("#", "-----")))


def _secrets_of_application(name: str, value: str) -> Iterator[str]:
    """Yield what env.py may print of a variable that it gets: all of a secret, of a URL the password."""
    for password in URL_PASSWORD.findall(value):
        yield password
        yield unquote(password)
    if (
        TELLING_NAME.search(name)
        and not NAMES_A_PLACE.search(name)
        and value.lower() not in SWITCHES
        and not (value.isdigit() and len(value) < SHORT_NUMBER)
    ):
        yield value
