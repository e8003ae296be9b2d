"""Lines that nobody can change, leave out or add without it being seen: each holds the SHA-256 of the one before it.

What the last line is, its *head*, has to be known from elsewhere (a run prints it into its JUnit XML): a whole chain
can be written anew, and one that was cut short is a chain still.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

LINK = "previous"
FIRST = "0" * 64
"""What the first line holds."""


@dataclass(frozen=True)
class Verified:
    """What a chain came to: its lines, its head, and what is wrong with it, a line each."""

    lines: int
    head: str
    faults: tuple[str, ...]


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
    faults, previous, seen = [], FIRST, set[str]()
    if lines.pop():
        faults.append(f"line {len(lines) + 1} has no end: the writer was killed, or the file was cut short")
    for number, line in enumerate(lines, 1):
        held = _link_in(line)
        if held is None:
            faults.append(f"line {number} is no line of a journal")
        elif held != previous:
            what = "line 1 is not the first one of a journal" if number == 1 else _broken(number)
            faults.append(what)
        previous = link_of(line)
        seen.add(previous)
    if head and head not in seen:
        faults.append(f"the head {head} is not in it: lines at the end were changed, or are missing")
    return Verified(len(lines), previous if lines else "", tuple(faults))


def _broken(number: int) -> str:
    return f"line {number} does not follow line {number - 1}: that was changed, or lines between them are missing"


def _link_in(line: bytes) -> str | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    held = event.get(LINK) if isinstance(event, dict) else None
    return held if isinstance(held, str) else None


def command(arguments: Sequence[str]) -> int:
    """Run `python -m opsproof.journal verify FILE...`; return 0 where all are whole, else 1."""
    parser = argparse.ArgumentParser(prog="python -m opsproof.journal", description="Look at the journals of runs.")
    verbs = parser.add_subparsers(required=True, metavar="verify")
    verify = verbs.add_parser("verify", help="find lines that were changed, or are missing")
    verify.add_argument("files", metavar="FILE", nargs="+", type=Path, help="a journal, or a copy from the store")
    verify.add_argument("--head", default="", help="opsproof_journal_head of the JUnit XML, with one FILE")
    options = parser.parse_args(arguments)
    if options.head and len(options.files) > 1:
        parser.error("--head goes with one FILE")
    is_whole = True
    for path in options.files:
        try:
            found = verify_chain(path.read_bytes(), options.head.strip().lower())
        except OSError as error:
            parser.error(f"{path} cannot be read: {error.strerror}")
        is_whole = is_whole and not found.faults
        for line in _verdict(path, found, with_head=bool(options.head)):
            print(line, file=sys.stderr if found.faults else sys.stdout)
    return 0 if is_whole else 1


def _verdict(path: Path, found: Verified, *, with_head: bool) -> Iterator[str]:
    if found.faults:
        yield f"{path}: {len(found.faults)} faults in {found.lines:,} lines"
        yield from (f"  {fault}" for fault in found.faults)
        return
    yield f"{path}: {found.lines:,} lines, whole; its head is {found.head}"
    if not with_head:
        yield "  compare that with opsproof_journal_head in the run's JUnit XML, or give it with --head"
