"""Looking over every process's shoulder: command lines of all, environments of those of other accounts."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from tests.lab.background import Background


class ProcessWatcher(Background):
    """Samples /proc for as long as the block lasts and keeps what holds one of some texts.

    Attributes:
        samples: How often it looked.
        seen: Names of programs that it saw, so that a test can tell that it looked at the right moment.
        found: The command lines and environments that hold a text.
    """

    def __init__(self, texts: Collection[str]) -> None:
        super().__init__()
        self.samples = 0
        self.seen: set[str] = set()
        self.found: set[str] = set()
        self._texts = [text.encode() for text in texts]

    def work(self) -> None:
        """Look at every process again and again."""
        while not self.is_over():
            self.samples += 1
            for process in Path("/proc").glob("[0-9]*"):
                self._look_at(process)

    def _look_at(self, process: Path) -> None:
        try:
            cmdline = (process / "cmdline").read_bytes()
            self.seen.add(cmdline.partition(b"\0")[0].rsplit(b"/", 1)[-1].decode(errors="replace"))
            shown = [cmdline]
            if process.stat().st_uid != os.geteuid():
                shown.append((process / "environ").read_bytes())
        except OSError:
            return  # it ended meanwhile, or this account may not look
        for text in shown:
            if any(secret in text for secret in self._texts):
                self.found.add(text.replace(b"\0", b" ").decode(errors="replace"))
