"""What each action, and the checks of each file, came to with each target: from the reports, those of workers too.

A report is made where the test ran, which may be a worker of pytest-xdist, and heard of in the process that the workers
report to. What `opsproof.plugin.monitoring.metrics`, `ping` and `nagios` need travels with it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from opsproof.errors import Interrupted, OpsproofError
from opsproof.inspection.objectives import RecoveryTime
from opsproof.plugin.run import LOGGER, RUN, Run, begin_run
from opsproof.plugin.steps import (
    DRY_RUN,
    PROGRESSIONS,
    TARGET,
    Progression,
    action_name,
    is_worker,
    procedure_of,
    steps_of,
)
from opsproof.procedures.backup.procedure import Backup, Outcome
from opsproof.procedures.deploy.deployed import DeployOutcome
from opsproof.procedures.restore.procedure import RestoreOutcome
from opsproof.procedures.rollback.rolledback import RollbackOutcome
from opsproof.target import Target

TOLD = "opsproof_told"
CHECKS = "check_"
WORST_FIRST = ("error", "failed", "skipped", "passed")


@dataclass
class Tally:
    """One action, or the checks of one file, and one target.

    Attributes:
        action: The action's name; that of a file of checks begins with `check_`.
        target: The target's name.
        procedure: The class whose steps they are; empty for checks.
        counts: How many tests have passed, failed, and so on.
        interrupted: A signal has arrived meanwhile.
        began: Seconds since 1970; 0 where nobody knows.
        ended: The same.
        phases: Seconds by phase.
        taken: When a backup's snapshot was taken, in seconds since 1970.
        bytes: The backup's size.
        outage: Seconds in which nobody could work.
        is_restore: A backup was brought back.
        rto: Seconds that a drill has measured.
        has_ended: Nothing more is to come.
    """

    action: str
    target: str
    procedure: str = ""
    counts: dict[str, int] = field(default_factory=lambda: {"passed": 0, "failed": 0, "error": 0, "skipped": 0})
    interrupted: bool = False
    began: float = 0.0
    ended: float = 0.0
    phases: Mapping[str, float] = field(default_factory=dict)
    taken: float | None = None
    bytes: int | None = None
    outage: float | None = None
    is_restore: bool = False
    rto: float | None = None
    has_ended: bool = False

    def verdict(self, progression: Progression | None) -> str:
        """Return `passed`, `failed`, `error` or `skipped`.

        Args:
            progression: How far the procedure has come; None for checks.
        """
        if self.interrupted:
            return "error"
        if self.counts["failed"] or (progression is not None and progression.has_failed and not self.counts["error"]):
            return "failed"
        if self.counts["error"]:
            return "error"
        if progression is None:
            return "passed" if self.counts["passed"] else "skipped"
        if len(progression.passed) == len(progression.steps) or progression.is_needless:
            return "passed"
        # Neither at its end nor failed: its worker was killed, or it was cut short between two steps.
        return "skipped" if progression.stopped_by == DRY_RUN else "error"


class Tallies:
    """A plugin that hears the reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._warnings = 0
        self._config = config
        self._known: dict[tuple[str, str], Tally] = {}

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count a report in."""
        told: dict[str, Any] | None = getattr(report, TOLD, None)
        if told is None or is_worker(self._config):
            return
        key = (told["procedure"] or told["action"], told["target"])
        one = self._known.setdefault(key, Tally(told["action"], told["target"], told["procedure"]))
        if report.when == "call" or not report.passed:
            is_error = report.failed and report.when != "call"
            outcome = "error" if is_error else report.outcome
            # Plugins have words of their own (`rerun`); what a step came to then, its procedure knows.
            if outcome in one.counts:
                one.counts[outcome] += 1
        one.interrupted |= told["interrupted"]
        one.began = min(one.began or report.start, report.start)
        one.ended = max(one.ended, report.stop)
        for name, value in told["figures"].items():
            setattr(one, name, value)
        one.has_ended |= told["ends"]
        self._warnings += told["warnings"]

    @property
    def warnings(self) -> int:
        """How often this process and its workers have warned of something."""
        return self._warnings + self._config.stash[_COUNTING].count

    def of(self, report: pytest.TestReport) -> Tally | None:
        """Return the one that a report belongs to."""
        told = getattr(report, TOLD, None)
        return self._known.get((told["procedure"] or told["action"], told["target"])) if told else None

    def all(self) -> Iterator[Tally]:
        """Yield what has run, in the order in which it was begun; what a killed worker had begun, too."""
        yield from self._known.values()
        for (procedure, target), progression in self._config.stash[PROGRESSIONS].items():
            if (procedure, target) not in self._known and (progression.passed or progression.stopped_by):
                yield Tally(_action_of(procedure), target, procedure, ended=time.time())

    def verdict(self, one: Tally) -> str:
        """Return what one came to; of an action of several procedures, what came of the worst of them."""
        progressions = self._config.stash[PROGRESSIONS]
        verdicts = [each.verdict(progressions.get((each.procedure, each.target))) for each in self._with(one)]
        return min(verdicts, key=WORST_FIRST.index)

    def has_ended(self, one: Tally) -> bool:
        """Tell whether nothing more is to come of its action and target."""
        return all(each.has_ended for each in self._with(one))

    def _with(self, one: Tally) -> list[Tally]:
        """Return it, with the other procedures of its action and target, whether or not they have begun."""
        return [one] + [
            self._known.get((procedure, target), Tally(one.action, target, procedure))
            for procedure, target in self._config.stash[PROGRESSIONS]
            if one.procedure not in ("", procedure) and target == one.target and _action_of(procedure) == one.action
        ]


class _Counting(logging.Handler):
    """Counts the run's warnings until they are asked for."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        # A failure's traceback goes to the log as an error.
        if record.levelno == logging.WARNING:
            self.count += 1

    def take(self) -> int:
        taken, self.count = self.count, 0
        return taken


