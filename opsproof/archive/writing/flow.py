"""Between two callers who only push: a transformation that pulls and pushes by itself, in a thread of its own."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from opsproof.errors import ArchiveError

PIECE_BYTES = 1 << 18
PIECES_WAITING = 16


class Flow:
    """Pushes bytes through a transformation that pulls and pushes by itself; at most 8 MiB wait.

    An error of the transformation or of the receiver is raised by the next `write`, or by `finish`. One of `finish` and
    `abandon` must be called: either returns only when the thread has ended.

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
        self._transform = transform
        self._explain = explain
        self._pieces: queue.Queue[bytes | None] = queue.Queue(PIECES_WAITING)
        self._small: list[bytes] = []
        self._size = 0
        self._error: BaseException | None = None
        self._inlet = _Inlet(self._pieces, self._require_wanted)
        self._outlet = _Outlet(receiver, gather)
        self._thread = threading.Thread(target=self._work, name="age", daemon=True)
        self._thread.start()

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
        """Return when the receiver has taken everything.

        Raises:
            BaseException: What went wrong.
        """
        self._flush()
        self._end()
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Drop what waits, and return when the thread has ended; a later `write` raises.

        A receiver that waits has to be made to give up before.
        """
        if self._thread.is_alive():
            self._error = self._error or ArchiveError("It was given up")
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

    def _require_wanted(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            self._transform(self._inlet, self._outlet)
            self._outlet.finish()
        except BaseException as error:  # raised again where `write` is called
            # The library wraps what its file objects raise into words of its own.
            own = self._error or self._outlet.error
            self._error = own or (self._explain(error) if isinstance(error, Exception) else error)
        # The rest is taken and dropped: whoever writes must never wait for nobody.
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


@contextmanager
def flowing(flow: Flow) -> Iterator[Flow]:
    """Let it flow to a receiver that waits for nobody else; everything has come out when the block ends."""
    try:
        yield flow
        flow.finish()
    finally:
        flow.abandon()
