"""Lines that nobody can change, leave out or add without it being seen: each holds the SHA-256 of the one before it.

What the last line is, its *head*, has to be known from elsewhere (a run prints it into its JUnit XML): a whole chain
can be written anew, and one that was cut short is a chain still. Or it is signed: the copy beside the backups has a
signature beside it, FILE.sig, where the run had a key.
"""

from __future__ import annotations

import argparse
import base64
import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

LINK = "previous"
FIRST = "0" * 64
"""What the first line holds."""
SIGNATURE = ".sig"
"""What the name of a journal's signature ends in: Ed25519 over the very bytes of the file, in base64."""
LAST = "run ends"


@dataclass(frozen=True)
class Verified:
    """What a chain came to: its lines, its head, and what is wrong with it, a line each.

    `later` is how many lines follow the head that is known from elsewhere.
    """

    lines: int
    head: str
    faults: tuple[str, ...]
    later: int = 0


def link_of(line: bytes) -> str:
    """Return what the line after this one holds: the hex SHA-256 of its bytes, without the end of the line."""
    return sha256(line.removesuffix(b"\n")).hexdigest()


def verify_chain(data: bytes, head: str = "") -> Verified:
    """Look at every line of a chain.

    Args:
        data: The whole file.
        head: The head that is known from elsewhere. Lines that were added after it are no fault, but told.
    """
    lines = data.split(b"\n")
    faults, previous, at = [], FIRST, dict[str, int]()
    if lines.pop():
        faults.append(f"line {len(lines) + 1} has no end: the writer was killed, or the file was cut short")
    elif not lines:
        faults.append("it has no line at all")
    for number, line in enumerate(lines, 1):
        held = _link_in(line)
        if held is None:
            faults.append(f"line {number} is no line of a journal")
        elif held != previous:
            what = "line 1 is not the first one of a journal" if number == 1 else _broken(number)
            faults.append(what)
        previous = link_of(line)
        at[previous] = number
    if head and head not in at:
        faults.append(f"the head {head} is not in it: lines at the end were changed, or are missing")
    later = len(lines) - at[head] if head in at else 0
    return Verified(len(lines), previous if lines else "", tuple(faults), later)


def _broken(number: int) -> str:
    return f"line {number} does not follow line {number - 1}: that was changed, or lines between them are missing"


def _link_in(line: bytes) -> str | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    held = event.get(LINK) if isinstance(event, dict) else None
    return held if isinstance(held, str) else None


def find_fault_of_signature(data: bytes, signature: bytes, public_key: bytes) -> str:
    """Return what is wrong with a signature; empty where nothing is.

    Args:
        data: What was signed.
        signature: In base64.
        public_key: Of Ed25519, in PEM.

    Raises:
        ValueError: The key is no such key.
        ImportError: The package cryptography is not installed.
    """
    serialization = importlib.import_module("cryptography.hazmat.primitives.serialization")
    ed25519 = importlib.import_module("cryptography.hazmat.primitives.asymmetric.ed25519")
    exceptions = importlib.import_module("cryptography.exceptions")
    try:
        key = serialization.load_pem_public_key(public_key)
    except exceptions.UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from error
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise ValueError(f"it is another key: {type(key).__name__}")
    try:
        key.verify(base64.b64decode(signature.strip(), validate=True), data)
    except (exceptions.InvalidSignature, ValueError):
        return "its signature is not of these bytes by this key"
    return ""


def command(arguments: Sequence[str]) -> int:
    """Run `python -m opsproof.journal verify FILE...`; return 0 where all are whole, else 1."""
    parser = argparse.ArgumentParser(prog="python -m opsproof.journal", description="Look at the journals of runs.")
    verbs = parser.add_subparsers(required=True, metavar="verify")
    verify = verbs.add_parser("verify", help="find lines that were changed, or are missing")
    verify.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a journal, or a copy from the store")
    verify.add_argument("--head", default="", help="opsproof_journal_head of the JUnit XML, with one FILE")
    verify.add_argument("--key", type=Path, help="the public key, in PEM: FILE.sig has to be its signature of FILE")
    options = parser.parse_args(arguments)
    if options.head and len(options.files) > 1:
        parser.error("--head goes with one FILE")
    is_whole = True
    for path in options.files:
        try:
            data = path.read_bytes()
            found = verify_chain(data, options.head.strip().lower())
            signed = _look_at_signature(path, data, options.key.read_bytes()) if options.key else ()
        except OSError as error:
            parser.error(f"{error.filename or path} cannot be read: {error.strerror}")
        except ImportError:
            parser.error(
                "a signature is verified by cryptography, which is not here:"
                " pip install -e '.[encryption]' in opsproof's clone"
            )
        except ValueError as error:
            parser.error(f"{options.key} is no public Ed25519 key in PEM: {error}")
        found = replace(found, faults=(*found.faults, *signed))
        is_whole = is_whole and not found.faults
        for line in _verdict(path, data, found, is_compared=bool(options.head), is_signed=options.key is not None):
            print(line, file=sys.stderr if found.faults else sys.stdout)
    return 0 if is_whole else 1


def _look_at_signature(path: Path, data: bytes, key: bytes) -> tuple[str, ...]:
    beside = path.with_name(path.name + SIGNATURE)
    if not beside.exists():
        return (f"it is not signed: there is no {beside}",)
    fault = find_fault_of_signature(data, beside.read_bytes(), key)
    return (fault,) if fault else ()


def _verdict(path: Path, data: bytes, found: Verified, *, is_compared: bool, is_signed: bool) -> Iterator[str]:
    if found.faults:
        yield f"{path}: {len(found.faults)} faults in {found.lines:,} lines"
        yield from (f"  {fault}" for fault in found.faults)
        return
    signed = ", signed" if is_signed else ""
    yield f"{path}: {found.lines:,} lines, whole{signed}; its head is {found.head}"
    if found.later:
        yield f"  the last {found.later:,} of them follow the head that was given: by the run itself, or by anybody"
    if not is_compared and not is_signed:
        yield "  compare that with opsproof_journal_head in the run's JUnit XML, or give it with --head"
    if json.loads(data.splitlines()[-1]).get("event") != LAST:
        yield "  it does not end with the end of a run: the run was killed, goes on, or lines at the end are missing"
