"""How releases are deployed, as an inventory says it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from opsproof.inventory.loading import load_environment
from opsproof.target import DeploySettings
from tests.lab.inventories import environ, inventory, one_host, refusal

__all__ = ["environ", "inventory"]

SAID = "{keep_releases: 3, shared: config/.env, rehearse: yes, database: alembic, hook_timeout: 9}"


def settings(path: Path, environ: Mapping[str, str]) -> DeploySettings:
    (target,) = load_environment("prod", inventory=path, environ=environ).targets
    return target.deploy


def test_what_is_said_and_what_is_not(inventory: Callable[..., Path], environ: dict[str, str]) -> None:
    assert settings(inventory(one_host()), environ) == DeploySettings()
    hooks = "{after_update_code: make, before_symlink: [a, b c]}"
    said = settings(inventory(one_host(deploy=SAID, hooks=hooks)), environ)
    wanted = {"after_update_code": ("make",), "before_symlink": ("a", "b c")}
    assert said == DeploySettings(3, ("config/.env",), True, "alembic", 9.0, wanted)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("deploy", "{keep_releases: 0}", "greater than or equal to 1"),
        ("deploy", "{shared: [../etc]}", "must be a path below the release, without '..'"),
        ("deploy", "{shared: /etc}", "must be a path below the release"),
        ("deploy", "{keep_release: 3}", "did you mean deploy.keep_releases?"),
        ("deploy", "{database: mysql}", "'odoo', 'alembic' or 'none'"),
        ("deploy", "{hook_timeout: 0}", "greater than 0"),
        ("hooks", "{before_symlinks: a}", "did you mean hooks.before_symlink?"),
    ],
)
def test_what_cannot_be_is_refused(
    inventory: Callable[..., Path], environ: dict[str, str], key: str, value: str, problem: str
) -> None:
    assert problem in refusal(inventory(one_host(**{key: value})), environ).found
