"""Commands and pipes on a host, whatever carries them there.

Every command is a list of arguments with a timeout, in an environment of its own that holds nothing but what it
needs: neither the store's credentials nor a stray `PG*` variable reach a child. Every exit status is read.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from testinfra.backend.base import BaseBackend, CommandResult
from testinfra.host import Host as TestinfraHost

from opsproof.errors import HostError
from opsproof.system.hosts.carrying import CARRIERS, inherited
from opsproof.system.hosts.launch import Launch, run_to_end
from opsproof.system.hosts.pipe import BUFFER_BYTES, Pipe, cannot_start, command_failed, program_missing
from opsproof.system.hosts.ssh import sudo_refused
from opsproof.system.hosts.transport import transport_of
from opsproof.system.hosts.wrapped import END_SECONDS, MARK, ending, first_line, wrapped
from opsproof.target import Connection

DAY = 86_400.0
# The host ends a command by itself this much later than we do.
GRACE_SECONDS = 5.0
_ROOT = "root"
_MISSING, _NOT_RUN = 127, 126
# A host that cannot resolve its own name is told so by sudo each time, and that is no refusal.
_SUDO = re.compile(r"^(?:sudo: (?!unable to resolve host|setrlimit|unable to send audit)|Sorry, user )", re.MULTILINE)
_RUNUSER = re.compile(r"^runuser: ", re.MULTILINE)
_NO_SUDO = re.compile(r"\bsudo: (?:command )?not found|executable file not found", re.MULTILINE)


@dataclass(frozen=True)
class Completed:
    """A command that has ended with an accepted exit status."""

    status: int
    stdout: str
    stderr: str


class Host:
    """The machine that an application runs on, as one account of it.

    Args:
        connection: How the inventory reaches it.
        user: Whom commands run as; empty is the account that the connection says.

    Raises:
        HostError: The inventory reaches the host by a connection that this version does not know.
    """

    def __init__(self, connection: Connection, user: str = "") -> None:
        self.connection = connection
        self.user = user
        self._transport = transport_of(connection)

    def as_user(self, user: str) -> Host:
        """Return the same host as another account of it; empty is the account that the connection says."""
        return self if user == self.user else Host(self.connection, user)

    @property
    def is_local(self) -> bool:
        """Tell whether the host's files are this machine's, and this process's account is the one that is meant."""
        return self._transport.is_local and not self._prefix

    @cached_property
    def testinfra(self) -> TestinfraHost:
        """The same host as testinfra sees it, for assertions on files and services."""
        return TestinfraHost(_Backend(self))

    @cached_property
    def account(self) -> str:
        """Return whom commands run as, by name.

        Raises:
            HostError: The host cannot be reached.
        """
        return self.run("id", "-un").stdout.strip()

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
            HostError: The host cannot be reached, or sudo refuses.
        """
        launch = self._launch(argv, env, timeout + GRACE_SECONDS, has_all_input=True)
        stdout, stderr, status = run_to_end(launch, argv, stdin, timeout)
        # A file name that is no UTF-8 can be handed back to the host as it came.
        completed = Completed(status, stdout.decode(errors="surrogateescape"), stderr.decode(errors="replace"))
        lost = self._explain(argv[0], completed.status, completed.stderr)
        if lost is not None:
            raise lost
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
            HostError: The host cannot be reached.
        """
        buffered = (self._stdbuf, f"--output={BUFFER_BYTES}") if self._stdbuf and self.find_program(argv[0]) else ()
        launch = self._launch((*buffered, *argv), env, DAY, has_all_input=not feed)
        said = (launch.said + (stdin or b"")) if stdin is not None or launch.said else None
        return Pipe(
            launch.argv,
            launch.environ,
            None if feed else said,
            feed=feed,
            name=argv[0],
            said=launch.said if feed else b"",
            explain=partial(self._explain, argv[0]),
            end_there=launch.end_there,
            release=launch.release,
        )

    def splice(self, socket: socket.socket, *argv: str) -> subprocess.Popen[bytes]:
        """Start a command whose input and output are both a socket; it must need no variables.

        The caller waits for its end, and reads its stderr.

        Raises:
            HostError: The host cannot be reached.
        """
        prefix = self._prefix
        way = self._transport.take()
        marked = (*prefix, "env", "LC_ALL=C", f"{MARK}={way.mark}", "timeout", f"{DAY:.0f}", *argv)
        try:
            return _Spliced(
                way.line(marked),
                env=inherited(*CARRIERS),
                stdin=socket,
                stdout=socket,
                stderr=subprocess.PIPE,
                start_new_session=True,
                release=way.release,
            )
        except OSError as error:
            way.release()
            raise cannot_start(argv[0], error) from error

    @cached_property
    def _stdbuf(self) -> str | None:
        return self.find_program("stdbuf")

    def find_program(self, name: str) -> str | None:
        """Return the path of a program on the host's PATH, or None."""
        if self.is_local:
            return shutil.which(name)
        key = (self.connection, self.user, name)
        if key not in _PROGRAMS:
            done = self.run("sh", "-c", 'command -v "$0"', name, accept=(0, 1, _MISSING))
            _PROGRAMS[key] = done.stdout.strip() or None
        return _PROGRAMS[key]

    def is_executable(self, path: str) -> bool:
        """Tell whether a file is there and may be run."""
        if self.is_local:
            return Path(path).is_file() and os.access(path, os.X_OK)
        return self.run("sh", "-c", '[ -f "$0" ] && [ -x "$0" ]', path, accept=(0, 1)).status == 0

    def _launch(
        self, argv: Sequence[str], env: Mapping[str, str] | None, seconds: float, *, has_all_input: bool
    ) -> Launch:
        if self.is_local:
            return Launch(tuple(argv), {**inherited(), "LC_ALL": "C", **(env or {})})
        # Before a way is taken: who logs in is asked over one, too, and that may fail.
        prefix = self._prefix
        way = self._transport.take()
        token = secrets.token_hex(8)
        line = way.line(wrapped(argv, seconds, prefix, token=token, own_input=has_all_input and bool(prefix)))
        said = first_line(env or {}, way.mark)
        return Launch(line, inherited(*CARRIERS), said, way.release, partial(self._end, token, prefix))

    def _end(self, token: str, prefix: Sequence[str]) -> None:
        """End a command on the host, as the account that it has."""
        # Where this does not reach the host, the lifeline of the connection or the command's own timeout ends it.
        with suppress(HostError):
            way = self._transport.take()
            line = way.line((*prefix, *ending(token)))
            run_to_end(Launch(line, inherited(*CARRIERS), release=way.release), line, b"", END_SECONDS)

    @cached_property
    def _prefix(self) -> tuple[str, ...]:
        """What changes the account on the host."""
        one = self.connection
        wanted = self.user or (one.become_user or _ROOT if one.become else "")
        if not wanted:
            return ()
        login, is_root = self._login()
        if wanted == login:
            return ()
        return ("runuser", "-u", wanted, "--") if is_root else ("sudo", "-n", "-u", wanted, "--")

    def _login(self) -> tuple[str, bool]:
        """Return the account that the connection itself has, and whether it is root's."""
        if self.connection not in _LOGINS:
            way = self._transport.take()
            line = way.line(("sh", "-c", "id -un; id -u"))
            launch = Launch(line, {**inherited(*CARRIERS), "LC_ALL": "C"}, release=way.release)
            stdout, stderr, status = run_to_end(launch, line, b"", 60.0)
            error = self._transport.explain(status, stderr.decode(errors="replace"))
            if error is not None or status != 0:
                raise error or command_failed("id", status, stderr.decode(errors="replace"))
            name, uid = stdout.decode(errors="replace").split()
            _LOGINS[self.connection] = (name, uid == "0")
        return _LOGINS[self.connection]

    def _explain(self, program: str, status: int, stderr: str) -> HostError | None:
        """Return why a command was not run at all; None if it was."""
        if self.is_local or status == 0:
            return None
        lost = self._transport.explain(status, stderr)
        if lost is not None:
            return lost
        if self._prefix[:1] == ("sudo",) and (_SUDO.search(stderr) or _NO_SUDO.search(stderr)):
            return sudo_refused(self.connection, self._prefix[3], stderr.strip())
        if self._prefix[:1] == ("runuser",) and status == 1 and _RUNUSER.search(stderr):
            return command_failed("runuser", status, stderr)
        if status in (_MISSING, _NOT_RUN) and "timeout: failed to run command" in stderr:
            if status == _MISSING:
                return program_missing(program)
            return cannot_start(program, PermissionError(13, "Permission denied", program))
        return None


_PROGRAMS: dict[tuple[Connection, str, str], str | None] = {}
_LOGINS: dict[Connection, tuple[str, bool]] = {}


class _Spliced(subprocess.Popen[bytes]):
    """A process that gives its way to the host back once it is waited for."""

    def __init__(self, argv: Sequence[str], *, release: Callable[[], None], **options: Any) -> None:
        super().__init__(argv, **options)
        self._release: Callable[[], None] | None = release

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end."""
        status = super().wait(timeout)
        if self._release is not None:
            self._release()
            self._release = None
        return status


class _Backend(BaseBackend):  # type: ignore[misc] # testinfra's has no types
    """testinfra's commands, carried as all others are."""

    NAME = "opsproof"

    def __init__(self, host: Host) -> None:
        super().__init__(host.connection.host or "local")
        self._through = host

    def run(self, command: str, *args: str, **kwargs: object) -> CommandResult:
        del kwargs
        line = self.get_command(command, *args)
        done = self._through.run("sh", "-c", line, timeout=120.0, accept=range(256))
        return self.result(
            done.status, line.encode(), done.stdout.encode(errors="surrogateescape"), done.stderr.encode()
        )
