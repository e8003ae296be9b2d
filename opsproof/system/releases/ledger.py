"""The ledger beside the releases: a line per deploy and per rollback, who, when, of what, and the backup before."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields

from opsproof.system.hosts.host import Host

LEDGER = ".opsproof-ledger.jsonl"
# A line that a full disk has cut short must not swallow the next one.
_APPEND = """
cd -- "$0" && { [ ! -s "$1" ] || [ -z "$(tail -c 1 -- "$1")" ] || echo >>"$1"; } && printf '%s\\n' "$2" >>"$1"
"""


@dataclass(frozen=True)
class Entry:
    """A line of the ledger.

    Attributes:
        release: Its name.
        event: `deployed`, or `rolled back` where `current` went back to it.
        revision: What its file REVISION says.
        source: What it was made from.
        previous: The release that was current before; empty where there was none.
        backup: The backup that was taken, or taken over, before.
        parked: The database that was live before, where it was exchanged.
        when: ISO 8601 in UTC.
        by: `user@machine`.
    """

    release: str
    event: str
    revision: str = ""
    source: str = ""
    previous: str = ""
    backup: str = ""
    parked: str = ""
    when: str = ""
    by: str = ""


@dataclass(frozen=True)
class Ledger:
    """The ledger of a folder of releases.

    Attributes:
        path: Where it is on its host.
        entries: Its lines, the oldest first.
        damaged: The numbers of the lines that cannot be read, from 1 on.
    """

    path: str
    entries: tuple[Entry, ...]
    damaged: tuple[int, ...]


def read_ledger(host: Host, root: str) -> Ledger:
    """Return the ledger of a folder of releases.

    Raises:
        HostError: It cannot be read.
    """
    path = f"{root}/{LEDGER}"
    text = host.run("sh", "-c", '[ ! -f "$0" ] || cat -- "$0"', path).stdout
    known, found, damaged = {one.name for one in fields(Entry)}, list[Entry](), list[int]()
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            one = json.loads(line)
            words = {name: str(value) for name, value in one.items() if name in known}
            found.append(Entry(**words))
        except (ValueError, TypeError, AttributeError):
            damaged.append(number)
    return Ledger(path, tuple(found), tuple(damaged))


def write_entry(host: Host, root: str, entry: Entry) -> None:
    """Add a line to the ledger.

    Raises:
        HostError: It cannot be written.
    """
    host.run("sh", "-c", _APPEND, root, LEDGER, json.dumps(asdict(entry)))
