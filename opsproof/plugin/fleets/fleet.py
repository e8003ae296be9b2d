"""A fleet: with `-n N` of pytest-xdist, N targets are worked on side by side, each by one worker, in order.

This is the side of the process that the workers report to. It loads the environment once for all of them, hands out
targets (`scheduling.py`), passes signals on and waits for every undo, and tells what became of a target whose worker
was killed. Registered only where there are workers; whether they have procedures to run turns out when the
first of them has collected, and until then, and where there are none, everything is as pytest-xdist has it.
"""

from __future__ import annotations

import os
import pickle
import queue
import secrets
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest

from opsproof.errors import OpsproofError
from opsproof.plugin.console import header_lines
from opsproof.plugin.fleets.loss import lost_reports
from opsproof.plugin.fleets.scheduling import Portion, TargetScheduling
from opsproof.plugin.fleets.worker import CAME_TO, CHANNEL, COLLECTED, STAMP, WARNED
from opsproof.plugin.interrupt import SIGNALS
from opsproof.plugin.options import read_options
from opsproof.plugin.run import RUN, SHARED, STAMP_FORMAT, VARIABLES, Run, Shared, begin_run, load_chosen
from opsproof.plugin.startup import ENVIRONMENT, READING
from opsproof.plugin.steps import PROGRESS, PROGRESSIONS, REFUSAL, Progression

if TYPE_CHECKING:  # an extra: without -n nothing of it is loaded
    from xdist.workermanage import WorkerController


@dataclass(frozen=True)
class Collected:
    """What a worker has told of its collection, see `opsproof.plugin.fleets.worker`."""

    process: int
    action: str
    targets: list[str]
    procedures: list[tuple[str, str, tuple[str, ...]]]


