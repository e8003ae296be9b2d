"""What happened: one JSON line per event, with timings, and with every known secret blotted out.

A line is handed to the kernel as soon as it is written, so the journal of a run that is killed ends with the last
thing that the run did. Each line holds the SHA-256 of the one before it (`opsproof.chain`):

    python -m opsproof.journal verify FILE
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, quote_plus

from opsproof.chain import FIRST, LINK, command, link_of
from opsproof.errors import ConfigurationError

BLOT = "***"
SHORTEST_SECRET = 4
TAIL_BYTES = 1 << 16
PERCENT_CODE = re.compile("%[0-9A-F]{2}")


class Redactor:
    """Blots out secrets, as they are and as URL, JSON or repr would write them."""

    def __init__(self) -> None:
        self._forms: list[str] = []

    def add(self, secret: str) -> None:
        """Learn one secret. Shorter than four characters is not blotted out: every other word would be."""
        if len(secret) < SHORTEST_SECRET:
            return
        encoded = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
        forms = {secret, *encoded, *(PERCENT_CODE.sub(lambda code: code[0].lower(), form) for form in encoded)}
        # Twice: an event is written as JSON, and what it quotes may have been JSON or a repr before.
        for _ in range(2):
            forms |= {escaped for form in forms for escaped in _escape(form)}
        # Longest first, so that no form leaves the tail of a longer one standing.
        self._forms = sorted({*self._forms, *forms}, key=len, reverse=True)

    def clean(self, text: str) -> str:
        """Return the text with every known secret replaced."""
        for form in self._forms:
            text = text.replace(form, BLOT)
        return text


@dataclass(frozen=True)
class Progress:
    """How far a long step has come. `total` is None where nobody can know it beforehand."""

    phase: str
    doing: str
    done: int
    total: int | None
    seconds: float


class Journal:
    """Writes events to a file, to the log, and progress to whoever listens.

    Args:
        path: The file, made with mode 0600 in a folder of 0700, and new; None keeps nothing (a test, or a listing).
        redactor: What may not be written.
    """

    def __init__(self, path: Path | None = None, redactor: Redactor | None = None) -> None:
        self.path = path
        self.redactor = redactor or Redactor()
        self.phases: dict[str, float] = {}
        self._listeners: list[Callable[[Progress], None]] = []
        self._log = logging.getLogger("opsproof")
        self._file = None if path is None else open_private(path, new=True)
        self._head, self._size = FIRST, 0
        self._lock = threading.RLock()

    def record(self, event: str, /, **fields: Any) -> None:
        """Write one event; the fields are what JSON can hold, anything else by its `str`."""
        if self._file is None:
            return
        # Several threads and processes may write the same file: each line follows the one before, whoever wrote that.
        with self._lock:
            fcntl.flock(self._file, fcntl.LOCK_EX)
            try:
                self._append(self._file, {"time": datetime.now(UTC).isoformat(), "event": event, **fields})
            finally:
                fcntl.flock(self._file, fcntl.LOCK_UN)

    def _append(self, file: int, event: dict[str, Any]) -> None:
        size = os.fstat(file).st_size
        if size != self._size:
            self._head = _head_of(file, size)
        text = self.redactor.clean(json.dumps(event, default=_plain, ensure_ascii=False))
        # After the cleaning, which must not take the link for a secret. A file name that is no UTF-8 must not stop the
        # run that wanted to mention it.
        line = f'{text[:-1]}, "{LINK}": "{self._head}"}}\n'.encode(errors="replace")
        os.write(file, line)
        self._head, self._size = link_of(line), size + len(line)

    @property
    def head(self) -> str:
        """Return the link of the last line that was written, by whichever process; empty where nothing is kept."""
        if self._file is None:
            return ""
        size = os.fstat(self._file).st_size
        return self._head if size == self._size else _head_of(self._file, size)

    def info(self, message: str, /, **fields: Any) -> None:
        """Write an event that people should also see as a line of the log."""
        self.record("info", message=message, **fields)
        self._log.info("%s", message)

    def warn(self, message: str, /, **fields: Any) -> None:
        """Write an event that people should notice."""
        self.record("warning", message=message, **fields)
        self._log.warning("%s", message)

    @contextmanager
    def phase(self, name: str, /, **fields: Any) -> Iterator[None]:
        """Time a part of the work: an event when it begins, one when it ends and how."""
        self.record("phase begins", phase=name, **fields)
        started = time.monotonic()
        outcome = "failed"
        try:
            yield
            outcome = "done"
        finally:
            seconds = time.monotonic() - started
            self.phases[name] = self.phases.get(name, 0.0) + seconds
            self.record("phase ends", phase=name, outcome=outcome, seconds=round(seconds, 3), **fields)
            self._log.info("%s %s after %.1f s", name, outcome, seconds)

    def listen(self, listener: Callable[[Progress], None]) -> None:
        """Call `listener` with every progress report from now on."""
        self._listeners.append(listener)

    def report(self, progress: Progress) -> None:
        """Pass progress on to the listeners; it is not written down."""
        for listener in self._listeners:
            listener(progress)

    def close(self) -> None:
        """Close the file; later events go nowhere."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def open_private(path: Path, *, new: bool = False) -> int:
    """Open a file for appending that only its owner can read, in a folder that only its owner can enter.

    Args:
        path: The file.
        new: It must not be there yet.

    Raises:
        FileExistsError: It is there, but should be new.
        ConfigurationError: The folder or the file cannot be written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        exclusive = os.O_EXCL if new else 0
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | exclusive, 0o600)
    except OSError as error:
        if new and path.exists():
            raise
        raise ConfigurationError(
            f"The journal cannot be written: {error.strerror}",
            expected=f"a folder that can be written: {path.parent}",
            found=str(error),
            hint="give another folder with --logs=DIR",
        ) from error


def _escape(text: str) -> Iterator[str]:
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    yield repr(text)[1:-1]


def _plain(value: object) -> object:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else str(value)


def _head_of(file: int, size: int) -> str:
    """Return the link of the last line of a file."""
    tail, start = b"", size
    while start and b"\n" not in tail[:-1]:
        begin = max(0, start - TAIL_BYTES)
        tail = os.pread(file, start - begin, begin) + tail
        start = begin
    last = tail.removesuffix(b"\n").rpartition(b"\n")[2]
    return link_of(last) if tail else FIRST


if __name__ == "__main__":
    sys.exit(command(sys.argv[1:]))
