"""What the demo's programs and its users read: odoo.conf, AWS credentials and the inventory."""

from __future__ import annotations

import json
import shlex
import sys

from opsproof.demo.binaries import bindir
from opsproof.demo.bucket import BUCKET
from opsproof.demo.cluster import APPLICATION_ROLE, DATABASE
from opsproof.demo.folder import DemoFolder, make_folder, write_private
from opsproof.demo.releases import SHARED
from opsproof.demo.state import State

ENVIRONMENT = "demo"
HOST = "shop"


def write_configuration(folder: DemoFolder, state: State) -> None:
    """Write every file anew: ports, or the place that opsproof is installed in, may have changed."""
    for path in (folder.deploy, folder.shared, folder.data_dir, folder.logs):
        make_folder(path, 0o700)
    write_private(folder.odoo_conf, _odoo_conf(folder, state))
    write_private(folder.credentials, _credentials(state))
    write_private(folder.inventory, _inventory(folder, state))


def _odoo_conf(folder: DemoFolder, state: State) -> str:
    options = {
        "db_host": "127.0.0.1",
        "db_port": state.postgres_port,
        "db_user": APPLICATION_ROLE,
        "db_password": state.application_password,
        "db_name": DATABASE,
        "data_dir": folder.data_dir,
        "http_interface": "127.0.0.1",
        "http_port": state.application_port,
    }
    return "[options]\n" + "".join(f"{name} = {value}\n" for name, value in options.items())


def _credentials(state: State) -> str:
    return (
        f"[demo]\naws_access_key_id = {state.access_key}\naws_secret_access_key = {state.secret_key}\n"
        "region = us-east-1\n"
    )


def _inventory(folder: DemoFolder, state: State) -> str:
    """Return hosts.yml; every text is quoted as JSON, which YAML reads."""
    variables: dict[str, object] = {
        "ansible_connection": "local",
        "dbname": DATABASE,
        "odoo_conf": str(folder.odoo_conf),
        "customer": "demo",
        # Not the writer: it stands for the world outside, which goes on calling while the application is down.
        "services": ["application"],
        "service_manager": "supervisor",
        "supervisor_conf": str(folder.supervisor_conf),
        "health_url": state.application_url + "/health",
        # A release that is not well by then is taken back, and somebody looks on.
        "health_timeout": 20,
        "deploy_folder": str(folder.deploy),
        "alembic_ini": str(folder.alembic_ini),
        "pg_bindir": str(bindir(folder)),
    }
    words = [sys.executable, "-m", "shop.server", "-c", str(folder.odoo_conf)]
    policies: dict[str, dict[str, object]] = {
        "deploy": {"database": "alembic", "shared": list(SHARED)},
        "objectives": {"rto": "30s", "rpo": "7d"},
        "drill": {
            "command": f"cd {shlex.quote(str(folder.current))} && "
            f"exec {shlex.join(words)} -d {{database}} --http-port={{port}}",
            "health_url": "http://127.0.0.1:{port}/health",
        },
    }
    store: dict[str, object] = {
        "bucket": BUCKET,
        "endpoint_url": state.endpoint_url,
        "region": "us-east-1",
        "path_style": True,
        "profile": "demo",
        "credentials_file": str(folder.credentials),
    }
    lines = [
        "# Written by `python -m opsproof.demo start`, and written anew when the demo's programs are started.",
        f"{ENVIRONMENT}:",
        "  hosts:",
        f"    {HOST}:",
        *(f"      {name}: {_yaml(value)}" for name, value in variables.items()),
        *(
            line
            for key, policy in policies.items()
            for line in (f"      {key}:", *(f"        {name}: {_yaml(value)}" for name, value in policy.items()))
        ),
        "      store:",
        *(f"        {name}: {_yaml(value)}" for name, value in store.items()),
    ]
    return "\n".join(lines) + "\n"


def _yaml(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
