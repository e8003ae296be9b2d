"""A command as a remote host runs it: under another account, with its variables from stdin, and never for ever.

A secret in an argument would stand in the host's process list, and one in a file on its disk: so the variables come as
the first line of the command's input, which a shell reads before the command takes its place.

Two variables that are no secret mark whatever a command starts, below whichever account: which connection it belongs
to, and which command it is. By them the host is told to end what is left.
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
_ONE = "OPSPROOF_COMMAND"
_FOUND = 'grep -lzx "{name}=$0" /proc/[0-9]*/environ 2>/dev/null'
_KILLED = 'while IFS=/ read -r _ _ one _; do kill -s "$1" "$one" 2>/dev/null; done'
SWEEP = f"{_FOUND.format(name=MARK)} | {_KILLED}"
"""Of a shell whose `$0` is a connection's mark, and `$1` a signal."""
# Asked every tenth of a second: SIGTERM at first, SIGKILL after three seconds of it; given up after ten.
_END_ONE = (
    f'n=0; while [ "$n" -lt 100 ]; do found=$({_FOUND.format(name=_ONE)}); [ -n "$found" ] || exit 0;'
    ' [ "$n" -ne 0 ] || set -- TERM; [ "$n" -ne 30 ] || set -- KILL;'
    f' case $n in 0|30) printf "%s\\n" "$found" | {_KILLED};; esac; n=$((n + 1)); sleep 0.1; done; exit 1'
)
END_SECONDS = 12.0
"""That the end of one command takes at most."""


def wrapped(
    command: Sequence[str], seconds: float, prefix: Sequence[str] = (), *, token: str = "", own_input: bool = False
) -> list[str]:
    """Return what the host runs for a command whose variables come from stdin.

    Args:
        command: The program and its arguments.
        seconds: Until the host itself ends it, whoever still waits for it.
        prefix: What changes the account.
        token: What tells the command from all others, for `ending`.
        own_input: Its input is all there, and goes through a pipe of the account's own: only that can be opened once
            more, as /dev/stdin.
    """
    script = f"{_VARIABLES} {'cat | ' if own_input else ''}{_COMMAND}"
    marked = ("env", f"{_ONE}={token}") if token else ()
    return [*prefix, *marked, "sh", "-c", script, "opsproof", f"{seconds:.0f}", *command]


def ending(token: str, mark: str = _ONE) -> list[str]:
    """Return what ends a command on its host, with everything that it started, and returns once nothing is left.

    Args:
        token: The one that the command was given.
        mark: The variable that has it.
    """
    return ["sh", "-c", _END_ONE.replace(_ONE, mark), token]


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
