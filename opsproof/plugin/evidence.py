"""What goes into reports: errors as people should read them, nothing secret, and the properties of a backup."""

from __future__ import annotations

import logging
from collections.abc import Generator
from dataclasses import asdict

import pytest

from opsproof.errors import Interrupted, OpsproofError
from opsproof.plugin.run import LOGGER, RUN
from opsproof.plugin.steps import procedure_of

RESTORED = ("backup", "location", "safety", "parked", "tables", "rows", "files_added", "files_repaired")
ROLLBACKS = ("schema_rollback", "data_rollback", "full_rollback")
ROLLED_BACK = ("kind", "safety", "safety_sha256", "parked")
PROPERTIES = ("id", "location", "bytes", "sha256", "tables", "rows", "files")


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show an error of ours as its message alone; the traceback goes to the log. Blot out every secret."""
    report = yield
    run = item.config.stash.get(RUN, None)
    if run is None:
        return report
    if call.excinfo is not None and report.failed:
        logging.getLogger(LOGGER).error("%s failed", item.nodeid, exc_info=call.excinfo.value)
        if isinstance(call.excinfo.value, (OpsproofError, Interrupted)):
            report.longrepr = f"{type(call.excinfo.value).__name__}: {call.excinfo.value}"
    if report.longrepr is not None and not report.skipped:
        text = str(report.longrepr)
        cleaned = run.redactor.clean(text)
        if cleaned != text:
            report.longrepr = cleaned
    report.sections = [(title, run.redactor.clean(text)) for title, text in report.sections]
    if procedure_of(item) is not None and report.when == "call":
        # On the item, not on this report: the JUnit XML takes them from the report of the teardown.
        item.user_properties.append(("seconds", round(call.duration, 3)))
        _add_outcome(item)
    return report


def _add_outcome(item: pytest.Item) -> None:
    _add_restored(item)
    _add_rolled_back(item)
    backup = item.funcargs.get("backup") if isinstance(item, pytest.Function) else None
    outcome = getattr(backup, "outcome", None)
    if outcome is None:
        return
    values = asdict(outcome)
    item.user_properties += [(f"backup_{name}", values[name]) for name in PROPERTIES]
    item.user_properties += [(f"seconds_{phase}", round(seconds, 3)) for phase, seconds in outcome.phases.items()]


def _add_rolled_back(item: pytest.Item) -> None:
    funcargs = item.funcargs if isinstance(item, pytest.Function) else {}
    outcome = next((found for name in ROLLBACKS if (found := getattr(funcargs.get(name), "rolled_back", None))), None)
    if outcome is None:
        return
    values = asdict(outcome)
    item.user_properties += [(f"rollback_{name}", values[name]) for name in ROLLED_BACK]
    item.user_properties += [(f"rollback_{name}", " ".join(values[name])) for name in ("before", "after", "undone")]
    item.user_properties += [(f"outage_{name}", round(seconds, 3)) for name, seconds in values["outage"].items()]
    item.user_properties += [(f"seconds_{phase}", round(seconds, 3)) for phase, seconds in outcome.phases.items()]


def _add_restored(item: pytest.Item) -> None:
    restore = item.funcargs.get("restore") if isinstance(item, pytest.Function) else None
    outcome = getattr(restore, "outcome", None)
    if outcome is None:
        return
    values = asdict(outcome)
    item.user_properties += [(f"restore_{name}", values[name]) for name in RESTORED]
    outage = values["outage"]
    item.user_properties += [(f"outage_{name}", round(seconds, 3)) for name, seconds in outage.items()]
    item.user_properties += [(f"seconds_{phase}", round(seconds, 3)) for phase, seconds in outcome.phases.items()]
