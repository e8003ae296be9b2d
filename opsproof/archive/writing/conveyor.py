"""What carries bytes from whoever pushes them to a thread of its own, which takes them one after the other."""

from __future__ import annotations

import queue
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from opsproof.errors import ArchiveError

PIECE_BYTES = 1 << 18


class Conveyor(ABC):
    """Carries bytes, in order, to a thread of its own; no more than a few pieces wait.

    What goes wrong there is raised by the next `write`, or by `finish`. One of `finish` and `abandon` must be called:
    either returns only when the thread has ended, so that nobody else uses what it works for meanwhile.

    Args:
        name: The thread's.
        waiting: How many pieces of 256 KiB may wait.
        stop: Makes the thread give up where it waits for somebody else.
    """

    def __init__(self, name: str, waiting: int, stop: Callable[[], None] = lambda: None) -> None:
        self._pieces: queue.Queue[bytes | None] = queue.Queue(waiting)
        self._stop = stop
        self._small: list[bytes] = []
        self._size = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    @abstractmethod
    def _work(self) -> None:
        """Take pieces until there is None, whatever goes wrong: whoever writes must never wait for nobody."""

    def write(self, data: bytes) -> None:
        """Hand bytes in.

        Raises:
            BaseException: What went wrong with earlier ones.
        """
        self._small.append(data)
        self._size += len(data)
        if self._size >= PIECE_BYTES:
            self._flush()

    def finish(self) -> None:
        """Return when everything has been taken.

        Raises:
            BaseException: What went wrong.
        """
        self._flush()
        self._end()
        self._require_wanted()

    def abandon(self) -> None:
        """Drop what waits, and return when the thread has ended; a later `write` raises."""
        if self._thread.is_alive():
            self._error = self._error or ArchiveError("It was given up")
            self._stop()
            self._end()

    def _flush(self) -> None:
        self._require_wanted()
        if self._small:
            self._pieces.put(b"".join(self._small))
            self._small, self._size = [], 0

    def _end(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def _require_wanted(self) -> None:
        if self._error is not None:
            raise self._error


C = TypeVar("C", bound=Conveyor)


@contextmanager
def conveying(conveyor: C) -> Iterator[C]:
    """Convey to what waits for nobody else; everything has been taken when the block ends."""
    try:
        yield conveyor
        conveyor.finish()
    finally:
        conveyor.abandon()
