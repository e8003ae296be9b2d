"""Where a key comes from: a file, or a variable that holds its text or the path of a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import ConfigurationError

KEPT = "nothing was changed"


@dataclass(frozen=True)
class KeyKind:
    """A kind of key, as errors speak of it.

    Attributes:
        name: What it is.
        form: What a file of it holds.
        hint: How to make one, or how to pass it.
        mark: In capitals, what the text of one has in it and no path has; empty for one that no variable holds.
    """

    name: str
    form: str
    hint: str
    mark: str = ""


def read_key_file(path: str, shown: str, kind: KeyKind) -> bytes:
    """Return what a file holds.

    Args:
        path: The file; a tilde is the account's home.
        shown: What an error calls it: what is no path may be half a key.
        kind: What it is to hold.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        return Path(path).expanduser().read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a null byte
        raise ConfigurationError(
            f"The {kind.name} cannot be read from {shown}",
            expected=f"{kind.form}, which this account can read",
            found=getattr(error, "strerror", None) or "no path",
            kept=KEPT,
            hint=kind.hint,
        ) from error


def read_key_variable(variable: str, environ: Mapping[str, str], kind: KeyKind) -> tuple[str, bytes] | None:
    """Return where a variable's key is from, as errors call it, and its text; None where the variable is empty.

    Raises:
        ConfigurationError: It names a file that cannot be read.
    """
    value = environ.get(variable, "").strip()
    if not value:
        return None
    if kind.mark in value.upper():
        return f"the variable {variable}", value.encode(errors="surrogateescape")
    shown = f"the file that {variable} names"
    return shown, read_key_file(value, shown, kind)
