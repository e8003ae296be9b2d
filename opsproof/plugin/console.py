"""What the person sees: the run's header, what long steps are doing, and the summary."""

from __future__ import annotations

import logging
import time
from collections.abc import Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from opsproof.journal import Progress
from opsproof.plugin.run import LOGGER, RUN, Run, without_libpq_variables
from opsproof.plugin.steps import DRY_RUN, PROGRESSIONS, Progression, is_worker
from opsproof.procedures.backup.survey import describe_versions
from opsproof.report import deployed, header, summary
from opsproof.report.quantities import progress_line

# On a terminal one line is rewritten; elsewhere (a CI's log) a line is added now and then.
TERMINAL_SECONDS = 0.2
PLAIN_SECONDS = 15.0
MOST_ASKED = 4

Anything = TypeVar("Anything")


class Console:
    """Writes past pytest's capture, whole lines on their own line."""

    def __init__(self, config: pytest.Config, run: Run) -> None:
        self._reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._capture = config.pluginmanager.get_plugin("capturemanager")
        self._run = run
        self._is_terminal = bool(self._reporter and self._reporter.isatty)
        self._next = 0.0
        self._shown = False

    def show(self, progress: Progress) -> None:
        """Show how far a long step has come, not more often than anybody can read."""
        now = time.monotonic()
        if now < self._next or self._reporter is None:
            return
        first = self._next == 0.0
        self._next = now + (TERMINAL_SECONDS if self._is_terminal else PLAIN_SECONDS)
        if first and not self._is_terminal:
            return  # a short run needs no such lines
        line = progress_line(progress)
        if self._is_terminal:
            width = self._reporter._tw.fullwidth - 4
            self._write(("\r\x1b[K  " if self._shown else "\n  ") + line[:width])
            self._shown = True
        else:
            self._write(f"\n  {line}\n")
            self._reporter.currentfspath = None

    def line(self, text: str) -> None:
        """Write a line; pytest writes the step's name again before its outcome."""
        self.clear()
        self._write(f"\n  {self._run.redactor.clean(text)}\n")
        if self._reporter is not None:
            self._reporter.currentfspath = None

    def clear(self) -> None:
        """Take the progress line away, and the line above it, which pytest writes again with the outcome."""
        if self._shown and self._reporter is not None:
            self._write("\r\x1b[K\x1b[A\x1b[K\x1b[A")
            self._reporter.currentfspath = None
        self._shown = False
        self._next = 0.0

    def _write(self, text: str) -> None:
        if self._reporter is None:
            return
        if self._capture is None:
            self._reporter.write(text, flush=True)
            return
        with self._capture.global_and_fixture_disabled():
            self._reporter.write(text, flush=True)


class WarningLines(logging.Handler):
    """Shows the log's warnings as they come; the rest is in the log file."""

    def __init__(self, console: Console) -> None:
        super().__init__(logging.WARNING)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Write one, but not the tracebacks, which the log file has."""
        if record.exc_info is None:
            self._console.line(f"{record.levelname}: {record.getMessage()}")


CONSOLE = pytest.StashKey[Console]()


def pytest_report_collectionfinish(config: pytest.Config) -> list[str]:
    """Say what is about to be worked on, with what, and where each setting came from."""
    run = config.stash.get(RUN, None)
    if run is None or is_worker(config):  # whose output nobody sees
        return []
    if config.stash[PROGRESSIONS]:
        console = Console(config, run)
        config.stash[CONSOLE] = console
        run.journal.listen(console.show)
        logging.getLogger(LOGGER).addHandler(WarningLines(console))
    return header_lines(run)


def header_lines(run: Run) -> list[str]:
    """Return the run's header; every target's server is asked for its version, several at a time."""
    targets = run.environment.targets
    with without_libpq_variables(), ThreadPoolExecutor(min(len(targets), MOST_ASKED)) as pool:
        versions = dict(zip([target.name for target in targets], pool.map(describe_versions, targets), strict=True))
    return [run.redactor.clean(line) for line in header.lines(run.environment, versions, dry_run=run.options.dry_run)]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Take the progress line away when its step has ended."""
    try:
        return (yield)
    finally:
        console = item.config.stash.get(CONSOLE, None)
        if console is not None:
            console.clear()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """Show what each target came to, and where the evidence is."""
    run = terminalreporter.config.stash.get(RUN, None)
    if run is None or not terminalreporter.config.stash[PROGRESSIONS]:
        return
    terminalreporter.section(f"opsproof: {run.environment.name}")
    told = {
        target.name: run.told.get(target.name) or summary_of(run, target.name) for target in run.environment.targets
    }
    for line in (line for lines in told.values() for line in lines):
        terminalreporter.write_line(run.redactor.clean(line))
    progressions = terminalreporter.config.stash[PROGRESSIONS]
    if len(progressions) > 1 and exitstatus != pytest.ExitCode.USAGE_ERROR:  # which says itself that nothing was run
        for line in _count_lines(progressions):
            terminalreporter.write_line(line)
    terminalreporter.write_line(f"log {run.log}, journal {run.journal.path}")


def summary_of(run: Run, target: str) -> list[str]:
    """Return what a target came to, as lines."""

    def only(known: Mapping[str, Anything]) -> dict[str, Anything]:
        return {target: known[target]} if target in known else {}

    if target in run.deployed:
        return list(deployed.lines(target, run.deployed[target]))
    results = summary.Results(
        outcomes=only(run.outcomes),
        restored=only(run.restored),
        rolled_back=only(run.rolled_back),
        drilled=only(run.drilled),
        recovered=only(run.recovered),
        cleaned=only(run.cleaned),
        plans=only(run.plans),
    )
    return list(summary.lines(results))


def _count_lines(progressions: Mapping[tuple[str, str], Progression]) -> Iterator[str]:
    """Yield how many targets came to their end, and of each other one where it stopped."""
    ended = [one for one in progressions.values() if len(one.passed) == len(one.steps) or one.is_needless]
    planned = [one for one in progressions.values() if one.stopped_by == DRY_RUN]
    yield f"{len(ended) + len(planned)} of {len(progressions)} came to their end"
    for (_, target), one in progressions.items():
        if one not in ended and one not in planned:
            yield f"  {target}: {one.stopped_by or ('it was cut short' if one.passed else 'it was not begun')}"
