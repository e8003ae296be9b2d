"""SIGTERM and Ctrl-C while a procedure runs: the step fails, what it began is undone, the reports are written.

Python's default on SIGTERM ends the process on the spot, without any undo. Here the first signal raises in the step
that is running; from then on, and whenever an undo is at work, further signals only say that it is.

A step that takes longer than it may is interrupted in the same way, but by a timer, and only this target's run ends.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from types import FrameType

import pytest

from opsproof.errors import Interrupted
from opsproof.plugin.run import RUN
from opsproof.plugin.steps import PROGRESSIONS, procedure_of
from opsproof.system.hosts.undivided import interrupt

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StepTimeout(Interrupted):
    """A step took longer than it may."""

    def __init__(self, step: str, target: str, seconds: float) -> None:
        super().__init__(
            f"{step} of {target} took longer than it may\n"
            f"  expected: at most {seconds:g} s\n"
            f"  found:    it was still at work after {seconds:g} s, and was interrupted\n"
            "  kept:     what this run had begun is undone; other targets go on\n"
            f"  hint:     find what it waited for in the log; a step that needs longer: step_timeout of {target} in"
            " the inventory, or --step-timeout=SECONDS"
        )


class Interruption:
    """The signal handler of a session.

    Attributes:
        in_step: A step's own code is running, which may be interrupted.
        signalled: A signal has arrived.
    """

    def __init__(self, session: pytest.Session) -> None:
        self.in_step = False
        self._session = session
        self.signalled = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Interrupt the step, once."""
        del frame
        name = signal.Signals(number).name
        reporter = self._session.config.pluginmanager.get_plugin("terminalreporter")
        if self.signalled or not self.in_step:
            if reporter is not None:
                reporter.write_line(f"\n{name}: undo is at work; it is not cut short")
            self._session.shouldfail = self._session.shouldfail or f"{name} arrived"
            self.signalled = True
            return
        self.signalled = True
        self._session.shouldfail = f"{name} arrived; what was begun is being undone"
        interrupt(Interrupted(f"{name} arrived while this step was running"))

    @contextmanager
    def limited(self, step: str, target: str, seconds: float) -> Iterator[None]:
        """Interrupt the step that the block is if it takes longer than this.

        Args:
            step: Its name, for the error.
            target: The target's.
            seconds: The most that it may take.

        Raises:
            StepTimeout: It took longer.
        """
        deadline = time.monotonic() + seconds

        def expire(number: int, frame: FrameType | None) -> None:
            del number, frame
            # An alarm may be anybody's, and one that comes after the signal finds the undo at work.
            if self.in_step and not self.signalled and time.monotonic() >= deadline:
                interrupt(StepTimeout(step, target, seconds))

        before = signal.signal(signal.SIGALRM, expire)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


INTERRUPTION = pytest.StashKey[Interruption]()


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Handle the signals for as long as steps run."""
    if not session.config.stash[PROGRESSIONS]:
        return (yield)
    interruption = Interruption(session)
    session.config.stash[INTERRUPTION] = interruption
    for number in SIGNALS:
        signal.signal(number, interruption.handle)
    # Not put back: the undo of the last step runs after this loop, and must not be cut short either.
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Let a signal interrupt a step's own code, and only that."""
    interruption = item.config.stash.get(INTERRUPTION, None)
    if interruption is None:
        return (yield)
    key = procedure_of(item)
    if key is None:
        with _interruptible(interruption):
            return (yield)
    run = item.config.stash[RUN]
    seconds = run.options.step_timeout or run.target(key[1]).step_timeout
    step = item.function.__name__  # type: ignore[attr-defined]
    with interruption.limited(step, key[1], seconds), _interruptible(interruption):
        return (yield)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stay deaf until the process has ended.

    While it ends, Python would put the default back, and a signal would make the exit status its own: of a procedure
    that is finished, or of one that was undone, which has told how it ended.
    """
    if config.stash.get(INTERRUPTION, None) is not None:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


@contextmanager
def _interruptible(interruption: Interruption) -> Iterator[None]:
    interruption.in_step = True
    try:
        yield
    finally:
        interruption.in_step = False
