"""Services, their manager, health pages and protection, as an inventory says them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from opsproof.inventory.loading import load_environment
from tests.lab.inventories import environ, inventory, one_host, refusal

__all__ = ["environ", "inventory"]


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
        f"services.name (hosts.yml:7): {one}",
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


def test_a_second_node_is_reached_as_its_own_host_is(inventory: Callable[..., Path], environ: dict[str, str]) -> None:
    web2 = "{ansible_host: 192.0.2.9, ansible_user: ops, ansible_become: true}"
    node = f"nodes:\n  hosts:\n    web2: {web2}\n"
    text = one_host(services="[odoo, {name: odoo, host: web2}, {name: worker, host: web}]") + node

    (web,) = load_environment("prod", inventory=inventory(text), environ=environ).targets

    assert web.services == ("odoo", "odoo on web2", "worker")
    assert list(web.nodes) == ["odoo on web2"]
    reached = web.nodes["odoo on web2"]
    assert (reached.kind, reached.host, reached.user, reached.become) == ("ssh", "192.0.2.9", "ops", True)


def test_a_second_node_on_a_host_that_nobody_knows_is_refused(
    inventory: Callable[..., Path], environ: dict[str, str]
) -> None:
    error = refusal(inventory(one_host(services="[{name: odoo, host: web3}]")), environ)

    assert error.summary == "services of web name a host that the inventory does not have"
    assert error.found == "web3"
