"""The files of a folder on a host, streamed from there: what `files_agent.py` writes, read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import CommandFailed
from opsproof.system import files_agent
from opsproof.system.host import Host
from opsproof.system.pipe import Pipe


@dataclass(frozen=True)
class FarFile:
    """A file of the folder: its path below it, its bytes, and a symbolic link's target."""

    path: str
    size: int
    link: str | None


def stream_files(host: Host, folder: str) -> Iterator[tuple[FarFile, Iterator[bytes]]]:
    """Yield every file below a folder and its content, which must be read before the next; sorted by name.

    Raises:
        CommandFailed: A file cannot be read, or the stream ended too early.
        HostError: The host cannot be reached, or has no python3.
    """
    text = Path(files_agent.__file__).read_text(encoding="utf-8")
    with host.pipe("python3", "-ISc", text, folder) as pipe:
        reader = _Reader(pipe)
        while True:
            head = json.loads(reader.line())
            if "error" in head:
                raise CommandFailed("a file cannot be read", found=head["error"])
            if "end" in head:
                break
            content = reader.pieces()
            yield FarFile(head["path"], head["size"], head["link"]), content
            for _ in content:
                pass  # what the caller did not want to see
        pipe.finish()


class _Reader:
    """The output of a pipe, in lines and pieces."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self._held = bytearray()

    def line(self) -> bytes:
        """Return the next line, without its end."""
        while (end := self._held.find(b"\n")) < 0:
            self._fill()
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        return line

    def pieces(self) -> Iterator[bytes]:
        """Yield the pieces of one file."""
        while True:
            (size,) = struct.unpack(">I", self._take(4))
            if not size:
                return
            yield self._take(size)

    def _take(self, size: int) -> bytes:
        while len(self._held) < size:
            self._fill()
        piece = bytes(self._held[:size])
        del self._held[:size]
        return piece

    def _fill(self) -> None:
        data = self._pipe.read()
        if not data:
            # Its exit status, or its last words, tell more than that it ended.
            self._pipe.finish()
            raise CommandFailed("the files ended too early", found=self._pipe.stderr or "the end of the stream")
        self._held += data
