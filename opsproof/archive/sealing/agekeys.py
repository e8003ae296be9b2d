"""Keys of age: the public ones that a backup is encrypted to, and the private ones that open it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from opsproof.archive.sealing.keysource import KEPT, KeyKind, read_key_file, read_key_variable
from opsproof.errors import ConfigurationError
from opsproof.policies import Sealing

IDENTITY_VARIABLE = "OPSPROOF_AGE_IDENTITY"
PRIVATE_MARK = "AGE-SECRET-KEY-"
PROTECTED_MARK = "age-encryption.org/"
HOW_TO_PASS = (
    f"export {IDENTITY_VARIABLE}=/path/to/key.txt   or the key's text\n"
    "or in the inventory: encryption: {identity_file: /path/to/key.txt}"
)
AGE_KEY = KeyKind(
    "private key of age",
    "a file as age-keygen writes it",
    f"age-keygen -o key.txt   makes one\n{HOW_TO_PASS}",
    PRIVATE_MARK,
)


@dataclass(frozen=True)
class Identities:
    """Private keys. They are in no `repr`: whoever prints this shows nothing.

    Attributes:
        recipients: The public keys that belong to them.
        keys: pyrage's own objects.
        secrets: Their texts, which no log and no report may hold.
        sources: Where they were found.
    """

    recipients: tuple[str, ...] = ()
    keys: tuple[Any, ...] = field(default=(), repr=False)
    secrets: tuple[str, ...] = field(default=(), repr=False)
    sources: tuple[str, ...] = ()

    def open_any(self, recipients: Sequence[str]) -> bool:
        """Tell whether one of them is among those that a backup is encrypted to."""
        return not set(self.recipients).isdisjoint(recipients)


def load_pyrage() -> Any:
    """Return the library that encrypts.

    Raises:
        ConfigurationError: It is not installed.
    """
    try:
        return importlib.import_module("pyrage")
    except ImportError as error:
        raise ConfigurationError(
            "Backups cannot be encrypted or decrypted here: pyrage is not installed",
            expected="the extra `encryption` of opsproof",
            found=str(error),
            kept=KEPT,
            hint="pip install -e '.[encryption]'   in opsproof's clone",
        ) from error


def read_recipients(texts: Sequence[str]) -> tuple[Any, ...]:
    """Return public keys as pyrage has them, each once.

    Raises:
        ConfigurationError: One is none.
    """
    pyrage, recipients = load_pyrage(), []
    for text in dict.fromkeys(texts):
        try:
            recipients.append(pyrage.x25519.Recipient.from_str(text))
        except pyrage.RecipientError as error:
            # Somebody may have put a private key there: then it is not repeated.
            found = "a private key, which belongs into no inventory" if PRIVATE_MARK in text.upper() else repr(text)
            raise ConfigurationError(
                "A recipient of the backups is no public key of age",
                expected="age1 and 58 letters and digits, as age-keygen prints it",
                found=f"{found}: {error}",
                kept=KEPT,
                hint="age-keygen -y key.txt   prints the public key of a private one",
            ) from error
    return tuple(recipients)


def load_identities(sealing: Sealing, environ: Mapping[str, str] | None = None) -> Identities:
    """Return the private keys of the inventory's file and of the variable: either may hold the one that is needed.

    Args:
        sealing: Names the file.
        environ: Holds the variable; by default the process's own.

    Raises:
        ConfigurationError: A file cannot be read, or holds no key.
    """
    environ = os.environ if environ is None else environ
    found = read_key_variable(IDENTITY_VARIABLE, environ, AGE_KEY)
    texts = {} if found is None else dict([found])
    if sealing.identity_file:
        path = str(Path(sealing.identity_file).expanduser())
        # An inventory is for several machines, of which some get the key by the variable.
        if not texts or Path(path).exists():
            texts[path] = read_key_file(path, path, AGE_KEY)
    parts = [_parse(text.decode(errors="replace"), source) for source, text in texts.items()]
    return Identities(
        tuple(one for part in parts for one in part.recipients),
        tuple(one for part in parts for one in part.keys),
        tuple(one for part in parts for one in part.secrets),
        tuple(texts),
    )


def _parse(text: str, source: str) -> Identities:
    pyrage = load_pyrage()
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if any(PROTECTED_MARK in line for line in lines[:2]) or not lines:
        raise _no_key(source, "one that a passphrase protects" if lines else "nothing")
    keys = []
    for number, line in enumerate(lines, 1):
        try:
            keys.append(pyrage.x25519.Identity.from_str(line))
        except pyrage.IdentityError:
            # Neither the line nor what the library says of it: it is half a key.
            raise _no_key(source, f"a line {number} that is none") from None
    return Identities(tuple(str(key.to_public()) for key in keys), tuple(keys), tuple(lines), (source,))


def _no_key(source: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        f"There is no private key of age in {source}",
        expected=f"lines that begin with {PRIVATE_MARK}1, and comments that begin with #",
        found=found,
        kept=KEPT,
        hint="age -d key.age > key.txt   unlocks one with a passphrase; age-keygen -y key.txt   tests one",
    )