TALLIES = pytest.StashKey[Tallies]()
_COUNTING = pytest.StashKey[_Counting]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing."""
    config.stash[TALLIES] = Tallies(config)
    config.pluginmanager.register(config.stash[TALLIES], "opsproof-tallies")
    config.stash[_COUNTING] = counting = _Counting()
    logger = logging.getLogger(LOGGER)
    logger.addHandler(counting)
    config.add_cleanup(lambda: logger.removeHandler(counting))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report tell what it belongs to, and what there is to measure."""
    report = yield
    run = item.config.stash.get(RUN, None)
    belongs = owner_of(item)
    if run is None or belongs is None:
        return report
    action, target, procedure = belongs
    told = {
        "action": action,
        "target": target,
        "procedure": procedure,
        "interrupted": call.excinfo is not None and type(call.excinfo.value) in (Interrupted, KeyboardInterrupt),
        "ends": bool(procedure) and report.when == "teardown" and item.name.partition("[")[0] == steps_of(item)[-1],
        "warnings": item.config.stash[_COUNTING].take(),
        "figures": _figures(item, run) if procedure and report.when == "call" else {},
    }
    setattr(report, TOLD, told)
    return report


def owner_of(item: pytest.Item) -> tuple[str, str, str] | None:
    """Return the action, the target and the procedure that a test is about; None for any other test."""
    callspec = getattr(item, "callspec", None)
    if callspec is None or TARGET not in callspec.params or not isinstance(item, pytest.Function):
        return None
    key, name = procedure_of(item), action_name(item.module.__name__)
    return (name, key[1], key[0]) if key else (CHECKS + name, str(callspec.params[TARGET]), "")


def run_of(config: pytest.Config) -> Run | None:
    """Return the session's run, at its end; None where nothing was looked at.

    Where workers have run checks, this process has had none so far.
    """
    if RUN not in config.stash and next(config.stash[TALLIES].all(), None) is not None:
        with suppress(OpsproofError):
            return begin_run(config, None)
    return config.stash.get(RUN, None)


def _action_of(procedure: str) -> str:
    return action_name(procedure.rpartition(".")[0])


def target_named(run: Run, name: str) -> Target | None:
    """Return a target of the run, if it is one."""
    return next((one for one in run.environment.targets if one.name == name), None)


def _figures(item: pytest.Item, run: Run) -> dict[str, Any]:
    """Return what there is to measure so far, by the names that `Tally` has for it."""
    figures: dict[str, Any] = {"phases": {name: float(seconds) for name, seconds in run.journal.phases.items()}}
    for value in getattr(item, "funcargs", {}).values():
        for outcome in (getattr(value, "outcome", None), getattr(value, "rolled_back", None)):
            if isinstance(outcome, Outcome) and isinstance(value, Backup):
                figures |= {"taken": value.manifest.taken.timestamp(), "bytes": outcome.bytes}
            elif isinstance(outcome, RestoreOutcome | RollbackOutcome | DeployOutcome):
                figures |= {"outage": outcome.outage.total, "is_restore": isinstance(outcome, RestoreOutcome)}
        rto = getattr(value, "rto", None)
        if isinstance(rto, RecoveryTime):
            figures["rto"] = rto.measured
    return figures
