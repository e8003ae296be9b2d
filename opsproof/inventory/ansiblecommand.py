"""Ansible's own commands, run so that a program can read what they print."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from opsproof.errors import CommandTimeout, ProgramMissing

_TIMEOUT = 120.0
_OVERRIDES = {
    # The answer is read by a program: no colours, no other callbacks, no merging switched off.
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_FORCE_COLOR": "0",
    "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal",
    "ANSIBLE_LOAD_CALLBACK_PLUGINS": "0",
    "ANSIBLE_INVENTORY_EXPORT": "0",
    "ANSIBLE_VERBOSITY": "0",
    "ANSIBLE_DEBUG": "0",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
    # Without it, a file that cannot be parsed is an inventory without hosts and exit 0.
    "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
    # Resolved variables hold secrets: they pass through a pipe to here and must not reach a log of the user's.
    "ANSIBLE_NO_LOG": "0",
    "ANSIBLE_LOG_PATH": "/dev/null",
    # Ansible refuses to start where the locale is not UTF-8, as in many CI images.
    "LC_ALL": "C.UTF-8",
}


class AnsibleCommand:
    """One of Ansible's commands, running.

    Args:
        program: `ansible` or `ansible-inventory`.
        arguments: Its arguments.
        environ: Its environment.

    Raises:
        ProgramMissing: There is no ansible-core.
    """

    def __init__(self, program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> None:
        # The virtual environment's own comes first: it is the one that was installed with this package.
        beside = Path(sys.executable).parent / program
        found = str(beside) if beside.is_file() else shutil.which(program, path=environ.get("PATH"))
        if found is None:
            raise ProgramMissing(
                f"{program} is not there",
                expected=f"{beside}, or {program} on PATH",
                found="neither",
                hint=f"install it beside this package: {sys.executable} -m pip install ansible-core",
            )
        self._shown = f"{program} {' '.join(arguments[:2])} --list"
        # A session of its own has no terminal, so that a vault's password is never waited for at a prompt.
        self._process = subprocess.Popen(
            [found, *arguments],
            env={**environ, **_OVERRIDES},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def finish(self) -> subprocess.CompletedProcess[str]:
        """Return what it printed, and its exit status, once it has ended.

        Raises:
            CommandTimeout: It does not end within two minutes.
        """
        try:
            stdout, stderr = self._process.communicate(timeout=_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise CommandTimeout(
                f"{self._shown.split()[0]} did not end within {_TIMEOUT:.0f} s",
                expected="an answer within a second or two",
                found="none: a dynamic inventory or a vault's password script may be waiting for something",
                hint=f"run it by hand: {self._shown}",
            ) from None
        finally:
            self.abandon()
        return subprocess.CompletedProcess(self._process.args, self._process.returncode, stdout, stderr)

    def abandon(self) -> None:
        """End it, if it has not ended."""
        if self._process.poll() is None:
            self._process.kill()
        with self._process:
            pass


def run_ansible(program: str, arguments: Sequence[str], environ: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run one of Ansible's commands to its end; arguments and errors are those of `AnsibleCommand`."""
    return AnsibleCommand(program, arguments, environ).finish()
