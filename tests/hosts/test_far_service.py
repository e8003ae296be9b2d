"""The services of a real host with systemd, looked at over ssh."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.lab.action_run import Project
from tests.lab.debian_host import DebianHost
from tests.lab.odoo_host import ENVIRONMENT, LOGINS, project_of

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab
CHECK = "checks/test_service.py"
PAGE = "http://127.0.0.1:8069/web/login"


@pytest.fixture(params=LOGINS)
def project(lab_host: DebianHost, request: pytest.FixtureRequest) -> Iterator[Project]:
    with project_of(lab_host, request.param, health_url=PAGE) as made:
        yield made


def test_odoo_runs_is_enabled_and_steady(project: Project, lab_host: DebianHost) -> None:
    lab_host.await_odoo()
    run = project.run(action=CHECK, env=ENVIRONMENT)
    assert run.status == 0, run.output
    assert set(run.outcomes().values()) == {"passed"}


def test_what_is_wrong_is_told(project: Project, lab_host: DebianHost) -> None:
    lab_host.run("systemctl stop odoo; systemctl disable odoo 2>/dev/null")
    try:
        run = project.run(action=CHECK, env=ENVIRONMENT)
    finally:
        lab_host.run("systemctl enable odoo 2>/dev/null; systemctl start odoo")
    assert run.status == 1, run.output
    assert "systemd: odoo does not run" in run.case("test_services_run").message
    assert "systemctl enable odoo" in run.case("test_services_start_at_boot").message
