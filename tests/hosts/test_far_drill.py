"""A drill on a real remote Odoo, by somebody with sudo there: a second Odoo answers on the copy, the first goes on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.debian_host import DebianHost
from tests.lab.odoo_host import ENVIRONMENT, FILESTORE, project_of

pytest_plugins = ["tests.lab.lab_hosts"]
pytestmark = pytest.mark.lab

ODOO = "odoo -c /etc/odoo/odoo.conf -d {database} --http-port={port} --max-cron-threads=0 --workers=0 --logfile="
DRILL = {"command": ODOO, "health_url": "http://127.0.0.1:{port}/web/login", "timeout": "2m"}
FILES = f"cd {FILESTORE} && find . -type f -printf '%P %u:%g %m %s\\n' -exec sha1sum {{}} + | sort"
SERVER = "systemctl show odoo -p MainPID -p ActiveEnterTimestamp; pgrep -c -u odoo -f http-port || true"
NAMES = "SELECT oid, datname, datallowconn, datistemplate, datdba::regrole FROM pg_database ORDER BY 1"
ROLES = "SELECT rolname FROM pg_roles ORDER BY 1"
# What Odoo does by itself all the time is not the drill's.
CONTENT = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM {table} t"
TABLES = ("res_partner", "ir_attachment", "res_users", "ir_mail_server", "ir_config_parameter", "ir_ui_view")


def look(host: DebianHost) -> dict[str, Any]:
    """Return what is served, and what else there is on the host."""
    found = {name: host.sql(CONTENT.format(table=name)) for name in TABLES}
    found |= {"databases": host.sql(NAMES), "roles": host.sql(ROLES)}
    found |= {"files": host.inside(FILES), "service": host.inside(SERVER)}
    found["folders"] = host.inside(f"ls -1A {FILESTORE}/.. /tmp | grep -v systemd-private || true")
    return found


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
