"""A project that reaches a lab host as people do, and what its Odoo has."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.lab.action_run import Project, make_project
from tests.lab.debian_host import DebianHost

ENVIRONMENT, TARGET = "staging", "erp"
FILESTORE = "/var/lib/odoo/filestore/prod"
FILES = f"cd {FILESTORE} && find . -type f -printf '%P %u:%g %m %s\\n' -exec sha1sum {{}} + | sort"
SERVER = "systemctl show odoo -p MainPID -p ActiveEnterTimestamp; pgrep -c -u odoo -f http-port || true"
NAMES = "SELECT oid, datname, datallowconn, datistemplate, datdba::regrole FROM pg_database ORDER BY 1"
ROLES = "SELECT rolname FROM pg_roles ORDER BY 1"
# What Odoo does by itself all the time is not the drill's.
CONTENT = "SELECT md5(string_agg(t::text, ',' ORDER BY id)) FROM {table} t"
TABLES = ("res_partner", "ir_attachment", "res_users", "ir_mail_server", "ir_config_parameter", "ir_ui_view")
LOGINS: dict[str, dict[str, object]] = {
    "root": {"ansible_user": "root"},
    "ops": {"ansible_user": "ops", "ansible_become": True},
}


def variables_of(host: DebianHost, login: str = "root", **more: object) -> dict[str, object]:
    """Return a target's variables: what an Ansible user has, and where odoo.conf is."""
    return {
        "ansible_connection": "ssh",
        "ansible_host": host.address,
        "ansible_ssh_private_key_file": str(host.key),
        "ansible_ssh_common_args": f"-F none -o IdentitiesOnly=yes -o UserKnownHostsFile={host.known_hosts}",
        **LOGINS[login],
        "odoo_conf": "/etc/odoo/odoo.conf",
        "dbname": "prod",
        "odoo_service": "odoo",
        "backup_dir": "store",
        **more,
    }


@contextmanager
def project_of(host: DebianHost, login: str = "root", **more: object) -> Iterator[Project]:
    """Make a project whose one target is the host's Odoo."""
    folder = Path(tempfile.mkdtemp(prefix="opsproof-far-"))
    try:
        project = make_project(folder)
        project.write_inventory({ENVIRONMENT: {TARGET: variables_of(host, login, **more)}})
        yield project
    finally:
        shutil.rmtree(folder)


def look(host: DebianHost) -> dict[str, Any]:
    """Return what is served, and what else there is on the host."""
    found = {name: host.sql(CONTENT.format(table=name)) for name in TABLES}
    found |= {"databases": host.sql(NAMES), "roles": host.sql(ROLES)}
    found |= {"files": host.inside(FILES), "service": host.inside(SERVER)}
    found["folders"] = host.inside(f"ls -1A {FILESTORE}/.. /tmp | grep -v systemd-private || true")
    return found
