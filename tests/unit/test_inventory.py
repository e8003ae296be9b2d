"""hosts.yml, read by Ansible's own commands -> environments and targets."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from pydantic import BaseModel

from opsproof.inventory import asked
from opsproof.inventory.ansible import find_inventory
from opsproof.inventory.loading import list_environments, load_environment
from opsproof.inventory.schema import HostVariables
from opsproof.inventory.values import Ours
from opsproof.target import DirectoryStoreSettings, S3StoreSettings
from tests.lab.inventories import by_name, environ, inventory, one_host, refusal

__all__ = ["environ", "inventory"]

EXAMPLE = Path(__file__).parents[2] / "hosts.example.yml"
REFERENCE = Path(__file__).parents[2] / "docs/reference/configuration.md"
MAPPINGS: list[type[BaseModel]] = [
    HostVariables,
    *(one for one in vars(asked).values() if isinstance(one, type) and issubclass(one, BaseModel) and one is not Ours),
]
SECRET = "hush{{ '%40/@"


def sealed(text: str, name: str, password_file: Path) -> str:
    """Return `name: !vault ...` for a text, by ansible-vault itself."""
    command = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt_string", "--vault-password-file"]
    done = subprocess.run(
        [*command, str(password_file), "--stdin-name", name], input=text, capture_output=True, text=True, check=True
    )
    return done.stdout


def test_groups_vaults_templates_and_ansible_cfg_make_the_targets(
    inventory: Callable[..., Path], tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    password = tmp_path / "vault-password"
    password.write_text("open sesame")
    vault = sealed(SECRET, "shop_password", password)
    path = inventory(
        group_vars__live="owner: acme\nstore: {bucket: acme-backups, prefix: /odoo/}\n",
        group_vars__odoo_live="dbname: acme\n",
        host_vars__app2="dbname: other\n",
        group_vars__shops__vault=vault,
    )
    # ansible.cfg of the working directory gives the password, and logs and hides what must be neither.
    log = tmp_path / "ansible.log"
    config = f"[defaults]\nvault_password_file = {password}\nlog_path = {log}\nno_log = true\nstdout_callback = yaml\n"
    (tmp_path / "ansible.cfg").write_text(config)
    monkeypatch.chdir(tmp_path)

    environment = load_environment("live", inventory=path, environ=environ)

    targets = by_name(environment.targets)
    assert (environment.name, environment.origin, list(targets)) == ("live", str(path), ["app1", "app2", "shop"])
    first, second, shop = targets.values()
    assert (first.database.name, second.database.name) == ("acme", "other")
    assert first.database.password is not None
    assert first.database.password.reveal() == "hush-odoo"
    assert (first.database.host, first.database.port, first.database.user) == ("db.example", 5433, "odoo")
    assert first.services == ("odoo", "worker")
    assert first.filestore is not None
    assert first.filestore.path == PurePosixPath("/srv/data/filestore/acme")
    assert (first.filestore.content_addressed, first.filestore.origin) == (True, f"data_dir in {tmp_path}/odoo.conf")
    assert first.store == S3StoreSettings(bucket="acme-backups", region="me-south-1", prefix="odoo/")
    assert first.customer == "acme"
    assert first.sources["dbname"] == "group_vars/odoo_live.yml"
    assert second.sources["dbname"] == "host_vars/app2.yml"
    assert first.sources["database"] == f"odoo.conf {tmp_path}/odoo.conf"
    assert first.sources["store"] == "group_vars/live.yml"
    assert (first.sources["store.region"], first.sources["odoo_service"]) == ("default", "hosts.yml")
    assert shop.database.password is not None
    assert shop.database.password.reveal() == SECRET
    assert shop.database.parameters == {"sslmode": "require"}
    assert shop.store == DirectoryStoreSettings(tmp_path / "dumps")
    assert shop.filestore is not None
    assert (shop.filestore.path, shop.filestore.content_addressed) == (PurePosixPath("/srv/shop"), False)
    assert not log.exists()
    assert "hush" not in repr(environment)

    (tmp_path / "ansible.cfg").unlink()
    missing = refusal(path, environ, "live", only=["shop"])
    assert missing.summary == "database_url of shop cannot be resolved"
    assert "a vault, and no password for it" in missing.found
    assert "ANSIBLE_VAULT_PASSWORD_FILE" in missing.hint


def test_a_host_of_another_machine_is_loaded_with_its_connection(
    inventory: Callable[..., Path], environ: dict[str, str]
) -> None:
    (far,) = load_environment("remote", inventory=inventory(), environ=environ).targets

    connection = far.connection
    assert (connection.kind, connection.host, connection.user, connection.port) == ("ssh", "192.0.2.7", "deploy", 2222)
    assert (connection.become, connection.become_user) == (True, "postgres")
    assert (connection.private_key_file, connection.ssh_common_args) == ("/keys/id", "-o ProxyJump=gate")
    assert (far.fingerprint, far.lock_timeout, far.health_url) == ("counts", 5.0, "http://127.0.0.1:8069/")
    assert far.filestore is not None
    assert (far.filestore.content_addressed, far.filestore.accept_missing) == (True, 3)
    assert far.customer == ""


def test_environments_are_listed_with_all_their_hosts(inventory: Callable[..., Path], environ: dict[str, str]) -> None:
    listed = list_environments(inventory(), environ=environ)

    assert dict(listed) == {
        "live": ("app1", "app2", "shop"),
        "odoo_live": ("app1", "app2"),
        "shops": ("shop",),
        "remote": ("far",),
        "undecided": ("lost",),
        "all": ("app1", "app2", "shop", "far", "lost"),
    }
    assert list(listed)[-1] == "all"


def test_hosts_yml_is_found_in_the_working_directory(tmp_path: Path) -> None:
    assert find_inventory(tmp_path) is None
    (tmp_path / "hosts.yml").touch()
    assert find_inventory(tmp_path) == tmp_path / "hosts.yml"


def with_confs(text: str, folder: Path) -> str:
    """Put odoo.conf files of the same content as a real one in the places of those that are not on this machine."""
    paths = re.findall(r"odoo_conf: (/\S+)", text)
    for number, path in enumerate(paths):
        conf = folder / f"odoo{number}.conf"
        conf.write_text("[options]\ndb_user = odoo\ndata_dir = /var/lib/odoo\n")
        text = re.sub(rf"odoo_conf: {re.escape(path)}(?=\s)", f"odoo_conf: {conf}", text, count=1)
    assert len(paths) == 2
    return text


def test_the_example_inventory_loads(inventory: Callable[..., Path], environ: dict[str, str], tmp_path: Path) -> None:
    text = with_confs(EXAMPLE.read_text(), tmp_path)

    listed = load_environment("all", inventory=inventory(text), environ=environ)

    targets = by_name(listed.targets)
    names = {name: target.database.name for name, target in targets.items()}
    assert names == {"odoo-staging": "acme_staging", "odoo-prod": "acme", "shop-prod": "shop"}
    assert {target.store for target in targets.values()} == {
        S3StoreSettings(bucket="sonodcustomersbackup", region="me-south-1")
    }
    shop = targets["shop-prod"]
    assert (shop.services, shop.service_manager) == (("shop-web", "shop-worker"), "supervisor")
    assert shop.supervisor_conf == "/etc/supervisor/supervisord.conf"


def test_what_is_commented_out_in_the_example_is_valid_too(
    inventory: Callable[..., Path], environ: dict[str, str], tmp_path: Path
) -> None:
    """What it names is put there: the application's settings, credentials, a password, another host."""
    (tmp_path / "settings.py").write_text("URL = 'postgresql://shop@127.0.0.1:5432/shop'\n")
    (tmp_path / "aws-credentials").touch()
    text = re.sub(r"(?m)^( *)# ( *(?:[a-z_]+:(?: .*)?|- .*))$", r"\1\2", with_confs(EXAMPLE.read_text(), tmp_path))
    for key, value in (("settings", "settings:URL"), ("settings_python", sys.executable), ("settings_path", tmp_path)):
        text, count = re.subn(rf"(?m)^( *{key}): \S+", rf"\1: {value}", text)
        assert count == 1
    text += "\n    nodes:\n      hosts:\n        odoo-prod-2:\n          ansible_host: 192.0.2.9\n"

    prod = load_environment(
        "prod", inventory=inventory(text, group_vars__prod="shop_db_password: x\n"), environ=environ
    )

    assert not re.search(r"(?m)^ *# *[a-z_]+:", text)
    for target in prod.targets:
        policies = target.policies
        for one in (policies.retention, policies.artifacts, policies.objectives, policies.sealing, policies.bucket):
            assert not {None, ()} & set(vars(one).values()), one
        assert isinstance(target.store, S3StoreSettings)
        assert target.store.object_lock is not None
    # Nothing that can be said is left out of it.
    uncommented = set(re.findall(r"([a-z_]+):(?= |$)", text, re.MULTILINE))
    assert set(HostVariables.model_fields) - uncommented <= {
        "backup_dir", "ansible_host", "ansible_user", "ansible_port", "ansible_become_user",
        "ansible_ssh_private_key_file", "ansible_ssh_common_args",
    }  # fmt: skip
    assert len(MAPPINGS) == 13
    for mapping in MAPPINGS[1:]:
        assert set(mapping.model_fields) <= uncommented, mapping


def test_the_reference_names_all_that_can_be_said() -> None:
    told = set(re.findall(r"`([a-z_.]+)`", REFERENCE.read_text()))
    for mapping in MAPPINGS:
        assert set(mapping.model_fields) <= told, mapping


def test_a_second_command_is_run_only_for_templates_of_ours(
    inventory: Callable[..., Path], environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each command costs half a second, and a template that is not ours may be none that can be resolved."""
    commands = []
    start = subprocess.Popen

    def counted(command: list[str], **options: Any) -> subprocess.Popen[str]:
        commands.append(Path(command[0]).name)
        return start(command, **options)

    monkeypatch.setattr("opsproof.inventory.ansible.subprocess.Popen", counted)

    load_environment("prod", inventory=inventory(one_host(theirs="'{{ nope }}'")), environ=environ)
    assert commands == ["ansible-inventory"]
    load_environment("prod", inventory=inventory(one_host(dbname="\"{{ 'ac' ~ 'me' }}\"")), environ=environ)
    assert commands == ["ansible-inventory", "ansible-inventory", "ansible"]
