"""One command, started as this machine starts it and waited for, or ended with everything that it started."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from opsproof.errors import CommandTimeout
from opsproof.system.hosts.pipe import cannot_start
from opsproof.system.hosts.undivided import undivided

LAST_LINES = 12


@dataclass(frozen=True)
class Launch:
    """What this machine runs for a command.

    `said` is what its input begins with. `release` gives the way to the host back; `end_there` ends what the host has
    of it, which goes on there when only the way is cut.
    """

    argv: tuple[str, ...]
    environ: Mapping[str, str]
    said: bytes = b""
    release: Callable[[], None] = lambda: None
    end_there: Callable[[], None] = lambda: None


def run_to_end(launch: Launch, argv: Sequence[str], stdin: bytes, timeout: float) -> tuple[bytes, bytes, int]:
    """Run a command to its end, and return its output, its stderr and its exit status.

    Whatever cuts that short, a signal too, ends the command first, on its host too.

    Args:
        launch: What to start.
        argv: The command, for errors.
        stdin: What it reads, after what `launch` says.
        timeout: Seconds until it is killed.

    Raises:
        ProgramMissing: There is no such program.
        CommandTimeout: It did not end in time; it was killed.
    """
    with ExitStack() as ending:
        ending.callback(launch.release)
        with undivided():
            process = _start(launch)
            ending.callback(_end, process)
        try:
            stdout, stderr = process.communicate(launch.said + stdin, timeout)
        except BaseException as error:
            _end(process)
            launch.end_there()
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            raise _timed_out(argv, timeout, error) from error
    return stdout, stderr, process.returncode


def _start(launch: Launch) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            launch.argv,
            env=dict(launch.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise cannot_start(launch.argv[0], error) from error


def _timed_out(argv: Sequence[str], timeout: float, error: subprocess.TimeoutExpired) -> CommandTimeout:
    """Return an error that shows what the command did last: it may have asked a question that nobody answers."""
    said: list[bytes] = [error.output or b"", error.stderr or b""]
    printed = "\n".join(part.decode(errors="replace").rstrip() for part in said if part)
    last = "\n".join(["its last lines:", *printed.splitlines()[-LAST_LINES:]] if printed else ["it printed nothing"])
    return CommandTimeout(
        f"{argv[0]} did not end within {timeout:.0f} seconds",
        found=f"{shlex.join(argv)}\n{last}",
        kept="it was killed",
        printed=printed,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what has not ended, with everything that it started, which subprocess.run would leave running."""
    if process.returncode is None:
        # sudo's own group is not ours to kill: it ends with its input and its output.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    with process:
        pass  # its pipes are closed, and it is waited for
