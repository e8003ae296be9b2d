"""Commands and pipes on a host.

Every command is a list of arguments with a timeout, in an environment of its own that holds nothing but what it
needs: neither the store's credentials nor a stray `PG*` variable reach a child. Every exit status is read.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property

import testinfra
from testinfra.host import Host as TestinfraHost

from opsproof.errors import CommandTimeout, HostError
from opsproof.system.pipe import BUFFER_BYTES, Pipe, cannot_start, command_failed
from opsproof.system.undivided import undivided
from opsproof.target import Connection

# What a child inherits. LC_ALL=C on top: the messages that are looked at must be the untranslated ones.
INHERITED = ("PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LD_LIBRARY_PATH", "KRB5CCNAME", "SSL_CERT_FILE")


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
        with ExitStack() as ending:
            with undivided():
                process = self._start(argv, env)
                ending.callback(_end, process)
            try:
                stdout, stderr = process.communicate(stdin, timeout)
            except subprocess.TimeoutExpired as error:
                raise CommandTimeout(
                    f"{argv[0]} did not end within {timeout:.0f} seconds", found=shlex.join(argv), kept="it was killed"
                ) from error
        return stdout, stderr, process.returncode

    def _start(self, argv: Sequence[str], env: Mapping[str, str] | None) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                argv,
                env=self._environment(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except OSError as error:
            raise cannot_start(argv[0], error) from error

    def _environment(self, env: Mapping[str, str] | None) -> dict[str, str]:
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        return {**inherited, "LC_ALL": "C", **(env or {})}


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what has not ended, with everything that it started, which subprocess.run would leave running."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with process:
        pass  # its pipes are closed, and it is waited for
