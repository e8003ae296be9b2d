"""Variables complete an inventory or stand in for one; where the two contradict each other, that is an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from opsproof.errors import ConfigurationError
from opsproof.inventory.loading import load_environment
from opsproof.target import DirectoryStoreSettings, S3StoreSettings
from tests.lab.inventories import environ, inventory, one_host, refusal

__all__ = ["environ", "inventory"]


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
