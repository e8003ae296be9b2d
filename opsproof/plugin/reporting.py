"""The report: what the journal needs for one, and the files that `--report-html` and `--report-md` ask for.

The journal is given what only pytest knows: the sentences of the steps, the checks, and the plan of a dry run. From it,
and from nothing else, the files are written when all is over, by the process that reports. By then the journal's last
line is written, and its head told: nothing is added to it here.
"""

from __future__ import annotations

import inspect
import logging
import os
import secrets
import stat
from collections.abc import Callable, Generator
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import pytest

from opsproof.plugin.run import LOGGER, RUN, SHARED, Run
from opsproof.plugin.steps import TARGET, is_worker, procedure_of, steps_of
from opsproof.report.reading import read_story
from opsproof.report.story import Story

NEEDED = ("jinja2", "matplotlib")
INSTALL = "pip install -e '.[report]'   in opsproof's clone"
HEAD_BYTES = 1000
# Both kinds of report say in their first bytes that they are one.
MARKS = (b'<meta name="generator" content="opsproof report">', b"<!-- opsproof report -->")
Render = Callable[[Story], str]


@dataclass
class Reports:
    """The files that were asked for.

    Attributes:
        files: Each with what renders it.
        told: The lines that the terminal's summary ends with.
        begun: The procedures whose sentences the journal has.
        planned: The targets whose plan it has.
    """

    files: dict[Path, Render]
    told: list[str] = field(default_factory=list)
    begun: set[tuple[str, str]] = field(default_factory=set)
    planned: set[str] = field(default_factory=set)


REPORTS = pytest.StashKey[Reports]()


