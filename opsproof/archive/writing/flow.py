"""Between two callers who only push: a transformation that pulls and pushes by itself, in a thread of its own."""

from __future__ import annotations

import queue
from collections.abc import Callable
from typing import Any

from opsproof.archive.writing.conveyor import PIECE_BYTES, Conveyor

PIECES_WAITING = 16


class Flow(Conveyor):
    """Pushes bytes through a transformation that pulls and pushes by itself; at most 4 MiB wait.

    A receiver that waits has to be made to give up before `abandon`.

    Args:
        transform: Reads from its first argument to the end, and writes to its second.
        receiver: Takes what comes out, in that thread.
        explain: Makes of an exception of the transformation what is raised.
        gather: Bytes that the receiver gets at once, at least.
    """

    def __init__(
        self,
        transform: Callable[[Any, Any], None],
        receiver: Callable[[bytes], object],
        explain: Callable[[Exception], BaseException],
        gather: int = PIECE_BYTES,
    ) -> None:
        super().__init__("age", PIECES_WAITING)
        self._transform = transform
        self._explain = explain
        self._inlet = _Inlet(self._pieces, self._require_wanted)
        self._outlet = _Outlet(receiver, gather)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._transform(self._inlet, self._outlet)
            self._outlet.finish()
        except BaseException as error:  # raised again where `write` is called
            # The library wraps what its file objects raise into words of its own.
            own = self._error or self._outlet.error
            self._error = own or (self._explain(error) if isinstance(error, Exception) else error)
        # The rest is taken and dropped.
        self._inlet.drain()


class _Inlet:
    """What the transformation reads from."""

    def __init__(self, pieces: queue.Queue[bytes | None], require_wanted: Callable[[], None]) -> None:
        self._pieces = pieces
        self._require_wanted = require_wanted
        self._left = memoryview(b"")
        self._ended = False

    def read(self, size: int) -> bytes:
        while not self._left and not self._ended:
            self._take()
        self._require_wanted()
        data, self._left = bytes(self._left[:size]), self._left[size:]
        return data

    def drain(self) -> None:
        self._left = memoryview(b"")
        while not self._ended:
            self._take()

    def _take(self) -> None:
        piece = self._pieces.get()
        self._ended = piece is None
        self._left = memoryview(piece or b"")


class _Outlet:
    """What the transformation writes to: few big pieces are made of many small ones."""

    def __init__(self, receiver: Callable[[bytes], object], gather: int) -> None:
        self._receiver = receiver
        self._gather = gather
        self._gathered = bytearray()
        self.error: BaseException | None = None

    def write(self, data: bytes) -> int:
        self._gathered += data
        if len(self._gathered) >= self._gather:
            self._hand_on()
        return len(data)

    def flush(self) -> None:
        """Do nothing: what was gathered is handed on when there is enough of it."""

    def finish(self) -> None:
        if self._gathered:
            self._hand_on()

    def _hand_on(self) -> None:
        data, self._gathered = bytes(self._gathered), bytearray()
        try:
            self._receiver(data)
        except BaseException as error:
            self.error = error
            raise
