"""The fixtures that several tests share: real servers, each started once and ended with the session."""

from __future__ import annotations

import os

import pytest

from tests.lab.postgres_server import postgres, system_postgres, wheel_postgres

__all__ = ["postgres", "system_postgres", "wheel_postgres"]


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """In CI a test that is skipped for want of something is a failure: there everything can be had."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if (
        os.environ.get("CI") == "true"
        and exitstatus == pytest.ExitCode.OK
        and reporter
        and reporter.stats.get("skipped")
    ):
        reporter.write_line("CI=true: a skipped test is a failure", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
