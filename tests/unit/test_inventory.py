"""hosts.yml, read by Ansible's own commands, and variables alone -> environments and targets."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from opsproof.errors import ConfigurationError, ProgramMissing
from opsproof.inventory.ansible import find_inventory
from opsproof.inventory.loading import list_environments, load_environment
from opsproof.target import DirectoryStoreSettings, S3StoreSettings, Target

EXAMPLE = Path(__file__).parents[2] / "hosts.example.yml"
SECRET = "hush{{ '%40/@"
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


def sealed(text: str, name: str, password_file: Path) -> str:
    """Return `name: !vault ...` for a text, by ansible-vault itself."""
    command = [str(Path(sys.executable).parent / "ansible-vault"), "encrypt_string", "--vault-password-file"]
    done = subprocess.run(
        [*command, str(password_file), "--stdin-name", name], input=text, capture_output=True, text=True, check=True
    )
    return done.stdout


def by_name(targets: tuple[Target, ...]) -> Mapping[str, Target]:
    return {target.name: target for target in targets}


def one_host(**variables: str) -> str:
    lines = {"ansible_connection": "local", "backup_dir": "b", "database_url": "postgresql://u@h/acme", **variables}
    return "prod:\n  hosts:\n    web:\n" + "".join(f"      {key}: {value}\n" for key, value in lines.items() if value)


def refusal(path: Path, environ: Mapping[str, str], name: str = "prod", **more: list[str]) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        load_environment(name, inventory=path, environ=environ, **more)  # type: ignore[arg-type]
    assert caught.value.hint
    assert "hush" not in str(caught.value)
    return caught.value


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


def test_services_their_manager_and_whose_they_are(inventory: Callable[..., Path], environ: dict[str, str]) -> None:
    path = inventory(
        one_host(
            services='[worker, "odoo:*"]',
            service_manager="supervisor",
            supervisor_conf="/etc/supervisor/own.conf",
            service_user="odoo",
            filestore_owner='"odoo:www-data"',
            health_url="https://127.0.0.1:8069/web/health",
            health_timeout="90",
        )
    )

    (web,) = load_environment("prod", inventory=path, environ=environ).targets

    assert web.services == ("worker", "odoo:*")
    assert (web.service_manager, web.supervisor_conf) == ("supervisor", "/etc/supervisor/own.conf")
    assert (web.service_user, web.filestore_owner) == ("odoo", "odoo:www-data")
    assert (web.health_url, web.health_timeout) == ("https://127.0.0.1:8069/web/health", 90.0)
    (web,) = load_environment("prod", inventory=inventory(one_host()), environ=environ).targets
    assert (web.service_manager, web.supervisor_conf, web.service_user) == ("systemd", None, None)
    assert (web.filestore_owner, web.health_timeout, web.services) == (None, 60.0, ())
    assert {web.sources[key] for key in ("service_manager", "health_timeout", "protected")} == {"default"}


def test_what_is_no_service_user_or_health_page_is_refused(
    inventory: Callable[..., Path], environ: dict[str, str]
) -> None:
    text = one_host(
        services='["odoo*", "a b", -x, "*"]',
        odoo_service='"[a-z]"',
        supervisor_conf="/etc/supervisord.conf",
        service_user='"a:b"',
        filestore_owner='"-R:x"',
        health_url="http://u:hush@h/",
        health_timeout="0",
        protected="hush",
    )

    error = refusal(inventory(text), environ)

    one = "must be the name of one service, without blanks and without a pattern"
    assert error.found.splitlines() == [
        f"odoo_service (hosts.yml:8): {one}",
        f"services (hosts.yml:7): {one}",
        "supervisor_conf (hosts.yml:9): is for supervisor: add `service_manager: supervisor`, or take it out",
        "service_user (hosts.yml:10): must be the name of a user",
        "filestore_owner (hosts.yml:11): must be a user, or user:group",
        "protected (hosts.yml:14): should be a valid boolean, unable to interpret input",
        "health_url (hosts.yml:12): must have neither user nor password: it is shown in reports",
        "health_timeout (hosts.yml:13): should be greater than 0",
    ]


@pytest.mark.parametrize(
    ("environment", "said", "protected"),
    [
        ("prod", "", True),
        ("Production", "", True),
        ("staging", "", False),
        ("preprod", "", False),
        ("prod", "no", False),
        ("staging", "yes", True),
    ],
)
def test_production_is_protected_unless_the_inventory_says_otherwise(
    inventory: Callable[..., Path], environ: dict[str, str], environment: str, said: str, protected: bool
) -> None:
    path = inventory(one_host(protected=said).replace("prod:", f"{environment}:", 1))

    (web,) = load_environment(environment, inventory=path, environ=environ).targets

    assert web.protected is protected
    assert web.sources["protected"] == ("hosts.yml" if said else "default")


def test_an_odoo_conf_on_another_machine_says_that_it_cannot_be_read_yet(
    inventory: Callable[..., Path], environ: dict[str, str]
) -> None:
    path = inventory(one_host(database_url="", odoo_conf="/etc/odoo.conf", ansible_connection=""))

    error = refusal(path, environ)

    assert error.summary == "The odoo.conf of web is on another machine"
    assert "ansible_connection: local" in error.hint


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


@pytest.mark.parametrize(
    ("name", "only", "summary", "hint"),
    [
        ("lvie", [], "There is no environment lvie in ", "--env=live"),
        ("empty", [], "The environment empty has no hosts", "see what Ansible reads: "),
        ("ungrouped", [], "The environment ungrouped has no hosts", "see what Ansible reads: "),
        ("shop", [], "There is no environment shop in ", "--env=live --target=shop"),
        ("remote", ["fra"], "There is no target fra in remote", "--target=far"),
        ("undecided", [], "Nothing says where the database of lost is", "give lost `odoo_conf:"),
    ],
)
def test_a_name_that_does_not_exist_is_refused_with_those_that_do(
    inventory: Callable[..., Path], environ: dict[str, str], name: str, only: list[str], summary: str, hint: str
) -> None:
    error = refusal(inventory(), environ, name, only=only)

    assert error.summary.startswith(summary)
    assert error.hint.startswith(hint)
    if "environment" in summary:
        assert set(error.expected.removeprefix("one of ").split(", ")) == {
            "live",
            "odoo_live",
            "shops",
            "remote",
            "undecided",
            "all",
        }


def test_every_wrong_key_and_value_is_named_with_its_line(
    inventory: Callable[..., Path], environ: dict[str, str]
) -> None:
    text = one_host(dbnam="hush", fingerprint="hush", lock_timeout="-1", ours_alone="x")
    text += "      store:\n        buckett: hush\n        encryption: hush\n"
    error = refusal(inventory(text, group_vars__prod="odoo_services: hush\nhealth_url: hush\n"), environ)

    assert set(error.found.splitlines()) == {
        "odoo_services (group_vars/prod.yml:1): did you mean odoo_service?",
        "dbnam (hosts.yml:7): did you mean dbname?",
        "health_url (group_vars/prod.yml:2): must begin with http:// or https://",
        "fingerprint (hosts.yml:8): should be 'full' or 'counts'",
        "lock_timeout (hosts.yml:9): should be greater than 0",
        "store.encryption (hosts.yml:13): should be 'AES256' or 'aws:kms'",
        "store.buckett (hosts.yml:12): no such key; did you mean store.bucket?",
    }


def test_a_near_miss_beside_the_right_key_is_the_users_own(
    inventory: Callable[..., Path], environ: dict[str, str]
) -> None:
    path = inventory(one_host(dbname="acme", db_name="'{{ nothing_of_ours }}'", service="x", services="[a]"))

    (target,) = load_environment("prod", inventory=path, environ=environ).targets

    assert (target.database.name, target.services) == ("acme", ("a",))


def test_an_undefined_template_is_named_with_variable_host_and_line(
    inventory: Callable[..., Path], environ: dict[str, str]
) -> None:
    path = inventory(one_host(customer='"{{ indirect }}"', indirect='"{{ nope }}"', dbname='"{{ fine }}"', fine="acme"))

    error = refusal(path, environ)

    assert error.summary == "customer of web cannot be resolved"
    assert "(hosts.yml:7)" in error.expected
    assert "'nope' is undefined" in error.found


def test_broken_files_are_named_with_their_line(inventory: Callable[..., Path], environ: dict[str, str]) -> None:
    broken = refusal(inventory("prod:\n  hosts:\n    a:\n      x: [1\n      y: 2\n"), environ)
    assert re.search(r"YAML parsing failed.*\(hosts\.yml:\d\)", broken.found)
    beside = refusal(inventory(one_host(), group_vars__prod="a: [1\nb: 2\n"), environ)
    assert re.search(r"YAML parsing failed.*\(group_vars/prod\.yml:2\)", beside.found)


def test_an_encrypted_file_without_a_password_is_named(inventory: Callable[..., Path], environ: dict[str, str]) -> None:
    path = inventory(one_host(), group_vars__prod="$ANSIBLE_VAULT;1.1;AES256\n3036\n")

    error = refusal(path, environ)

    assert error.found == "a vault, and no password for it (group_vars/prod.yml)"


def test_a_missing_inventory_and_a_missing_ansible_are_clear(
    inventory: Callable[..., Path], environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "cp hosts.example.yml hosts.yml" in refusal(tmp_path / "none.yml", environ).hint
    path = inventory(one_host())
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(ProgramMissing, match="ansible-inventory is not there"):
        load_environment("prod", inventory=path, environ={"PATH": str(tmp_path)})


def test_hosts_yml_is_found_in_the_working_directory(tmp_path: Path) -> None:
    assert find_inventory(tmp_path) is None
    (tmp_path / "hosts.yml").touch()
    assert find_inventory(tmp_path) == tmp_path / "hosts.yml"


@pytest.mark.parametrize(
    ("variables", "summary"),
    [
        ({"odoo_conf": "CONF", "dbname": "acme"}, "The sources of web name different databases"),
        ({"odoo_conf": "CONF", "dbname": "third", "database_url": ""}, "dbname contradicts db_name in "),
        ({"odoo_conf": "CONF", "database_url": ""}, "Nothing says which database of "),
        ({"dbname": "third"}, "dbname of web contradicts database_url in hosts.yml"),
        ({"store": "{bucket: one}"}, "Two places name different stores for web"),
        ({"backup_dir": "", "customer": "c"}, "Nothing says where the backups of web go"),
        ({"backup_dir": "", "store": "{bucket: one}"}, "Nothing says whose backups those of web are"),
    ],
)
def test_contradictions_and_gaps_are_errors_and_no_precedence(
    inventory: Callable[..., Path], environ: dict[str, str], variables: dict[str, str], summary: str
) -> None:
    assert refusal(inventory(one_host(**variables)), environ).summary.startswith(summary)


def test_variables_that_name_another_database_or_store_than_the_inventory_are_an_error(
    inventory: Callable[..., Path], environ: dict[str, str]
) -> None:
    path = inventory(one_host())

    other = refusal(path, {**environ, "DATABASE_URL": "postgresql://u:hush@h/other"})
    assert other.summary == "DATABASE_URL names a database that is none of prod's"
    assert other.hint == "unset DATABASE_URL"
    bucket = refusal(path, {**environ, "S3_BUCKET": "elsewhere"})
    assert bucket.found == "backup_dir in hosts.yml: b\nS3_BUCKET: elsewhere"
    same = {**environ, "DATABASE_URL": "postgresql://someone@h/acme"}
    assert load_environment("prod", inventory=path, environ=same).targets[0].database.user == "u"


def test_the_store_is_completed_from_variables(inventory: Callable[..., Path], environ: dict[str, str]) -> None:
    path = inventory(one_host(backup_dir="", store="{encryption: aws:kms, kms_key_id: k}"))
    variables = {
        "S3_BUCKET": "bucket",
        "S3_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "CI_PROJECT_NAME": "acme",
    }

    (target,) = load_environment("prod", inventory=path, environ={**environ, **variables}).targets

    assert target.store == S3StoreSettings(
        bucket="bucket",
        region="eu-west-1",
        endpoint_url="http://127.0.0.1:9",
        encryption="aws:kms",
        kms_key_id="k",
    )
    assert target.customer == "acme"
    origins = {key: target.sources[key] for key in ("store", "store.region", "store.encryption", "customer")}
    assert origins == {
        "store": "S3_BUCKET",
        "store.region": "AWS_DEFAULT_REGION",
        "store.encryption": "hosts.yml",
        "customer": "CI_PROJECT_NAME",
    }


def test_variables_alone_make_a_target_named_after_the_database(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    variables = {**environ, "DATABASE_URL": "postgresql://u:hush@h:5433/acme"}

    environment = load_environment("staging", inventory=None, environ=variables)

    (target,) = environment.targets
    assert (environment.origin, target.name, target.environment) == ("DATABASE_URL", "acme", "staging")
    assert (target.database.host, target.database.port, target.connection.kind) == ("h", 5433, "local")
    assert target.store == DirectoryStoreSettings(tmp_path / "backups")
    assert target.filestore is None
    assert "hush" not in repr(environment)


def test_the_applications_settings_make_a_target_and_may_not_contradict_variables(
    tmp_path: Path, environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config.py").write_text("URL = 'postgresql+asyncpg://u:hush@h/acme'\n")
    monkeypatch.chdir(tmp_path)

    environment = load_environment("staging", inventory=None, environ=environ, settings="config:URL")

    assert (environment.origin, environment.targets[0].name) == ("config:URL", "acme")
    with pytest.raises(ConfigurationError, match="The sources of the application name different databases"):
        load_environment("staging", inventory=None, environ={**environ, "PGDATABASE": "other"}, settings="config:URL")


def test_nothing_at_all_and_a_wrong_target_are_errors(environ: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="Nothing says what prod is"):
        load_environment("prod", inventory=None, environ=environ)
    with pytest.raises(ConfigurationError, match="There is no target other in prod"):
        load_environment("prod", inventory=None, environ={**environ, "PGDATABASE": "acme"}, only=["other"])


@pytest.mark.parametrize("customer", ["a/b", "..", "a\x07b"])
def test_a_customer_that_leaves_its_folder_is_refused(environ: dict[str, str], customer: str) -> None:
    variables = {**environ, "PGDATABASE": "acme", "S3_BUCKET": "b", "CI_PROJECT_NAME": customer}
    with pytest.raises(ConfigurationError, match="The variable CI_PROJECT_NAME is not right"):
        load_environment("prod", inventory=None, environ=variables)


def test_the_example_inventory_loads(inventory: Callable[..., Path], environ: dict[str, str], tmp_path: Path) -> None:
    """Its odoo.conf files are not on this machine: files of the same content as a real one take their places."""
    text = EXAMPLE.read_text()
    paths = re.findall(r"odoo_conf: (/\S+)", text)
    for number, path in enumerate(paths):
        conf = tmp_path / f"odoo{number}.conf"
        conf.write_text("[options]\ndb_user = odoo\ndata_dir = /var/lib/odoo\n")
        text = re.sub(rf"odoo_conf: {re.escape(path)}(?=\s)", f"odoo_conf: {conf}", text, count=1)
    assert len(paths) == 2

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
