"""A worker of pytest-xdist that runs procedures: what it tells the process that it reports to, besides the reports.

It tells once which target each test is about and under which process id it can be signalled; at the end of each target
what that came to; and warnings at once. Journal and log it writes itself, see `opsproof.plugin.logbook`.
"""

from __future__ import annotations

import logging
import os
import pickle
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from opsproof.plugin.console import summary_of
from opsproof.plugin.run import LOGGER, RUN, SHARED, Shared
from opsproof.plugin.startup import ENVIRONMENT
from opsproof.plugin.steps import REFUSAL, TARGET, action_name, procedure_of, steps_of

# What the worker is given, besides the environment.
CHANNEL = "opsproof_channel"
STAMP = "opsproof_stamp"

# What the worker tells.
COLLECTED = "collected"
CAME_TO = "came to"
WARNED = "warned"


@dataclass
class Worker:
    """What this process is to its fleet.

    Attributes:
        channel: execnet's, to the process that this one reports to; None where this is another machine than that's.
        is_known: It has told what it collected, and gets work a target at a time.
        ran: The tests that were run, none of which is run again.
        untold: The targets that it has begun and not told the end of.
    """

    channel: Any
    is_known: bool = False
    ran: set[pytest.Item] = field(default_factory=set)
    untold: list[str] = field(default_factory=list)

    def tell(self, word: str, **content: Any) -> None:
        """Send something to the process that this one reports to; that may be gone, and then nobody listens."""
        with suppress(OSError):
            self.channel.send((word, content))


class ToldWarnings(logging.Handler):
    """Passes the log's warnings on, for people to see."""

    def __init__(self, worker: Worker) -> None:
        super().__init__(logging.WARNING)
        self._worker = worker

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one on, but not the tracebacks, which the log file has."""
        if record.exc_info is None:
            self._worker.tell(WARNED, line=f"{record.levelname}: {record.getMessage()}")


WORKER = pytest.StashKey[Worker]()


def pytest_configure(config: pytest.Config) -> None:
    """Take what all workers are given."""
    given: dict[str, Any] = config.workerinput  # type: ignore[attr-defined]
    config.stash[WORKER] = Worker(given.get(CHANNEL))
    if CHANNEL in given:
        packed = given[ENVIRONMENT]
        # Packed by the very process that started this one, and handed over by its own pipe.
        environment = pickle.loads(packed) if packed is not None else None  # noqa: S301
        config.stash[SHARED] = Shared(given[STAMP], given["workerid"], environment)


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist tells the names of what was collected
def pytest_collection_finish(session: pytest.Session) -> None:
    """Tell which target each test is about.

    Raises:
        pytest.UsageError: This is another machine than the one that was told to run procedures.
    """
    config = session.config
    worker, run = config.stash[WORKER], config.stash.get(RUN, None)
    procedures = {key: steps_of(item) for item in session.items if (key := procedure_of(item))}
    if run is None or not procedures:
        return
    if worker.channel is None:
        refusal = (
            "Procedures run in workers of this machine only\n"
            "  expected: -n N\n"
            "  found:    a worker of pytest-xdist that --tx has put elsewhere\n"
            "  kept:     nothing was run\n"
            "  hint:     leave out --tx; for more machines than one, `--list-targets --json` feeds a CI matrix"
        )
        config.workeroutput[REFUSAL] = refusal  # type: ignore[attr-defined]
        raise pytest.UsageError(refusal)
    worker.tell(
        COLLECTED,
        process=os.getpid(),
        action=next(action_name(item.module.__name__) for item in session.items if procedure_of(item)),  # type: ignore[attr-defined]
        targets=[target_of(item) for item in session.items],
        procedures=[(*key, steps) for key, steps in procedures.items()],
    )
    worker.is_known = True
    logging.getLogger(LOGGER).addHandler(ToldWarnings(worker))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """Run no test twice; and with the last of a target's, which the baton follows, undo what is to be undone."""
    worker = item.config.stash[WORKER]
    if not worker.is_known:
        return None
    if item in worker.ran:
        return True
    target = target_of(item)
    if target and target not in worker.untold:
        worker.untold.append(target)
    if nextitem is not item:
        worker.ran.add(item)
        return None
    item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
    _tell_ends(worker, item.config)
    return True


@pytest.hookimpl(trylast=True)  # after the undo of what was cut short
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the end of a target that was cut short."""
    _tell_ends(session.config.stash[WORKER], session.config)


def _tell_ends(worker: Worker, config: pytest.Config) -> None:
    for target in worker.untold:
        run = config.stash[RUN]
        worker.tell(CAME_TO, target=target, lines=[run.redactor.clean(line) for line in summary_of(run, target)])
    worker.untold.clear()


def target_of(item: pytest.Item) -> str:
    """Return the target that a test is about; empty for none."""
    key = procedure_of(item)
    if key is not None:
        return key[1]
    callspec = getattr(item, "callspec", None)
    name = callspec.params.get(TARGET) if callspec is not None else None
    run = item.config.stash.get(RUN, None)
    names = {target.name for target in run.environment.targets} if run is not None else set()
    return name if isinstance(name, str) and name in names else ""
