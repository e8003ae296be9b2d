"""Steps: the methods of a procedure's class, in the order in which they are written, once for each target.

A class whose tests ask for the fixture `target` (or one that needs it) is a *procedure* when it is marked so; each of
its tests is a step. A step runs only if all steps before it passed, for this target, in this very process; a part of a
procedure cannot be selected; and nothing confirmed is never success.
"""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import asdict, dataclass, field

import pytest

from opsproof.errors import OpsproofError
from opsproof.plugin.run import LOGGER, RUN, begin_run, without_libpq_variables

TARGET = "target"
DRY_RUN = "dry run"
REFUSAL = "opsproof_refusal"
# What reports carry of a procedure from a worker of pytest-xdist to the process that it reports to.
PROGRESS = "opsproof_progress"


@dataclass
class Progression:
    """How far a procedure has come with one target.

    `stopped_by` says why it goes no further; `has_begun_changes`, that a step was begun that changes something;
    `has_failed`, that one did not pass, and said so.
    """

    steps: tuple[str, ...]
    passed: list[str] = field(default_factory=list)
    stopped_by: str = ""
    is_needless: bool = False
    has_begun_changes: bool = False
    has_failed: bool = False


PROGRESSIONS = pytest.StashKey[dict[tuple[str, str], Progression]]()
FAULT = pytest.StashKey[OpsproofError]()


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers."""
    config.addinivalue_line("markers", "procedure: the tests of this class are steps of one procedure")
    config.addinivalue_line("markers", "changes: this step and those after it change something: not in a dry run")
    config.stash[PROGRESSIONS] = {}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Parametrise what asks for a target with the targets of the environment."""
    if TARGET not in metafunc.fixturenames or not _asks_for_ours(metafunc):
        return
    names = []
    # A fault is found once and told once, after the collection, instead of once for each step.
    if FAULT not in metafunc.config.stash:
        try:
            run = begin_run(metafunc.config, action_name(metafunc.module.__name__))
            names = [target.name for target in run.environment.targets]
        except OpsproofError as error:
            metafunc.config.stash[FAULT] = error
    metafunc.parametrize(TARGET, names, indirect=True, scope="class")


def _asks_for_ours(metafunc: pytest.Metafunc) -> bool:
    """Tell our fixture from one of the same name that somebody's own tests have."""
    # pytest has no public word for which of several fixtures of one name a test gets: the last one.
    definitions = metafunc._arg2fixturedefs.get(TARGET, ())
    return bool(definitions) and definitions[-1].func.__module__ == "opsproof.plugin.fixtures"


@pytest.hookimpl(tryfirst=True)  # before a worker of pytest-xdist offers what it has collected
def pytest_collection_finish(session: pytest.Session) -> None:
    """Refuse what cannot be run as it was selected.

    Raises:
        pytest.UsageError: The configuration is wrong, or a part of a procedure was selected.
    """
    try:
        _require_whole_procedures(session)
    except pytest.UsageError as error:
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output[REFUSAL] = str(error)
        raise


def _require_whole_procedures(session: pytest.Session) -> None:
    fault = session.config.stash.get(FAULT, None)
    if fault is not None:
        raise pytest.UsageError(str(fault))
    progressions = session.config.stash[PROGRESSIONS]
    selected: dict[tuple[str, str], list[str]] = {}
    for item in session.items:
        key = procedure_of(item)
        if key is not None:
            selected.setdefault(key, []).append(item.function.__name__)  # type: ignore[attr-defined]
            progressions.setdefault(key, Progression(steps_of(item)))
    for key, names in selected.items():
        if tuple(names) != progressions[key].steps:
            raise _part_selected(key[0], progressions[key].steps, names)
    if selected and getattr(session.config.option, "verbose", 1) == 0:
        session.config.option.verbose = 1  # a line for each step


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Keep libpq's variables out of the connections of procedures and checks."""
    if RUN not in session.config.stash:
        return (yield)
    with without_libpq_variables():
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let a step begin only after those before it, and only looking steps in a dry run."""
    key = procedure_of(item)
    if key is None:
        return
    progression = item.config.stash[PROGRESSIONS][key]
    item.config.stash[RUN].journal.work_on(*key)
    name = item.function.__name__  # type: ignore[attr-defined]
    before = progression.steps[: progression.steps.index(name)]
    if progression.stopped_by:
        pytest.skip(progression.stopped_by)
    if tuple(progression.passed) != before:
        raise pytest.UsageError(f"{name} needs the steps before it to have passed in this process: {before}")
    if item.get_closest_marker("changes"):
        if item.config.stash[RUN].options.dry_run:
            progression.stopped_by = DRY_RUN
            pytest.skip(DRY_RUN)
        progression.has_begun_changes = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note how far the procedure has come."""
    report = yield
    key = procedure_of(item)
    if key is not None:
        progression = item.config.stash[PROGRESSIONS][key]
        name = item.function.__name__  # type: ignore[attr-defined]
        if report.when == "call" and report.passed:
            progression.passed.append(name)
            _stop_where_nothing_is_to_do(item, progression)
        elif not report.passed and not progression.stopped_by:
            progression.stopped_by = f"step {name} did not pass"
        progression.has_failed = progression.has_failed or report.failed
        if report.when == "call" or not report.passed:
            _record_step(item, key, report, call)
        if is_worker(item.config):
            setattr(report, PROGRESS, {"procedure": key[0], "target": key[1], **asdict(progression)})
    return report


