"""What is wrong with an inventory is said with the file, the line and what to type."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from opsproof.errors import ProgramMissing
from opsproof.inventory.loading import load_environment
from tests.lab.inventories import environ, inventory, one_host, refusal

__all__ = ["environ", "inventory"]


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
