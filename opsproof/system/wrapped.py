"""A command as a remote host runs it: under another account, with its variables from stdin, and never for ever.

A secret in an argument would stand in the host's process list, and one in a file on its disk: so the variables come as
the first line of the command's input, which a shell reads before the command takes its place.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping, Sequence

# `read` takes its line byte by byte, and leaves the rest to the command. The shell stays, and turns the signal that
# ended the command into an exit status: what ssh makes of a signal is its own failure.
_VARIABLES = 'IFS= read -r line && eval "$line" && unset line || exit 125;'
# 255 is ssh's own word for a connection that was lost.
_COMMAND = 'timeout --kill-after=10 "$@"; status=$?; [ "$status" -ne 255 ] || status=254; exit "$status"'
MARK = "OPSPROOF_RUN"
# The mark stands in the environment of whatever is left of a run, below whichever account.
SWEEP = (
    f'grep -lzx "{MARK}=$0" /proc/[0-9]*/environ 2>/dev/null'
    ' | while IFS=/ read -r _ _ one _; do kill -s "$1" "$one" 2>/dev/null; done'
)


def wrapped(
    command: Sequence[str], seconds: float, prefix: Sequence[str] = (), *, own_input: bool = False
) -> list[str]:
    """Return what the host runs for a command whose variables come from stdin.

    Args:
        command: The program and its arguments.
        seconds: Until the host itself ends it, whoever still waits for it.
        prefix: What changes the account.
        own_input: Its input is all there, and goes through a pipe of the account's own: only that can be opened once
            more, as /dev/stdin.
    """
    script = f"{_VARIABLES} {'cat | ' if own_input else ''}{_COMMAND}"
    return [*prefix, "sh", "-c", script, "opsproof", f"{seconds:.0f}", *command]


def first_line(variables: Mapping[str, str], mark: str) -> bytes:
    """Return the line that the shell reads.

    Args:
        variables: Of the command.
        mark: What tells the processes that one connection has started from all others.
    """
    words = {"LC_ALL": "C", **variables, MARK: mark}
    # Shells export functions under names that none of them can read back.
    known = {name: text for name, text in words.items() if name.isascii() and name.isidentifier()}
    said = " ".join(f"{name}={_quoted(text)}" for name, text in known.items())
    return os.fsencode(f"n=$(printf '\\n_'); n=${{n%_}}; export {said}\n")


def _quoted(text: str) -> str:
    return shlex.quote(text).replace("\n", "'\"$n\"'")
