"""The backup that was chosen, and the sentence that says why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from opsproof.archive.catalogue.absence import Place, show_time
from opsproof.archive.catalogue.listing import Entry
from opsproof.archive.catalogue.newest import describe_failure
from opsproof.archive.catalogue.ownership import label_of
from opsproof.archive.manifest import Sidecar
from opsproof.system.store import Store
from opsproof.target import DirectoryStoreSettings

UNKNOWN = "its content alone says what it is: there is no manifest beside it"


@dataclass(frozen=True)
class Choice:
    """The backup that was chosen.

    Attributes:
        id: Its name without the ending.
        location: Where it is, as a person sees it: an address or a path.
        store: The store that holds it; None for one that was named by its path.
        name: Its name in the store; empty for one that was named by its path.
        path: The local file or folder, which is read where it is and belongs to somebody else; None for what has to be
            downloaded.
        sidecar: What stands beside it; None where there is nothing: another tool's, or one that was never verified.
        bytes: Its size.
        why: One sentence: why it is this one.
    """

    id: str
    location: str
    store: Store | None
    name: str
    path: Path | None
    sidecar: Sidecar | None
    bytes: int
    why: str


def choice_of(entry: Entry, place: Place, why: str) -> Choice:
    """Return a backup of a store as the one that was chosen."""
    location = place.store.location + entry.name
    is_local = isinstance(place.keeper.store, DirectoryStoreSettings)
    path = Path(location) if is_local else None
    return Choice(entry.id, location, place.store, entry.name, path, entry.sidecar, entry.bytes, why)


def why_named(sidecar: Sidecar | None, how: str = "named by its place", *, failed: datetime | None = None) -> str:
    """Return why it is this one, which somebody has named.

    Args:
        sidecar: What stands beside it.
        how: It was named.
        failed: When it was found damaged.
    """
    how += f" ({describe_failure(failed)})" if failed else ""
    if sidecar is None:
        return f"{how}; {UNKNOWN}"
    manifest = sidecar.manifest
    kind = "safety" if manifest.kind == "safety" else "verified"
    taken = manifest.taken if manifest.taken.tzinfo else manifest.taken.replace(tzinfo=UTC)
    return f"{how}: a {kind} backup of {label_of(manifest)}, {show_age(taken)}"


def show_age(taken: datetime) -> str:
    """Return how long ago something was taken."""
    minutes = (datetime.now(UTC) - taken).total_seconds() / 60
    if minutes < 0:
        return f"taken at {show_time(taken)}, which is yet to come by this machine's clock"
    for size, unit in ((24 * 60, "day"), (60, "hour"), (1, "minute")):
        count = int(minutes // size)
        if count:
            return f"{count:,} {unit}{'s' if count > 1 else ''} old"
    return "less than a minute old"
