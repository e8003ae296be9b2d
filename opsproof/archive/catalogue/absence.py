"""What to say where the backup that was asked for is not there: where it was looked for, and what is there instead."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from opsproof.archive.catalogue.listing import Entry
from opsproof.archive.catalogue.ownership import Owner
from opsproof.archive.names import stem_of
from opsproof.errors import BucketMissing, StoreDenied, StoreError
from opsproof.system.store import Store
from opsproof.system.store.neighbours import find_customers
from opsproof.target import DirectoryStoreSettings, Target

SHOWN = 5
KEPT = "nothing was changed"
NEEDED = "check the S3 bucket and the customer name; the credentials need s3:ListBucket and s3:GetObject"
NEEDED_OF_FOLDER = "check backup_dir and the customer name"


@dataclass(frozen=True)
class Place:
    """Where backups are looked for: the store, the target whose place it is, and whose backups count."""

    store: Store
    keeper: Target
    owner: Owner

    @property
    def description(self) -> str:
        """Return the location, and the settings that it follows from."""
        settings, customer = self.keeper.store, self.keeper.customer or "none"
        if isinstance(settings, DirectoryStoreSettings):
            return f"{self.store.location} (folder {settings.path}, customer {customer})"
        prefix = settings.prefix or "none"
        return f"{self.store.location} (bucket {settings.bucket}, customer {customer}, prefix {prefix})"

    @property
    def needed(self) -> str:
        """Return what to look at first where something is missing."""
        return NEEDED_OF_FOLDER if isinstance(self.keeper.store, DirectoryStoreSettings) else NEEDED

    @property
    def listing_command(self) -> str:
        """Return what shows the backups."""
        return f"pytest --list-backups --env={shlex.quote(self.keeper.environment)}"


@dataclass(frozen=True)
class Reason:
    """Why a backup was not the one. `rank`: the lower, the nearer to what was wanted."""

    rank: int
    label: str
    oldest: bool = False


@dataclass
class _Group:
    count: int = 0
    nearest: Entry | None = None
    hint: str = ""


@dataclass
class Tally:
    """Counts what was passed over, and keeps the nearest of each kind; its size does not grow with the store's."""

    orphans: int = 0
    groups: dict[Reason, _Group] = field(default_factory=dict)

    def add(self, reason: Reason, entry: Entry, hint: str) -> None:
        """Count a backup that was passed over; `hint` is what to type to get this very one."""
        group = self.groups.setdefault(reason, _Group())
        group.count += 1
        if group.nearest is None or _is_nearer(entry, group.nearest, reason.oldest):
            group.nearest, group.hint = entry, hint

    def lines(self) -> Iterator[tuple[str, str]]:
        """Yield what is there and what to type for it, the nearest to what was wanted first."""
        for reason, group in sorted(self.groups.items(), key=lambda item: (item[0].rank, item[0].label)):
            if group.nearest is not None:
                which = "oldest" if reason.oldest else "newest"
                example = group.nearest.id + (f" ({group.nearest.problem})" if group.nearest.problem else "")
                only = f"1 {reason.label}: {example}"
                yield only if group.count == 1 else f"{group.count:,} {reason.label}, the {which} {example}", group.hint


def no_backup(place: Place, at: datetime | None, tally: Tally) -> StoreError:
    """Return the error of a target that has no verified backup, or none so old."""
    what = f"verified backup of {place.owner.label}"
    when = f" not after {show_time(at)}" if at else ""
    found, hints = [], []
    for number, (line, hint) in enumerate(tally.lines()):
        found.append(line)
        if number < SHOWN:
            hints.append(hint)
    if tally.orphans:
        found.append(f"{tally.orphans:,} manifests without their backups")
    if not found:
        found.append(_emptiness(place))
    found += _beside(place)
    return StoreError(
        f"No {what}{when} was found",
        expected=f"a {what}{when} in {place.description}",
        found="\n".join(found),
        kept=KEPT,
        hint="\n".join([*hints, place.needed]),
    )


def no_such_backup(place: Place, wanted: str, names: Collection[str]) -> StoreError:
    """Return the error of an id that is not in the store, with those that are nearest to it.

    Args:
        place: Where it was looked for.
        wanted: The id.
        names: What is there.
    """
    ids = {stem_of(name) for name in names}
    nearest = difflib.get_close_matches(stem_of(wanted), ids, SHOWN)
    found = [f"the nearest: {', '.join(nearest)}"] if nearest else []
    found = found or ([f"{len(ids):,} {'other' if len(ids) == 1 else 'others'}"] if names else [_emptiness(place)])
    return StoreError(
        f"There is no backup {wanted}",
        expected=f"{wanted} in {place.description}",
        found="\n".join([*found, *([] if names else _beside(place))]),
        kept=KEPT,
        hint=f"{place.listing_command}   shows what is there\n{place.needed}",
    )


@contextmanager
def telling_what_is_needed(place: Place) -> Iterator[None]:
    """Let a store's refusal say what was looked for, and what a restore needs to be allowed."""
    try:
        yield
    except (StoreDenied, BucketMissing) as error:
        error.expected = f"{error.expected}\nto look for backups of {place.owner.label} in {place.description}"
        error.kept = KEPT
        error.hint = f"{error.hint}\n{place.needed}"
        raise


def show_time(moment: datetime) -> str:
    """Return a UTC time as `--at` takes it, in people's form."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def _is_nearer(one: Entry, other: Entry, oldest: bool) -> bool:
    if one.taken is None or other.taken is None:
        return one.taken is not None
    return one.taken < other.taken if oldest else one.taken > other.taken


def _emptiness(place: Place) -> str:
    if isinstance(place.keeper.store, DirectoryStoreSettings) and not Path(place.store.location).exists():
        return f"there is no folder {place.store.location}"
    return f"nothing at all under {place.store.location}"


def _beside(place: Place) -> list[str]:
    customers = [name for name in find_customers(place.keeper.store) if name != place.keeper.customer]
    if not customers:
        return []
    near = difflib.get_close_matches(place.keeper.customer, customers, SHOWN)
    shown = [*near, *(name for name in customers if name not in near)][:SHOWN]
    more = f" and {len(customers) - len(shown):,} more" if len(customers) > len(shown) else ""
    return [f"folders of customers beside it: {', '.join(shown)}{more}"]
