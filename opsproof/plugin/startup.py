"""The start: Ansible reads the inventory, which takes a third of a second, while the rest of the plugin is loaded."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest

from opsproof.errors import OpsproofError
from opsproof.inventory.ansible import Reading, find_inventory
from opsproof.plugin.options import DEMO

# What takes its time to load: database, archive and store come with it.
MODULES = (
    "opsproof.plugin.run",
    # Before those whose last words it ends: of what is to come first, pytest asks the last one that was registered.
    "opsproof.plugin.journals",
    "opsproof.plugin.steps",
    "opsproof.plugin.confirmed",
    "opsproof.plugin.interrupt",
    "opsproof.plugin.console",
    "opsproof.plugin.evidence",
    "opsproof.plugin.fixtures",
    "opsproof.plugin.checking",
    "opsproof.plugin.verbs.rollbacks",
    "opsproof.plugin.verbs.deploys",
    "opsproof.plugin.verbs.cleanups",
    "opsproof.plugin.verbs.verifications",
    "opsproof.plugin.verbs.drills",
    "opsproof.plugin.monitoring.tally",
    "opsproof.plugin.monitoring.metrics",
    "opsproof.plugin.monitoring.ping",
    "opsproof.plugin.reporting",
)
# Only where pytest-xdist runs targets side by side: the process that the workers report to, and each of them.
FLEET = "opsproof.plugin.fleets.fleet"
WORKER = "opsproof.plugin.fleets.worker"
# What a worker is given of an environment that was loaded already.
ENVIRONMENT = "opsproof_environment"
READING = pytest.StashKey[Reading]()


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Begin to read the inventory of an environment that was named, and load the rest meanwhile."""
    named = config.getoption("--inventory")
    path = Path(named) if named else find_inventory(Path())
    given = getattr(config, "workerinput", {}).get(ENVIRONMENT)
    if path is not None and (named or config.getoption("--env") != DEMO) and given is None:
        with suppress(OpsproofError):  # whoever waits for it finds the same fault, and tells it
            reading = Reading(path, os.environ)
            config.stash[READING] = reading
            config.add_cleanup(reading.abandon)
    for module in (*MODULES, *_of_a_fleet(config)):
        config.pluginmanager.import_plugin(module)


def _of_a_fleet(config: pytest.Config) -> tuple[str, ...]:
    if hasattr(config, "workerinput"):
        return (WORKER,)
    is_distributed = config.getoption("dist", "no") != "no" and bool(config.getoption("tx", None))
    return (FLEET,) if is_distributed and not config.getoption("collectonly") else ()


def reading_of(config: pytest.Config, inventory: Path | None) -> Reading | None:
    """Return the reading of this inventory, if it was begun."""
    reading = config.stash.get(READING, None)
    return reading if reading is not None and reading.path == inventory else None