def pytest_configure(config: pytest.Config) -> None:
    """Refuse at the start what could not be written at the end, and take the last run's report away.

    A run that is killed leaves none; one of an earlier run in its place would tell that all is well.

    Raises:
        pytest.UsageError: The extra is not installed, or a file cannot be written.
    """
    config.stash[REPORTS] = Reports({})
    if is_worker(config) or config.option.collectonly:
        return
    for option, render in (("--report-html", _render_html), ("--report-md", _render_markdown)):
        named = config.getoption(option, default=None)
        if named is None:
            continue
        missing = [name for name in NEEDED if find_spec(name) is None] if render is _render_html else []
        if missing:
            raise _refusal(
                option,
                "is made with programs that are not installed",
                f"the extra `report`: {' and '.join(NEEDED)}",
                f"no {' and no '.join(missing)}",
                INSTALL,
            )
        path = claim_file(option, named)
        if path in config.stash[REPORTS].files:
            raise _refusal(option, f"names the other report's file: {path}", "two files", "one", f"{option}=another")
        config.stash[REPORTS].files[path] = render


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Put down what a procedure's steps prove, once for each target, before the first of them."""
    run = item.config.stash.get(RUN, None)
    if run is None:
        return
    key = procedure_of(item)
    target = _checked_target(item)
    if target:
        run.journal.work_on("", target)  # a warning that comes now is about this one
    if key is None or key in item.config.stash[REPORTS].begun:
        return
    item.config.stash[REPORTS].begun.add(key)
    procedure: type = item.cls  # type: ignore[attr-defined]
    run.journal.record(
        "procedure begins",
        procedure=key[0],
        target=key[1],
        steps={name: _sentence(getattr(procedure, name)) for name in steps_of(item)},
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Put down what became of a check, and what a procedure is about to do."""
    report = yield
    _record_plan(item)
    run, target = item.config.stash.get(RUN, None), _checked_target(item)
    if run is not None and target and (report.when == "call" or not report.passed):
        function: Callable[..., object] = item.function  # type: ignore[attr-defined]
        why = {} if report.passed or call.excinfo is None else {"error": str(call.excinfo.value)}
        run.journal.record(
            "check",
            target=target,
            check=_check_name(item),
            sentence=_sentence(function),
            when=report.when,
            outcome=report.outcome,
            seconds=round(call.duration, 3),
            **why,
        )
    return report


@pytest.hookimpl(trylast=True)  # after every undo, and after what turns a run that confirmed nothing into a failure
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write what was asked for."""
    config = session.config
    run = config.stash.get(RUN, None)
    reports = config.stash[REPORTS]
    if not reports.files:
        return
    journal = _journal_of(config, run)
    if journal is None:
        reports.told.append("no report: nothing was run of which there is a journal")
        return
    # What was done is done: whatever becomes of its report, the summary is shown and the journal is there.
    for path, render in reports.files.items():
        try:
            _write(path, render(_read(session, run, journal)))
            reports.told.append(f"report {path}")
        except Exception as error:
            logging.getLogger(LOGGER).exception("The report was not written")
            reports.told.append(f"THE REPORT {path} WAS NOT WRITTEN: {type(error).__name__}: {error}")
            if session.exitstatus == pytest.ExitCode.OK:
                session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say where the report is."""
    for line in terminalreporter.config.stash[REPORTS].told:
        terminalreporter.write_line(line, red=not line.startswith("report "))


def _record_plan(item: pytest.Item) -> None:
    key, run = procedure_of(item), item.config.stash.get(RUN, None)
    if key is None or run is None or key[1] not in run.plans or key[1] in item.config.stash[REPORTS].planned:
        return
    item.config.stash[REPORTS].planned.add(key[1])
    run.journal.record("plan", target=key[1], lines=list(run.plans[key[1]]))


def _render_html(story: Story) -> str:
    from opsproof.report.html import render_html  # only here: its libraries are an extra, and take half a second

    try:
        return render_html(story, version=version("opsproof"))
    except PackageNotFoundError:  # a clone that is not installed
        return render_html(story)


def _render_markdown(story: Story) -> str:
    from opsproof.report.markdown import render_markdown

    return render_markdown(story)


def _read(session: pytest.Session, run: Run | None, journal: Path) -> Story:
    with journal.open(encoding="utf-8", errors="replace") as lines:
        return read_story(
            lines,
            environment=session.config.getoption("--env"),
            action=journal.name.partition("_")[0],
            has_ended=True,
            journal=journal.name,
            head=run.journal.head if run is not None else "",
            status=int(session.exitstatus),
            clean=run.redactor.clean if run is not None else str,
        )


def _journal_of(config: pytest.Config, run: Run | None) -> Path | None:
    if run is not None:
        return run.journal.path
    # Where the workers of pytest-xdist have only checks to run, this process knows their journal by its stamp alone.
    shared = config.stash.get(SHARED, None)
    found = sorted(Path(config.getoption("--logs")).glob(f"*_{shared.stamp}.jsonl")) if shared is not None else []
    return found[0] if found else None


def claim_file(option: str, named: str) -> Path:
    """Return where a report is to be written, with its folder made and the last report removed.

    Raises:
        pytest.UsageError: There is something else, or nothing can be written there.
    """
    path = Path(named).absolute()
    expected, hint = (
        "a file that can be written, or a report of an earlier run",
        f"{option}=report.{option.rpartition('-')[2]}",
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink() or path.exists():
            if not stat.S_ISREG(path.lstat().st_mode):
                raise _refusal(option, f"names what is no file: {path}", expected, "a folder, a link or a device", hint)
            with path.open("rb") as old:
                head = old.read(HEAD_BYTES)
            if head and not any(mark in head for mark in MARKS):
                raise _refusal(option, f"names a file that is no report: {path}", expected, "another file", hint)
            path.unlink()
        _write(path, "")
        path.unlink()
    except OSError as error:
        raise _refusal(option, f"cannot be written: {path}", expected, str(error), hint) from error
    return path


def _write(path: Path, text: str) -> None:
    """Write a file whole or not at all; who may read it is as the umask says, as with the JUnit XML beside it."""
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}")
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
            file.write(text)
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def _refusal(option: str, why: str, expected: str, found: str, hint: str) -> pytest.UsageError:
    return pytest.UsageError(
        f"{option} {why}\n  expected: {expected}\n  found:    {found}\n  kept:     nothing was run\n  hint:     {hint}"
    )


def _checked_target(item: pytest.Item) -> str:
    """Return the target that a check looks at; empty for a procedure's step, and for any other test."""
    callspec = getattr(item, "callspec", None)
    run = item.config.stash.get(RUN, None)
    if callspec is None or run is None or TARGET not in callspec.params or procedure_of(item) is not None:
        return ""
    name = callspec.params[TARGET]
    return name if name in {target.name for target in run.environment.targets} else ""


def _check_name(item: pytest.Item) -> str:
    """Return a check's name, with its parameters besides the target."""
    callspec = item.callspec  # type: ignore[attr-defined]
    others = [str(value) for name, value in callspec.params.items() if name != TARGET]
    name: str = item.function.__name__  # type: ignore[attr-defined]
    return f"{name}[{'-'.join(others)}]" if others else name


def _sentence(documented: object) -> str:
    """Return the first paragraph of a docstring as one line."""
    return " ".join((inspect.getdoc(documented) or "").partition("\n\n")[0].split())
