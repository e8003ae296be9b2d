"""Hooks: what an inventory has run on the host in the course of a deploy, as the account that owns the releases."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from opsproof.errors import CommandFailed, CommandTimeout
from opsproof.journal import Journal
from opsproof.system.alembic.finding import ENVIRONMENTS
from opsproof.system.hosts.host import Host
from opsproof.target import Target

LAST_LINES = 40
MOST_OUTPUT = 100_000
AFTER = "after_cleanup"
TAKEN_BACK = "what the deploy had changed is taken back, as is told below the steps"
# Both outputs in the order in which they were written.
_RUN = 'cd -- "$0" && exec 2>&1 && exec sh -c "$1"'


@dataclass(frozen=True)
class Ran:
    """A hook that has passed: when it was run, the command, its output, and seconds."""

    moment: str
    command: str
    output: str
    seconds: float


class Hooks:
    """The hooks of one target.

    Args:
        target: Whose.
        host: Where they run, as the deploy_user.
        journal: Gets their output.
    """

    def __init__(self, target: Target, host: Host, journal: Journal) -> None:
        self._target = target
        self._host = host
        self._journal = journal

    def of(self, moment: str) -> tuple[str, ...]:
        """Return the commands of a moment: `after_update_code`, `before_symlink`, `after_cleanup`."""
        return tuple(self._target.deploy.hooks.get(moment, ()))

    def run(self, moment: str, release: PurePosixPath, previous: str) -> tuple[Ran, ...]:
        """Run the hooks of a moment, one after the other, in the release's folder.

        Args:
            moment: Whose turn it is.
            release: The folder.
            previous: The name of the release that is live until the flip, or was; empty where there was none.

        Raises:
            CommandFailed: One ended with another exit status than 0; its last lines are in the error.
            CommandTimeout: One did not end in time; it was killed.
        """
        environ = {
            "OPSPROOF_ENVIRONMENT": self._target.environment,
            "OPSPROOF_TARGET": self._target.name,
            "OPSPROOF_DATABASE": self._target.database.name,
            "OPSPROOF_HOOK": moment,
            "OPSPROOF_RELEASE": str(release),
            "OPSPROOF_PREVIOUS": str(release.parent / previous) if previous else "",
        }
        # Where it can be tried afterwards: a release that was not brought to its end is removed.
        is_live = moment == AFTER
        place = release.parent.parent / "current" if is_live or previous else None
        return tuple(self._run(moment, command, release, environ, place) for command in self.of(moment))

    def _run(
        self, moment: str, command: str, release: PurePosixPath, environ: Mapping[str, str], place: PurePosixPath | None
    ) -> Ran:
        line, started = self._line(command, release), time.monotonic()
        again = f"cd {shlex.quote(str(place))} && {line}" if place else f"{line}   in a copy of the release"
        kept = "the release is live, and stays" if moment == AFTER else TAKEN_BACK
        self._journal.info(f"hook {moment}: {command}")
        timeout = self._target.deploy.hook_timeout
        try:
            done = self._host.run("sh", "-c", _RUN, str(release), line, env=environ, timeout=timeout, accept=range(256))
        except CommandTimeout as error:
            output = self._note(moment, command, None, error.printed, time.monotonic() - started)
            raise CommandTimeout(
                f"The hook {moment} did not end within {timeout:g} seconds",
                expected=f"an end, by hook_timeout of the inventory's deploy, of: {command}",
                found=_tail(output),
                kept=f"it was killed, with everything that it had started; {kept}",
                hint=f"{again}\nshows what it waits for; or raise deploy.hook_timeout",
            ) from error
        seconds = time.monotonic() - started
        output = self._note(moment, command, done.status, done.stdout, seconds)
        # A negative status is a signal's, which no list of accepted ones has: the host has said so already.
        if done.status != 0:
            raise CommandFailed(
                f"The hook {moment} ended with exit status {done.status}",
                expected=f"exit status 0 of: {command}",
                found=_tail(output),
                kept=kept,
                hint=again,
            )
        return Ran(moment, command, output, seconds)

    def _note(self, moment: str, command: str, status: int | None, printed: str, seconds: float) -> str:
        """Write down what a hook did; its status is None where it was killed. Return its output."""
        # Before it is cut: half a secret is not known for one any more.
        output = self._journal.redactor.clean(printed)[-MOST_OUTPUT:]
        self._journal.record(
            "hook", moment=moment, command=command, status=status, seconds=round(seconds, 3), output=output
        )
        return output

    def _line(self, command: str, release: PurePosixPath) -> str:
        """Return the command line; a file of pytest's is run by the release's own interpreter."""
        words = command.split()
        if len(words) != 1 or not PurePosixPath(command).name.startswith("test_") or not command.endswith(".py"):
            return command
        for name in ENVIRONMENTS:
            if self._host.is_executable(str(release / name / "bin" / "python")):
                return f"{name}/bin/python -m pytest {shlex.quote(command)}"
        return f"{self._target.migrations.python or 'python3'} -m pytest {shlex.quote(command)}"


def _tail(output: str) -> str:
    return "\n".join(output.strip().splitlines()[-LAST_LINES:]) or "it printed nothing"
