"""A project that reaches a lab host as people do, and what its Odoo has."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.action_run import Project, make_project
from tests.lab.debian_host import DebianHost

ENVIRONMENT, TARGET = "staging", "erp"
FILESTORE = "/var/lib/odoo/filestore/prod"
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
