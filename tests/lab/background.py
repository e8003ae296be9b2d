"""Work that goes on in a thread of its own for as long as a block lasts."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Background(ABC):
    """Goes on until the block ends; what goes wrong in it is raised there.

    Attributes:
        pause: Seconds between two rounds of work.
    """

    pause = 0.002

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error: Exception | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        if self._error is not None:
            raise self._error

    @abstractmethod
    def work(self) -> None:
        """Work until `is_over`."""

    def is_over(self) -> bool:
        """Wait for the pause, and tell whether the block has ended."""
        return self._stop.wait(self.pause)

    def _run(self) -> None:
        try:
            self.work()
        except Exception as error:
            self._error = error
