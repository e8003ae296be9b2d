"""Moments that no signal cuts in two.

A signal may raise between any two instructions: also where a process has been started and nobody holds it yet, who
could end it. It would run on beside the undo, and write where the undo has just cleared away.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from opsproof.errors import Interrupted


@dataclass
class _Moments:
    depth: int = 0
    waiting: Interrupted | None = None


_MOMENTS = _Moments()


@contextmanager
def undivided() -> Iterator[None]:
    """Run a block whole; what was to interrupt it meanwhile does so at its end. For short blocks only.

    Raises:
        Interrupted: A signal has arrived.
    """
    # Only the main thread is ever interrupted.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _MOMENTS.depth += 1
    try:
        yield
    finally:
        _MOMENTS.depth -= 1
        if _MOMENTS.depth == 0 and _MOMENTS.waiting is not None:
            interruption, _MOMENTS.waiting = _MOMENTS.waiting, None
            raise interruption


def interrupt(interruption: Interrupted) -> None:
    """Interrupt the main thread, from a signal's handler: now, or at the end of what may not be cut.

    Raises:
        Interrupted: Now.
    """
    if _MOMENTS.depth == 0:
        raise interruption
    _MOMENTS.waiting = interruption
