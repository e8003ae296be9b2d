"""A second pair of hands: what writes a bundle goes on while what takes it hashes and sends.

Both sides spend their time outside Python's lock (hashing, reading, sending), so two threads use two cores.
"""

from __future__ import annotations

from collections.abc import Callable

from opsproof.archive.writing.conveyor import Conveyor

PIECES_WAITING = 32


class Relay(Conveyor):
    """Hands bytes on, in order, from a thread of its own; at most 8 MiB wait.

    Args:
        receiver: Takes the bytes.
        stop: Makes a receiver that waits give up.
    """

    def __init__(self, receiver: Callable[[bytes], object], stop: Callable[[], None] = lambda: None) -> None:
        super().__init__("relay", PIECES_WAITING, stop)
        self._receiver = receiver
        self._thread.start()

    def _work(self) -> None:
        while (piece := self._pieces.get()) is not None:
            # After an error the rest is taken and dropped.
            if self._error is None:
                try:
                    self._receiver(piece)
                except BaseException as error:  # raised again where `write` is called
                    self._error = error