class Fleet:
    """The plugin: its hooks are those of pytest and pytest-xdist."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._collected: dict[str, Collected] = {}
        self._told: queue.SimpleQueue[tuple[str, dict[str, Any]]] = queue.SimpleQueue()
        self._packed: bytes | None = None
        self._scheduling: TargetScheduling | None = None
        self._alive: dict[str, int] = {}
        self._signalled = False
        stamp = f"{datetime.now(UTC):{STAMP_FORMAT}}_{secrets.token_hex(3)}"
        config.stash[SHARED] = Shared(stamp)

    def pytest_configure_node(self, node: WorkerController) -> None:
        """Give a worker what all of them share."""
        if not node.gateway.spec.popen:
            return
        channel = node.gateway.newchannel()
        channel.setcallback(lambda told: self._hear(node.gateway.id, told))
        node.workerinput[CHANNEL] = channel
        node.workerinput[STAMP] = self._config.stash[SHARED].stamp
        node.workerinput[ENVIRONMENT] = self._environment()

    def pytest_xdist_node_collection_finished(self, node: WorkerController) -> None:
        """Take over, once it is known that there are procedures to run."""
        collected = self._collected.get(node.gateway.id)
        if collected is None:
            return
        self._alive[node.gateway.id] = collected.process
        if self._scheduling is None:
            self._take_over(collected)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a test has begun."""
        if self._scheduling is not None:
            self._scheduling.mark_begun(nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note how far a procedure has come, and show what the workers had to say."""
        progress = getattr(report, PROGRESS, None)
        if progress is not None:
            key = (progress.pop("procedure"), progress.pop("target"))
            self._config.stash[PROGRESSIONS][key] = Progression(**progress)
        self._show_told()

    def pytest_testnodedown(self, node: WorkerController) -> None:
        """Forget a worker that has ended, and pass on why it refused; what it says itself nobody sees.

        Raises:
            pytest.UsageError: It refused.
        """
        self._alive.pop(node.gateway.id, None)
        refusal = getattr(node, "workeroutput", {}).get(REFUSAL)
        if refusal:
            raise pytest.UsageError(refusal)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Hear the last words, and put down which targets were not begun."""
        self._show_told()
        for target in self._scheduling.targets_waiting if self._scheduling is not None else ():
            self._note(target, f"{target} was not begun")

    def pytest_unconfigure(self) -> None:
        """Stay deaf until the process has ended, as `opsproof.plugin.interrupt` does."""
        if self._scheduling is not None:
            for number in SIGNALS:
                signal.signal(number, signal.SIG_IGN)

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Pass a signal on to the workers, which interrupt their steps and undo; begin nothing any more."""
        del frame
        name = signal.Signals(number).name
        session = self._config.pluginmanager.get_plugin("dsession")
        if self._scheduling is None or session is None:
            return
        self._scheduling.stop()
        at_work = ", ".join(self._scheduling.targets_at_work) or "no target"
        told = "undo is at work; it is not cut short" if self._signalled else f"interrupts {at_work}, and is undone"
        self._write(f"\n{name}: {told}")
        if not self._signalled:
            session.shouldstop = f"{name} arrived; what was begun is being undone"
        self._signalled = True
        for process in self._alive.values():
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM)

    def _environment(self) -> bytes | None:
        """Load the environment, once, where it is certain to be wanted: its inventory is being read already."""
        shared = self._config.stash[SHARED]
        if READING not in self._config.stash or self._packed is not None:
            return self._packed
        # A fault is found again by each worker, told by the first, and is none where there are no procedures.
        with suppress(OpsproofError):
            options = read_options(self._config, self._config.stash[VARIABLES].get("DRY_RUN", ""))
            environment = load_chosen(self._config, options, self._config.stash[READING].path)
            self._config.stash[SHARED] = replace(shared, environment=environment)
            self._packed = pickle.dumps(environment)
        return self._packed

    def _hear(self, worker: str, told: tuple[str, dict[str, Any]]) -> None:
        # Called by execnet's own thread: what is shown waits for the main one.
        word, content = told
        if word == COLLECTED:
            self._collected[worker] = Collected(**content)
        else:
            self._told.put(told)

    def _take_over(self, collected: Collected) -> None:
        session: Any = self._config.pluginmanager.get_plugin("dsession")
        for number in SIGNALS:
            signal.signal(number, self.handle)
        run = begin_run(self._config, collected.action)
        progressions = self._config.stash[PROGRESSIONS]
        for procedure, target, steps in collected.procedures:
            progressions[procedure, target] = Progression(tuple(steps))
        scheduling = TargetScheduling(collected.targets, self._lose, self._disown)
        # pytest-xdist asks for a scheduler before anybody knows what is collected: this one takes the place of that.
        for node in session.sched.nodes:
            scheduling.add_node(node)
        self._scheduling = session.sched = scheduling
        if self._config.option.verbose == 0:
            self._config.option.verbose = 1  # a line for each step
        for line in header_lines(run):
            self._write(line)

    def _lose(self, node: WorkerController, portion: Portion) -> None:
        """Tell what became of the steps that a worker had not come to the end of when it ended."""
        run = self._config.stash[RUN]
        names = [self._nodeid(index) for index in portion.indices if index not in portion.done]
        self._note(portion.target, f"The worker {node.gateway.id} ended while {names[0]} was running")
        self._note_loss(run, names[0], portion.target)
        for report in lost_reports(names, portion.target, node.gateway.id):
            report.node = node  # type: ignore[attr-defined]
            self._config.hook.pytest_runtest_logreport(report=report)

    def _note(self, target: str, message: str) -> None:
        journal = self._config.stash[RUN].journal
        journal.work_on("", target)
        journal.warn(message)
        self._write(f"WARNING: {message}")

    def _note_loss(self, run: Run, nodeid: str, target: str) -> None:
        step = nodeid.rpartition("::")[2].partition("[")[0]
        for (procedure, name), progression in self._config.stash[PROGRESSIONS].items():
            unfinished = len(progression.passed) < len(progression.steps)
            if name == target and unfinished and not progression.stopped_by:
                progression.stopped_by = f"step {step} did not pass"
                run.journal.record(
                    "step",
                    procedure=procedure,
                    target=target,
                    step=step,
                    when="call",
                    outcome="failed",
                    error="the worker process ended",
                )
                return

    def _disown(self, node: WorkerController) -> None:
        text = f"The worker {node.gateway.id} has collected other tests than the first one"
        report = pytest.CollectReport(nodeid=node.gateway.id, outcome="failed", longrepr=text, result=[])
        self._config.hook.pytest_collectreport(report=report)

    def _nodeid(self, index: int) -> str:
        return self._scheduling.nodeid(index) if self._scheduling is not None else ""

    def _show_told(self) -> None:
        for word, content in self._heard():
            if word == CAME_TO:
                self._config.stash[RUN].told[content["target"]] = content["lines"]
            elif word == WARNED:
                self._write(content["line"])

    def _heard(self) -> Iterator[tuple[str, dict[str, Any]]]:
        with suppress(queue.Empty):
            while True:
                yield self._told.get_nowait()

    def _write(self, line: str) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(line)


def pytest_configure(config: pytest.Config) -> None:
    """Be there, where there are workers."""
    config.pluginmanager.register(Fleet(config), "opsproof-fleet")
