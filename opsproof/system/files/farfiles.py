"""The files of a folder on a host: streamed from there, compared, and added to, by `agent.py`."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opsproof.errors import CommandFailed, HostError
from opsproof.system.files import agent as files_agent
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.pipe import Pipe

PIECE_BYTES = 1 << 18


@dataclass(frozen=True)
class FarFile:
    """A file of the folder: its path below it, its bytes, and a symbolic link's target."""

    path: str
    size: int
    link: str | None


@dataclass(frozen=True)
class WantedFile:
    """A file as it has to be: empty `sha256` where only its name tells what is in it."""

    path: str
    sha256: str
    size: int
    link: str | None


def stream_files(host: Host, folder: str) -> Iterator[tuple[FarFile, Iterator[bytes]]]:
    """Yield every file below a folder and its content, which must be read before the next; sorted by name.

    Raises:
        CommandFailed: A file cannot be read, or the stream ended too early.
        HostError: The host cannot be reached, or has no python3.
    """
    with host.pipe(*_agent("send", folder)) as pipe:
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


def compare_files(host: Host, folder: str, files: Iterable[WantedFile]) -> Iterator[str]:
    """Yield for every file, in their order, how it is there: `present`, `missing` or `wrong`. Each is read to its end.

    Raises:
        FarRefusal: One cannot be read, or may not be looked at.
        HostError: The host cannot be reached, or has no python3.
    """
    wanted = [vars(one) for one in files]
    lines = "".join(f"{json.dumps(one)}\n" for one in wanted).encode()
    with host.pipe(*_agent("compare", folder), stdin=lines) as pipe:
        reader = _Reader(pipe)
        for _ in wanted:
            state = reader.line().decode()
            if state.startswith("{"):
                raise FarRefusal(json.loads(state))
            yield state
        pipe.finish()


def add_files(
    host: Host,
    folder: str,
    owner: tuple[str, str, int],
    files: Iterable[tuple[FarFile, Iterator[bytes]]],
    progress: Callable[[int], None],
) -> int:
    """Write files, each under a temporary name first; return their bytes.

    Args:
        host: Where the folder is.
        folder: Which; it is made where it is missing.
        owner: User, group, and the mode of folders; files get the same without the right to execute.
        files: What to write.
        progress: Called with the bytes so far.

    Raises:
        FarRefusal: One cannot be written, or there is no such user; those before it stay.
        HostError: The host cannot be reached, or has no python3.
    """
    user, group, mode = owner
    sent = 0
    with host.pipe(*_agent("add", folder, user, group, f"{mode:o}"), feed=True) as pipe:
        try:
            for one, content in files:
                pipe.write(json.dumps(vars(one)).encode() + b"\n")
                for piece in content:
                    for start in range(0, len(piece), PIECE_BYTES):
                        part = piece[start : start + PIECE_BYTES]
                        pipe.write(struct.pack(">I", len(part)) + part)
                        sent += len(part)
                pipe.write(struct.pack(">I", 0))
                progress(sent)
            pipe.write(b'{"end": true}\n')
            pipe.end_input()
        except CommandFailed:
            # It has ended before its input did: what it says tells more.
            answer = _answer(pipe)
            if answer is None:
                raise
            raise FarRefusal(answer) from None
        answer = _answer(pipe)
        pipe.finish()
    if answer is None or "error" in answer:
        raise FarRefusal(answer or {"error": "it gave no answer"})
    return int(answer["written"])


def _answer(pipe: Pipe) -> dict[str, Any] | None:
    text = b"".join(iter(pipe.read, b"")).strip()
    return dict(json.loads(text)) if text else None


def _agent(verb: str, *arguments: str) -> tuple[str, ...]:
    return ("python3", "-ISc", Path(files_agent.__file__).read_text(encoding="utf-8"), verb, *arguments)


class FarRefusal(HostError):
    """What the host says that it did not do; `kind` is what that is about: `file`, `place`, `link` or `account`."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__("a file of the host could not be read or written", found=str(answer["error"]))
        self.kind = str(answer.get("kind", ""))
        self.strerror = str(answer.get("strerror", ""))


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
