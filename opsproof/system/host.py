"""Commands and pipes on a host.

Every command is a list of arguments with a timeout, in an environment of its own that holds nothing but what it
needs: neither the store's credentials nor a stray `PG*` variable reach a child. Every exit status is read.
"""

from __future__ import annotations

import os
import select
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import Self

import testinfra
from testinfra.host import Host as TestinfraHost

from opsproof.errors import CommandFailed, CommandTimeout, HostError, ProgramMissing
from opsproof.target import Connection

# What a child inherits. LC_ALL=C on top: the messages that are looked at must be the untranslated ones.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH", "KRB5CCNAME", "SSL_CERT_FILE")
STDERR_LINES = 40
PIPE_BYTES = 1 << 20
READ_BYTES = 1 << 18
BUFFER_BYTES = 1 << 17
STALL_SECONDS = 900.0


@dataclass(frozen=True)
class Completed:
    """A command that has ended with an accepted exit status."""

    status: int
    stdout: str
    stderr: str


class Host:
    """The machine that an application runs on.

    Raises:
        HostError: The inventory reaches the host by a connection that this version does not know.
    """

    def __init__(self, connection: Connection) -> None:
        if connection.kind != "local":
            raise HostError(
                f"Host {connection.host} is reached by {connection.kind}, which this version does not do",
                expected="ansible_connection: local",
                found=f"ansible_connection: {connection.kind}",
                kept="nothing was started",
                hint="run pytest on the host itself, with `ansible_connection: local` in the inventory",
            )
        self.connection = connection

    @cached_property
    def testinfra(self) -> TestinfraHost:
        """The same host as testinfra sees it, for assertions on files and services."""
        return testinfra.get_host("local://")

    def run(
        self,
        *argv: str,
        env: Mapping[str, str] | None = None,
        stdin: bytes = b"",
        timeout: float = 60.0,
        accept: Collection[int] = (0,),
    ) -> Completed:
        """Run a command to its end.

        Args:
            argv: The program and its arguments; no shell reads them.
            env: Variables on top of the inherited few.
            stdin: What the command reads.
            timeout: Seconds until it is killed.
            accept: The exit statuses that are fine.

        Raises:
            ProgramMissing: There is no such program.
            CommandTimeout: It did not end in time; it was killed.
            CommandFailed: Its exit status is not one of `accept`.
        """
        stdout, stderr, status = self._run_to_end(argv, env, stdin, timeout)
        # A file name that is no UTF-8 can be handed back to the host as it came.
        completed = Completed(status, stdout.decode(errors="surrogateescape"), stderr.decode(errors="replace"))
        if completed.status not in accept:
            raise command_failed(argv[0], completed.status, completed.stderr)
        return completed

    def pipe(
        self, *argv: str, env: Mapping[str, str] | None = None, stdin: bytes | None = None, feed: bool = False
    ) -> Pipe:
        """Start a command whose output is read while it runs.

        Its stdio buffer is made bigger by coreutils' `stdbuf`, where the host has it: PostgreSQL's programs would write
        to a pipe in pieces of 4 KiB, which costs a fifth of the time of a dump.

        Args:
            argv: The program and its arguments.
            env: Variables on top of the inherited few.
            stdin: All that the command reads, known beforehand.
            feed: The caller writes the command's input with `Pipe.write` and ends it with `Pipe.end_input`.

        Raises:
            ProgramMissing: There is no such program.
        """
        buffered = (self._stdbuf, f"--output={BUFFER_BYTES}") if self._stdbuf and self.find_program(argv[0]) else ()
        return Pipe((*buffered, *argv), self._environment(env), stdin, feed=feed, name=argv[0])

    @cached_property
    def _stdbuf(self) -> str | None:
        return self.find_program("stdbuf")

    def find_program(self, name: str) -> str | None:
        """Return the path of a program on the host's PATH, or None."""
        return shutil.which(name)

    def is_executable(self, path: str) -> bool:
        """Tell whether a file is there and may be run."""
        return os.access(path, os.X_OK)

    def _run_to_end(
        self, argv: Sequence[str], env: Mapping[str, str] | None, stdin: bytes, timeout: float
    ) -> tuple[bytes, bytes, int]:
        try:
            process = subprocess.Popen(
                argv,
                env=self._environment(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise cannot_start(argv[0], error) from error
        with process:
            try:
                stdout, stderr = process.communicate(stdin, timeout)
            except BaseException as error:
                # With everything that it started, which subprocess.run would leave running.
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                if not isinstance(error, subprocess.TimeoutExpired):
                    raise
                raise CommandTimeout(
                    f"{argv[0]} did not end within {timeout:.0f} seconds",
                    found=shlex.join(argv),
                    kept="it was killed",
                ) from error
        return stdout, stderr, process.returncode

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {**inherited, "LC_ALL": "C", **(env or {})}


class Pipe:
    """A running command. Its stderr is kept to the last lines; leaving the `with` block ends it in any case.

    A session of its own keeps a Ctrl-C at the terminal from reaching the command before the undo does; when this
    process dies, the command ends at its next write.
    """

    def __init__(
        self, argv: Sequence[str], env: Mapping[str, str], stdin: bytes | None, *, feed: bool, name: str
    ) -> None:
        self.name = name.rsplit("/", 1)[-1]
        self._tail: deque[str] = deque(maxlen=STDERR_LINES)
        self._buffer = bytearray()
        try:
            self._process = subprocess.Popen(
                argv,
                env=env,
                stdin=subprocess.PIPE if feed or stdin is not None else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                pipesize=PIPE_BYTES,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise cannot_start(name, error) from error
        self._threads = [threading.Thread(target=self._drain_stderr, daemon=True)]
        if stdin is not None:
            self._threads.append(threading.Thread(target=self._feed_all, args=(stdin,), daemon=True))
        for thread in self._threads:
            thread.start()

    def read(self, size: int = READ_BYTES) -> bytes:
        """Return what the command prints next: `size` bytes, fewer only at its end; empty after that.

        Raises:
            CommandTimeout: It printed nothing for 15 minutes; it was killed.
        """
        stdout = self._process.stdout
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        view, have = memoryview(self._buffer), 0
        while stdout is not None and have < size:
            if not select.select([stdout], [], [], STALL_SECONDS)[0]:
                self.kill()
                raise CommandTimeout(
                    f"{self.name} printed nothing for {STALL_SECONDS:.0f} seconds",
                    found=self.stderr,
                    kept="it was killed",
                )
            count = os.readv(stdout.fileno(), [view[have:size]])
            if not count:
                break
            have += count
        return bytes(view[:have])

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
            self._process.wait(timeout=30)
            raise command_failed(self.name, self._process.returncode, self.stderr) from error

    def end_input(self) -> None:
        """Close the command's input: it has all that it will get."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def finish(self, timeout: float = 60.0, *, harmless: str = "") -> None:
        """Wait for the end of a command whose output has been read to its end.

        Args:
            timeout: Seconds it may take to end.
            harmless: Exit status 1 is fine where every line on stderr ends with this.

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
        if status == 1 and harmless and self._tail and all(line.endswith(harmless) for line in self._tail):
            return
        if status != 0:
            raise command_failed(self.name, status, self.stderr)

    def kill(self) -> None:
        """End the command now, and everything that it started."""
        if self._process.poll() is None:
            try:
                os.killpg(self._process.pid, signal.SIGTERM)
                deadline = time.monotonic() + 2.0
                while self._process.poll() is None and time.monotonic() < deadline:
                    time.sleep(0.02)
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._process.wait()

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
