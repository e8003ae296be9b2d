"""Checks that confirmed nothing are no success: all of them were skipped, or none was there to run."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from opsproof.plugin.steps import TARGET, is_worker, procedure_of

# What reports, a worker's too, say of a test that looks at a target without being a procedure's step.
CHECK = "opsproof_check"
CHECKS = pytest.StashKey[set[str]]()
PASSED = pytest.StashKey[set[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing."""
    config.stash[CHECKS], config.stash[PASSED] = set(), set()
    config.pluginmanager.register(_Reported(config), "opsproof-passed")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Say of a report that it is a check's."""
    report = yield
    callspec = getattr(item, "callspec", None)
    if callspec is not None and TARGET in callspec.params and procedure_of(item) is None:
        setattr(report, CHECK, True)
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run whose checks have all been skipped into a failure."""
    checks = session.config.stash[CHECKS]
    if exitstatus != pytest.ExitCode.OK or not checks or is_worker(session.config):
        return
    passed = session.config.stash[PASSED]
    if checks.isdisjoint(passed):
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"none of {len(checks)} checks confirmed anything: that is no success", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class _Reported:
    """Notes what was checked and what has passed, here or in a worker."""

    def __init__(self, config: pytest.Config) -> None:
        self._checks, self._passed = config.stash[CHECKS], config.stash[PASSED]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a check, and whether it has passed."""
        if getattr(report, CHECK, False):
            self._checks.add(report.nodeid)
            if report.when == "call" and report.passed:
                self._passed.add(report.nodeid)
