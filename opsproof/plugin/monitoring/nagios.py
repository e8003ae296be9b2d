"""`--nagios`: one line and an exit status, as monitoring plugins have them; all other output goes to stderr.

Loaded with the options, not with the rest: it has to tell of an inventory that cannot be read, too.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Generator

import pytest

from opsproof.plugin.options import NAGIOS
from opsproof.report.nagios import Session, judge


class Counts:
    """A plugin that counts what came of the tests, and keeps the first failure."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()
        self.skipped: set[str] = set()
        self.complaint = ""
        self.problem = ""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count one."""
        if report.failed:
            self.failed.add(report.nodeid)
            self.passed.discard(report.nodeid)
            self.complaint = self.complaint or f"{report.nodeid.rpartition('::')[2]}: {_sentence(report)}"
        elif report.skipped:
            self.skipped.add(report.nodeid)
        elif report.when == "call":
            self.passed.add(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Note what could not be collected."""
        if report.failed:
            self.problem = self.problem or f"{report.nodeid or 'the tests'} cannot be collected: {_sentence(report)}"

    def pytest_internalerror(self, excrepr: object) -> None:
        """Note that pytest, or one of its plugins, broke down."""
        self.problem = self.problem or f"internal error: {str(excrepr).strip().splitlines()[-1]}"

    def pytest_keyboard_interrupt(self) -> None:
        """Note that somebody has ended it."""
        self.problem = self.problem or "it was interrupted"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> Generator[None, int | None, int | None]:
    """Run as ever, then say in one line what came of it."""
    listing = config.getoption("--list-backups") or config.getoption("--list-targets")
    if not _is_asked_for(config) or listing or hasattr(config, "workerinput"):
        return (yield)
    counts, began = Counts(), time.monotonic()
    config.pluginmanager.register(counts, "opsproof-nagios-counts")
    try:
        status = yield
    except pytest.UsageError as error:
        told = "\n".join(str(one) for one in error.args)
        print(f"ERROR: {told}", file=sys.stderr)
        status, counts.problem = pytest.ExitCode.USAGE_ERROR, told.strip().partition("\n")[0]
    state, line = judge(_session(config, counts, int(status or 0), time.monotonic() - began))
    print(_cleaned(config, line), flush=True)
    return int(state)


@pytest.hookimpl(trylast=True)  # once there is a terminal reporter
def pytest_configure(config: pytest.Config) -> None:
    """Send what people would read to stderr."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and _is_asked_for(config):
        reporter._tw = type(reporter._tw)(sys.stderr)


def _is_asked_for(config: pytest.Config) -> bool:
    # Once it is configured, the option itself is off: testinfra's plugin would answer to it.
    return bool(config.option.nagios) or config.stash.get(NAGIOS, False)


def _session(config: pytest.Config, counts: Counts, status: int, seconds: float) -> Session:
    from opsproof.plugin.monitoring.tally import TALLIES  # only now: what it needs is loaded beside the inventory

    tallies = config.stash.get(TALLIES, None)
    figures = {}
    for one in tallies.all() if tallies is not None else ():
        if one.bytes is not None:
            figures[f"{one.target} bytes"] = f"{one.bytes}B"
        if one.outage is not None:
            figures[f"{one.target} outage"] = f"{one.outage:.2f}s"
    return Session(
        status=status,
        passed=len(counts.passed),
        failed=len(counts.failed),
        skipped=len(counts.skipped),
        warnings=tallies.warnings if tallies is not None else 0,
        complaint=counts.complaint,
        problem=counts.problem,
        seconds=seconds,
        figures=figures,
    )


def _sentence(report: pytest.TestReport | pytest.CollectReport) -> str:
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr or "")
    return next((line.strip() for line in text.splitlines() if line.strip()), "no message")


def _cleaned(config: pytest.Config, line: str) -> str:
    from opsproof.plugin.run import RUN

    run = config.stash.get(RUN, None)
    return run.redactor.clean(line) if run is not None else line
