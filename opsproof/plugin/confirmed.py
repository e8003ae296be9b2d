"""Checks that confirmed nothing are no success: all of them were skipped, or none was there to run."""

from __future__ import annotations

import pytest

from opsproof.plugin.steps import TARGET, procedure_of

CHECKS = pytest.StashKey[set[str]]()
PASSED = pytest.StashKey[set[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin with nothing."""
    config.stash[CHECKS], config.stash[PASSED] = set(), set()
    config.pluginmanager.register(_Passed(config.stash[PASSED]), "opsproof-passed")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Note which tests look at a target without being a procedure's steps."""
    for item in session.items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and TARGET in callspec.params and procedure_of(item) is None:
            session.config.stash[CHECKS].add(item.nodeid)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Turn a run whose checks have all been skipped into a failure."""
    checks = session.config.stash[CHECKS]
    if exitstatus != pytest.ExitCode.OK or not checks or session.config.option.collectonly:
        return
    passed = session.config.stash[PASSED]
    if checks.isdisjoint(passed):
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"none of {len(checks)} checks confirmed anything: that is no success", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


class _Passed:
    """Notes what has passed, here or in a worker."""

    def __init__(self, passed: set[str]) -> None:
        self._passed = passed

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note a test that has passed."""
        if report.when == "call" and report.passed:
            self._passed.add(report.nodeid)