@pytest.hookimpl(tryfirst=True)  # before the journal ends
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run that confirmed nothing into a failure."""
    progressions = session.config.stash[PROGRESSIONS]
    if exitstatus not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED) or is_worker(session.config):
        return
    if session.config.option.collectonly or not progressions:
        return
    is_dry = session.config.stash[RUN].options.dry_run
    for (procedure, target), progression in progressions.items():
        # What has failed says so itself, unless a plugin that runs tests again has forgiven it.
        is_forgiven = progression.has_failed and exitstatus == pytest.ExitCode.OK
        # What was left out beside it would pass in a report.
        is_left_out = not progression.has_failed and len(progression.passed) != len(progression.steps)
        is_allowed = progression.is_needless or (is_dry and progression.stopped_by == DRY_RUN)
        if is_forgiven or (is_left_out and not is_allowed):
            journal = session.config.stash[RUN].journal
            journal.work_on(procedure, target)
            journal.warn(f"{procedure} of {target} was not brought to its end")
            journal.work_on("", "")
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _stop_where_nothing_is_to_do(item: pytest.Item, progression: Progression) -> None:
    """Leave out the rest of a procedure that found its end reached already."""
    for value in getattr(item, "funcargs", {}).values():
        reason = getattr(value, "nothing_to_do", "")
        if isinstance(reason, str) and reason:
            progression.stopped_by, progression.is_needless = reason, True


def _part_selected(procedure: str, steps: tuple[str, ...], names: list[str]) -> pytest.UsageError:
    left_out = ", ".join(name for name in steps if name not in names)
    return pytest.UsageError(
        f"A part of {procedure.rsplit('.', 1)[-1]} was selected: its steps are proven only in order and all together\n"
        f"  expected: all {len(steps)} steps, in their order\n"
        f"  found:    {len(names)} steps" + (f"; left out: {left_out}" if left_out else "") + "\n"
        "  kept:     nothing was run\n"
        "  hint:     leave out -k, -m, --deselect and ::step; choose targets with --target=NAME"
    )


def _record_step(
    item: pytest.Item, key: tuple[str, str], report: pytest.TestReport, call: pytest.CallInfo[None]
) -> None:
    procedure, target = key
    # Why a step was skipped is that of the step before it.
    why = {"error": str(call.excinfo.value)} if call.excinfo is not None and report.failed else {}
    name = item.function.__name__  # type: ignore[attr-defined]
    item.config.stash[RUN].journal.record(
        "step",
        procedure=procedure,
        target=target,
        step=name,
        when=report.when,
        outcome=report.outcome,
        seconds=round(call.duration, 3),
        **why,
    )
    logging.getLogger(LOGGER).info("%s of %s %s after %.1f s", name, target, report.outcome, call.duration)


def procedure_of(item: pytest.Item) -> tuple[str, str] | None:
    """Return the class and the target whose step this is; None for any other test."""
    if item.get_closest_marker("procedure") is None or not isinstance(item, pytest.Function) or item.cls is None:
        return None
    callspec = getattr(item, "callspec", None)
    procedure = f"{item.cls.__module__}.{item.cls.__name__}"
    return (procedure, str(callspec.params[TARGET])) if callspec and TARGET in callspec.params else None


def steps_of(item: pytest.Item) -> tuple[str, ...]:
    """Return the names of all steps of the item's class, as they are written."""
    cls = item.cls  # type: ignore[attr-defined]
    return tuple(name for name in vars(cls) if name.startswith("test_"))


def action_name(module: str) -> str:
    """Return `backup` of `actions.test_backup`."""
    return module.rsplit(".", 1)[-1].removeprefix("test_")


def is_worker(config: pytest.Config) -> bool:
    """Tell whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")
