"""`pytest actions/test_restore.py --dry-run` of a protected target: the plan, exit status 0, and nothing is changed."""

from __future__ import annotations

from typing import Any

import pytest

from tests.lab.restored import Restorable

pytest_plugins = ["tests.lab.shop"]

SAFE = "take a safety backup and prove it"


def state_of(shop: Restorable) -> tuple[Any, ...]:
    """Return all that a restore could change: databases and their comments, rows, files, and the store."""
    databases = shop.query(
        "SELECT oid::bigint, datname, datallowconn, datistemplate, datacl::text, shobj_description(oid, 'pg_database')"
        " FROM pg_database ORDER BY 1"
    )
    folders = (shop.application.data_dir, shop.project.store)
    paths = [path for folder in folders for path in sorted([folder, *folder.rglob("*")])]
    return databases, shop.live_contents(), [(path, path.lstat().st_ino, path.lstat().st_mtime_ns) for path in paths]


@pytest.mark.parametrize(
    ("arguments", "environ", "steps"),
    [
        pytest.param(["--dry-run"], {}, ("{safe}", "build '{name}__side_", "swap; the old one stays as"), id="beside"),
        pytest.param(["--dry-run", "--in-place"], {}, ("{safe}", "DROP '{name}' and build it anew"), id="in place"),
        pytest.param(["--no-safety-backup"], {"DRY_RUN": "true"}, ("take NO safety backup",), id="by the variable"),
    ],
)  # fmt: skip
def test_a_protected_target_needs_no_confirmation_for_its_plan(
    shop: Restorable, arguments: list[str], environ: dict[str, str], steps: tuple[str, ...]
) -> None:
    shop.set(protected=True)
    shop.execute("DELETE FROM mail_message WHERE id % 7 = 0")
    before = state_of(shop)

    run = shop.restore(*arguments, environ=environ)

    assert run.status == 0, run.output
    outcomes = run.outcomes()
    assert outcomes["test_confirmed"] == "passed"
    after = list(outcomes)[list(outcomes).index("test_confirmed") + 1 :]
    assert len(after) == 12
    assert {outcomes[step] for step in after} == {"skipped"}
    plan = run.output[run.output.index("shop: the plan") :]
    assert f"1. bring back {shop.project.store / shop.backup.name} (the newest verified backup of" in plan
    for step in steps:
        assert step.format(safe=SAFE, name=shop.name) in plan
    assert state_of(shop) == before
    assert shop.project.litter() == []
    assert "is live and proven" not in run.output


def test_a_dry_run_that_finds_something_in_the_way_is_no_success(shop: Restorable) -> None:
    shop.set(protected=True)
    before = state_of(shop)
    run = shop.restore("--dry-run", "--backup=no_such_backup")
    assert run.status == 1
    assert run.failed_step().step == "test_choose_backup"
    assert "the plan" not in run.output
    assert state_of(shop) == before


def test_the_command_of_the_refusal_is_the_one_that_works(shop: Restorable) -> None:
    shop.set(protected=True)
    refused = shop.restore()
    assert refused.status == 1
    assert refused.failed_step().step == "test_confirmed"
    hint = refused.failed_step().message.rpartition("hint:")[2].splitlines()[0]
    (option,) = [word for word in hint.split() if word.startswith("--")]
    run = shop.restore("--no-safety-backup", option)
    assert run.status == 0, run.output
    assert shop.live_contents() == shop.contents
