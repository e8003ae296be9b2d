"""Waiting for what is bound to happen."""

from __future__ import annotations

import time
from collections.abc import Callable


def await_true(happened: Callable[[], bool], otherwise: str, seconds: float = 10.0) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: It is not, in its time.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.005)
