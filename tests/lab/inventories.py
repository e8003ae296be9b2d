"""Inventories for tests: written beside an odoo.conf, and read by Ansible's own commands."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from opsproof.errors import ConfigurationError
from opsproof.inventory.hosts import target_of_host
from opsproof.inventory.loading import load_environment
from opsproof.inventory.schema import validated_host, validated_variables
from opsproof.target import Target

ODOO_CONF = """[options]
db_host = db.example
db_port = 5433
db_user = odoo
db_password = hush-odoo
db_name = acme, other
data_dir = /srv/data
"""
# One inventory for many assertions: a run of Ansible costs half a second.
HOSTS = """
all:
  vars:
    ansible_connection: local
    unrelated: "{{ only_a_playbook_knows_this }}"
  children:
    live:
      children:
        odoo_live:
          hosts:
            app[1:2]:
              customer: "{{ owner }}"
              odoo_conf: CONF
              odoo_service: odoo
              services: [worker, odoo]
              deploy_user: odoo
        shops:
          hosts:
            shop:
              url_password: "{{ shop_password | urlencode | replace('/', '%2F') }}"
              database_url: "postgresql+asyncpg://shop:{{ url_password }}@db.example/shop?ssl=require"
              filestore: /srv/shop
              backup_dir: dumps
              store:
    remote:
      hosts:
        far:
          ansible_connection: ansible.builtin.ssh
          ansible_host: 192.0.2.7
          ansible_user: deploy
          ansible_port: 2222
          ansible_become: yes
          ansible_become_user: postgres
          ansible_ssh_private_key_file: /keys/id
          ansible_ssh_common_args: -o ProxyJump=gate
          database_url: postgresql://u@db/far
          filestore: {path: /srv/far, content_addressed: true}
          accept_missing_files: 3
          backup_dir: /b
          fingerprint: counts
          lock_timeout: 5
          health_url: http://127.0.0.1:8069/
    undecided:
      hosts:
        lost:
          dbname: acme
          backup_dir: /b
    empty: {}
"""


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    """Variables that hold nothing of the machine's own configuration, with an ansible of its own home."""
    return {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}


@pytest.fixture
def inventory(tmp_path: Path) -> Callable[..., Path]:
    """Write an inventory with an odoo.conf and files beside it."""

    def write(text: str = HOSTS, **files: str) -> Path:
        conf = tmp_path / "odoo.conf"
        conf.write_text(ODOO_CONF)
        for name, content in files.items():
            path = tmp_path / f"{name.replace('__', '/')}.yml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        path = tmp_path / "hosts.yml"
        path.write_text(text.replace("CONF", str(conf)))
        return path

    return write


def by_name(targets: tuple[Target, ...]) -> Mapping[str, Target]:
    """Return targets by their names."""
    return {target.name: target for target in targets}


def one_host(**variables: str) -> str:
    """Return an inventory of prod with the one host web; a variable that is empty is left out."""
    lines = {"ansible_connection": "local", "backup_dir": "b", "database_url": "postgresql://u@h/acme", **variables}
    return "prod:\n  hosts:\n    web:\n" + "".join(f"      {key}: {value}\n" for key, value in lines.items() if value)


def refusal(path: Path, environ: Mapping[str, str], name: str = "prod", **more: list[str]) -> ConfigurationError:
    """Check that an environment is refused, with a hint and without a secret; return the error."""
    with pytest.raises(ConfigurationError) as caught:
        load_environment(name, inventory=path, environ=environ, **more)  # type: ignore[arg-type]
    assert caught.value.hint
    assert "hush" not in str(caught.value)
    return caught.value


def made(**variables: object) -> Target:
    """Return the target that these variables of a host make."""
    given = {"database_url": "postgresql://u@h/acme", "store": {"bucket": "b"}, "customer": "c", **variables}
    own = validated_host("web", given, given, lambda *keys: ("hosts.yml", len(keys)))
    _, target = target_of_host(
        "prod", "web", own, validated_variables({}), folder=Path(), where=lambda *keys: "hosts.yml", environ={}
    )
    return target


def refused(**variables: object) -> ConfigurationError:
    """Check that a host's variables are refused, with a hint and without their values; return the error."""
    with pytest.raises(ConfigurationError) as caught:
        made(**variables)
    assert caught.value.hint
    assert "hush" not in str(caught.value)
    return caught.value
