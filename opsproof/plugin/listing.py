"""`--list-backups` and `--list-targets`: print a table and exit, as pytest's own `--markers` does."""

from __future__ import annotations

import sys

import pytest

from opsproof.errors import OpsproofError


def pytest_cmdline_main(config: pytest.Config) -> int | pytest.ExitCode | None:
    """Do what a listing option asks for, instead of collecting tests."""
    if not (config.getoption("--list-backups") or config.getoption("--list-targets")):
        return None
    config._do_configure()  # as pytest's own --markers does: plugins are configured, nothing is collected
    from opsproof.plugin.run import without_libpq_variables  # only now: the start has loaded it beside Ansible

    try:
        with without_libpq_variables():
            print(_listing(config))
    except OpsproofError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return pytest.ExitCode.USAGE_ERROR
    finally:
        config._ensure_unconfigure()
    return pytest.ExitCode.OK


def _listing(config: pytest.Config) -> str:
    from opsproof.archive.catalogue.listing import list_backups
    from opsproof.inventory.loading import list_environments
    from opsproof.plugin.run import announcer, begin_run, choose_inventory
    from opsproof.report import tables

    run = begin_run(config, None)
    as_json = run.options.json
    if run.options.list_targets:
        inventory = choose_inventory(run.options, announcer(config))
        return tables.targets(run.environment, list_environments(inventory) if inventory else {}, as_json=as_json)
    listed = []
    for target in run.environment.targets:
        store = run.store(target)
        entries, older = list_backups(store)
        listed.append(tables.StoreListing(target.name, store.location, tuple(entries), older))
    return run.redactor.clean(tables.backups(listed, as_json=as_json))
