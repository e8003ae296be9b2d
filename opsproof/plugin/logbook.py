"""The journal and the log of a run: one of each, whichever of its processes writes them.

A line is one write to a file that is opened for appending, so that the lines of several processes stand whole, one
after the other.
"""

from __future__ import annotations

import itertools
import logging
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsproof.journal import Journal, Redactor, open_private

LOG_FORMAT = "%(asctime)s %(levelname)-8s %(message)s"


class TargetJournal(Journal):
    """A journal that says in each line which target it is about.

    Args:
        path: As of `Journal`.
        redactor: As of `Journal`.
        shared: Other processes write the file too: it may be there already.
        worker: The worker of pytest-xdist that writes; empty for a run's own process.

    Attributes:
        target: The target that is being worked on; empty for none.
        is_shared: As given.
    """

    def __init__(
        self, path: Path | None = None, redactor: Redactor | None = None, *, shared: bool = False, worker: str = ""
    ) -> None:
        super().__init__(None if shared else path, redactor)
        self.path = path
        if shared and path is not None:
            self._file = open_private(path)
        self.target = ""
        self.is_shared = shared
        self._worker = worker
        self._procedure = ""

    def work_on(self, procedure: str, target: str) -> None:
        """Note what is being worked on; of another one than before, phases are timed from the beginning."""
        if (procedure, target) != (self._procedure, self.target):
            self._procedure, self.target = procedure, target
            self.phases.clear()

    def record(self, event: str, /, **fields: Any) -> None:
        """Write one event, with the target that is being worked on, and the worker where there are several."""
        known = {"target": self.target, "worker": self._worker}
        super().record(
            event, **{name: value for name, value in known.items() if value and name not in fields}, **fields
        )


class PrivateLog(logging.Handler):
    """The run's log file: mode 0600, without secrets."""

    def __init__(self, path: Path, journal: TargetJournal) -> None:
        super().__init__()
        self._file = open_private(path)
        self._journal = journal
        self.setFormatter(logging.Formatter(LOG_FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, all of its lines at once."""
        try:
            os.write(self._file, f"{self.format(record)}\n".encode(errors="replace"))
        except (OSError, ValueError, TypeError):
            self.handleError(record)

    def format(self, record: logging.LogRecord) -> str:
        """Return the lines, cleaned; where several targets are worked on side by side, each line names its own."""
        text = self._journal.redactor.clean(super().format(record))
        if not self._journal.is_shared:
            return text
        return "\n".join(f"[{self._journal.target or '-'}] {line}" for line in text.split("\n"))

    def close(self) -> None:
        """Close the file."""
        super().close()
        os.close(self._file)


@dataclass(frozen=True)
class Logbook:
    """A run's journal, and the path of its log."""

    journal: TargetJournal
    log: Path


def open_logbook(folder: Path, stem: str, redactor: Redactor) -> Logbook:
    """Begin the journal and the log of a run; a second run within the same second gets a suffix.

    Raises:
        ConfigurationError: The folder cannot be written.
    """
    for number in itertools.count(1):
        name = stem if number == 1 else f"{stem}_{number}"
        # Not Path.with_suffix: an environment's name may have a dot in it.
        with suppress(FileExistsError):
            return Logbook(TargetJournal(folder / f"{name}.jsonl", redactor), folder / f"{name}.log")
    raise AssertionError("unreachable")


def join_logbook(folder: Path, stem: str, redactor: Redactor, worker: str) -> Logbook:
    """Write on in the journal and the log that the processes of a fleet share, whoever of them comes first.

    Raises:
        ConfigurationError: The folder cannot be written.
    """
    journal = TargetJournal(folder / f"{stem}.jsonl", redactor, shared=True, worker=worker)
    return Logbook(journal, folder / f"{stem}.log")
