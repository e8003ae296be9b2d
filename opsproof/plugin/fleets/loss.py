"""A target whose worker was killed: the reports of the steps that it did not come to the end of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest


def lost_reports(nodeids: Sequence[str], target: str, worker: str) -> Iterator[pytest.TestReport]:
    """Yield the reports that the worker would have made: the first step has failed, the others are skipped.

    Args:
        nodeids: The steps, in order, from the one on in which the worker ended.
        target: The target that they are about; empty for none.
        worker: The worker's name.
    """
    first, *others = nodeids
    step = first.rpartition("::")[2].partition("[")[0]
    whose = f"{step} of {target}" if target else first
    message = (
        f"The worker of {whose} ended in the middle of it\n"
        "  expected: a worker that lives until its target is done\n"
        f"  found:    {worker} was killed, or crashed: out of memory? (dmesg)\n"
        "  kept:     nothing was undone, and nothing is begun again; other targets go on\n"
        "  hint:     run the action again, for this target alone: it clears away what is left, or says how; after a"
        " restore, a rollback or a deploy: pytest actions/test_recover.py --env=NAME"
        + (f" --target={target}" if target else "")
    )
    yield _report(first, "call", "failed", message)
    yield _report(first, "teardown", "passed", None)
    for nodeid in others:
        yield _report(nodeid, "setup", "skipped", (nodeid.partition("::")[0], 0, f"Skipped: step {step} did not pass"))
        yield _report(nodeid, "teardown", "passed", None)


def _report(nodeid: str, when: str, outcome: str, longrepr: str | tuple[str, int, str] | None) -> pytest.TestReport:
    path, _, name = nodeid.partition("::")
    return pytest.TestReport(
        nodeid=nodeid,
        location=(path, None, name.replace("::", ".")),
        keywords={},
        outcome=outcome,  # type: ignore[arg-type]
        longrepr=longrepr,
        when=when,  # type: ignore[arg-type]
    )
