"""Doing something at the right moment of something else that is going on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

POLL_SECONDS = 0.001


@contextmanager
def at_the_moment(ready: Callable[[], bool], act: Callable[[], object]) -> Iterator[None]:
    """Act once, from a thread of its own, as soon as it is ready, however short the block's work is.

    Raises:
        AssertionError: The block ended before it was ready.
    """
    stop = threading.Event()
    done: list[object] = []
    failed: list[BaseException] = []

    def wait() -> None:
        try:
            while not stop.wait(POLL_SECONDS):
                if ready():
                    done.append(act())
                    return
        except BaseException as error:  # raised again where the block ends
            failed.append(error)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(30)
    if failed:
        raise failed[0]
    assert done, "it was over before the moment came"
