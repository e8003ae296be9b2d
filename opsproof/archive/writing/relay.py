"""A second pair of hands: what writes a bundle goes on while what takes it hashes and sends.

Both sides spend their time outside Python's lock (hashing, reading, sending), so two threads use two cores.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opsproof.errors import ArchiveError

PIECE_BYTES = 1 << 18
PIECES_WAITING = 32


class Relay:
    """Hands bytes on, in order, from a thread of its own; at most 8 MiB wait.

    An error of the receiver is raised by the next `write`, or by `finish`. One of `finish` and `abandon` must be
    called: either returns only when the thread has ended, so that nobody else uses the receiver meanwhile.

    Args:
        receiver: Takes the bytes.
        stop: Makes a receiver that waits give up.
    """

    def __init__(self, receiver: Callable[[bytes], object], stop: Callable[[], None]) -> None:
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

    def abandon(self) -> None:
        """Drop what waits, make the receiver give up, and return when it has; a later `write` raises."""
        if self._thread.is_alive():
            self._error = self._error or ArchiveError("The bundle was given up")
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


@contextmanager
def relaying(receiver: Callable[[bytes], object]) -> Iterator[Relay]:
    """Relay to a receiver that waits for nobody else; it has taken everything when the block ends."""
    relay = Relay(receiver, lambda: None)
    try:
        yield relay
        relay.finish()
    finally:
        relay.abandon()
