"""A second pair of hands: what writes a bundle goes on while what takes it hashes and sends.

Both sides spend their time outside Python's lock (hashing, reading, sending), so two threads use two cores.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

PIECE_BYTES = 1 << 18
PIECES_WAITING = 32


class Relay:
    """Hands bytes on, in order, from a thread of its own; at most 8 MiB wait.

    Leaving the block waits until the thread has ended, so that nobody else uses the receiver meanwhile; an error of the
    receiver is raised by the next `write`, or by `finish`.

    Args:
        receiver: Takes the bytes.
        stop: Makes a receiver that waits give up; called when the block is left by an error.
    """

    def __init__(self, receiver: Callable[[bytes], None], stop: Callable[[], None]) -> None:
        self._receiver = receiver
        self._stop = stop
        self._pieces: queue.Queue[bytes | None] = queue.Queue(PIECES_WAITING)
        self._small: list[bytes] = []
        self._size = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="relay", daemon=True)
        self._thread.start()

    def write(self, data: bytes) -> None:
        """Hand bytes on.

        Raises:
            BaseException: What the receiver raised on earlier ones.
        """
        self._small.append(data)
        self._size += len(data)
        if self._size >= PIECE_BYTES:
            self._flush()

    def finish(self) -> None:
        """Return when the receiver has taken everything.

        Raises:
            BaseException: What it raised.
        """
        self._flush()
        self._end()
        if self._error is not None:
            raise self._error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self._error = self._error or error  # what waits still is dropped, not sent
            self._stop()
        self._end()

    def _flush(self) -> None:
        if self._error is not None:
            raise self._error
        if self._small:
            self._pieces.put(b"".join(self._small))
            self._small, self._size = [], 0

    def _end(self) -> None:
        if self._thread.is_alive():
            self._pieces.put(None)
            self._thread.join()

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            # After an error the rest is taken and dropped: whoever writes must never wait for nobody.
            if self._error is None:
                try:
                    self._receiver(piece)
                except BaseException as error:  # raised again where `write` is called
                    self._error = error
