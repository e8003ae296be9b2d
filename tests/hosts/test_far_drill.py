"""A drill on a real remote Odoo, by somebody with sudo there: a second Odoo answers on the copy, the first goes on."""

from __future__ import annotations

import pytest

from tests.lab.debian_host import DebianHost
from tests.lab.odoo_host import ENVIRONMENT, look, project_of

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab

ODOO = "odoo -c /etc/odoo/odoo.conf -d {database} --http-port={port} --max-cron-threads=0 --workers=0 --logfile="
DRILL = {"command": ODOO, "health_url": "http://127.0.0.1:{port}/web/login", "timeout": "2m"}


def test_a_second_odoo_answers_on_the_copy_and_the_first_goes_on(lab_host: DebianHost) -> None:
    with project_of(lab_host, "ops", drill=DRILL) as project:
        taken = project.run(env=ENVIRONMENT)
        assert taken.status == 0, taken.output
        before = look(lab_host)

        run = project.run("-s", action="actions/test_drill.py", env=ENVIRONMENT)

        assert run.status == 0, run.output
        assert look(lab_host) == before
        (event,) = run.named("drill finished")
        outcome = event["outcome"]
        assert (outcome["restore"], outcome["validation"]) == ("passed", "passed")
        assert any("the application answers on the copy" in one for one in outcome["checks"])
        assert not any("uses the copy" in one for one in outcome["unverified"]), outcome["unverified"]
        assert "neutralized by" in outcome["identity"]
        assert outcome["files"] > 0
        assert lab_host.sql("SELECT count(*) FROM ir_config_parameter WHERE key = 'database.is_neutralized'") == "0"
        assert project.litter() == []
