"""A running command whose output is read while it runs, and how its end is told."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Self

from opsproof.errors import CommandFailed, CommandTimeout, HostError, ProgramMissing
from opsproof.system.hosts.undivided import undivided

STDERR_LINES = 40
PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 18
BUFFER_BYTES = 1 << 17
STALL_SECONDS = 900.0


class Pipe:
    """A running command. Its stderr is kept to the last lines; leaving the `with` block ends it in any case.

    Args:
        argv: What this machine runs.
        env: Its whole environment.
        stdin: All of its input, if that is known.
        feed: Its input is written by `write`.
        name: Of the command, for errors.
        said: What a fed input begins with.
        explain: Why a command was not run at all, from exit status and stderr.
        end_there: Called where it is killed: ends what another machine runs of it.
        release: Called once, when it has ended.

    A session of its own keeps a Ctrl-C at the terminal from reaching the command before the undo does; when this
    process dies, the command ends at its next write.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        stdin: bytes | None,
        *,
        feed: bool,
        name: str,
        said: bytes = b"",
        explain: Callable[[int, str], HostError | None] = lambda *_: None,
        end_there: Callable[[], None] = lambda: None,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name.rsplit("/", 1)[-1]
        self._explain = explain
        self._end_there = end_there
        self._release: Callable[[], None] | None = release
        self._tail: deque[str] = deque(maxlen=STDERR_LINES)
        with ExitStack() as ending:
            with undivided():
                self._process = _start(name, argv, env, has_input=feed or stdin is not None)
                ending.callback(self.kill)
            self._threads = [threading.Thread(target=self._drain_stderr, daemon=True)]
            if stdin is not None:
                self._threads.append(threading.Thread(target=self._feed_all, args=(stdin,), daemon=True))
            for thread in self._threads:
                thread.start()
            if said:
                self.write(said)
            ending.pop_all()

    def read(self, size: int = READ_BYTES, stall: float | None = None) -> bytes:
        """Return what the command prints next, at most `size` bytes; empty at its end.

        Raises:
            CommandTimeout: It printed nothing for `stall` seconds, by default 15 minutes; it was killed.
        """
        stdout = self._process.stdout
        if stdout is None:
            return b""
        limit = STALL_SECONDS if stall is None else stall
        if not select.select([stdout], [], [], limit)[0]:
            self.kill()
            raise CommandTimeout(
                f"{self.name} printed nothing for {limit:.0f} seconds",
                found=self.stderr,
                kept="it was killed",
            )
        return os.read(stdout.fileno(), size)

    def write(self, data: bytes) -> None:
        """Write to the command's input.

        Raises:
            CommandFailed: It ended before it had read its input.
        """
        stdin = self._process.stdin
        if stdin is None:
            raise HostError(f"{self.name} was started without an input")
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(stdin.fileno(), view) :]
        except (BrokenPipeError, ValueError) as error:
            # ValueError: its reader has seen its end, and closed the input.
            try:
                self._process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()
            raise self._failure(self._process.returncode) from error

    def end_input(self) -> None:
        """Close the command's input: it has all that it will get."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def finish(self, timeout: float = 60.0) -> None:
        """Wait for the end of a command whose output has been read to its end.

        Args:
            timeout: Seconds it may take to end.

        Raises:
            CommandTimeout: It closed its output but did not end; it was killed.
            CommandFailed: Its exit status is not 0.
        """
        self.end_input()
        try:
            status = self._process.wait(timeout=timeout)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise CommandTimeout(f"{self.name} did not end", found=self.stderr, kept="it was killed") from error
        for thread in self._threads:
            thread.join(timeout=10)
        if status != 0:
            raise self._failure(status)

    def _failure(self, status: int) -> HostError:
        # What it has said last may still be on its way.
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=10)
        return self._explain(status, self.stderr) or command_failed(self.name, status, self.stderr)

    def kill(self) -> None:
        """End the command now, and everything that it started."""
        was_running = self._process.poll() is None
        if was_running:
            try:
                os.killpg(self._process.pid, signal.SIGTERM)
                deadline = time.monotonic() + 2.0
                while self._process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            except PermissionError:
                # sudo's: it ends at the end of its input, or at its next write.
                for stream in (self._process.stdin, self._process.stdout):
                    if stream is not None:
                        stream.close()
        self._process.wait()
        if was_running:
            self._end_there()
        if self._release is not None:
            self._release()
            self._release = None

    @property
    def is_running(self) -> bool:
        """Tell whether the command has not ended yet."""
        return self._process.poll() is None

    def wait_until_ended(self, seconds: float) -> bool:
        """Wait for a command that has all its input; return whether it ended in time."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return not self.is_running

    @property
    def stderr(self) -> str:
        """The last lines that the command printed to stderr."""
        return "\n".join(self._tail)

    @property
    def pid(self) -> int:
        """The process id on this machine."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                stream.close()

    def _drain_stderr(self) -> None:
        stderr = self._process.stderr
        if stderr is not None:
            with stderr:
                for line in os.fdopen(os.dup(stderr.fileno()), encoding="utf-8", errors="replace"):
                    self._tail.append(line.rstrip())

    def _feed_all(self, data: bytes) -> None:
        try:
            self.write(data)
            self.end_input()
        except (OSError, HostError, ValueError):
            # The command ended early, or was killed: its exit status tells, and `finish` reads it.
            return


def _start(name: str, argv: Sequence[str], env: Mapping[str, str], *, has_input: bool) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            argv,
            env=env,
            stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pipesize=PIPE_BYTES,
            bufsize=0,
            start_new_session=True,
        )
    except OSError as error:
        raise cannot_start(name, error) from error


def cannot_start(program: str, error: OSError) -> HostError:
    """Say why a program could not be started at all."""
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return program_missing(program)
    return CommandFailed(
        f"{program.rsplit('/', 1)[-1]} cannot be run: {error.strerror}",
        expected=f"a program that this account may run: {program}",
        found=str(error),
        kept="nothing was changed",
        hint=f"ls -l {shlex.quote(program)}",
    )


def program_missing(program: str) -> ProgramMissing:
    """Name a missing program and the Debian package that has it."""
    packages = {
        "pg_dump": "postgresql-client",
        "pg_restore": "postgresql-client",
        "psql": "postgresql-client",
    }
    name = program.rsplit("/", 1)[-1]
    package = packages.get(name, name)
    return ProgramMissing(
        f"{name} not found",
        expected=f"a program {program} on the host",
        found="no such file on PATH",
        kept="nothing was changed",
        hint=f"apt-get install {package}",
    )


def command_failed(program: str, status: int, stderr: str) -> CommandFailed:
    """Say how a command ended; the last lines of its stderr travel with the error."""
    how = f"was killed by signal {-status}" if status < 0 else f"ended with exit status {status}"
    tail = "\n".join(stderr.strip().splitlines()[-STDERR_LINES:])
    return CommandFailed(f"{program.rsplit('/', 1)[-1]} {how}", found=tail or "nothing on stderr")
