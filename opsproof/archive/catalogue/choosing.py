"""Which backup a restore brings back: the newest of one's own, the newest before a time, or one that was named."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from opsproof.archive.catalogue.absence import (
    KEPT,
    Place,
    no_backup,
    no_such_backup,
    show_time,
    telling_what_is_needed,
)
from opsproof.archive.catalogue.choice import Choice, choice_of, show_age, why_named
from opsproof.archive.catalogue.listing import Entry
from opsproof.archive.catalogue.newest import (
    FAILED,
    describe_backup,
    find_newest,
    find_newest_at,
    taken_of,
    way_to_unverified,
)
from opsproof.archive.catalogue.ownership import owner_of, require_owned
from opsproof.archive.catalogue.placed import S3, choose_object, choose_path
from opsproof.archive.catalogue.verdict import failed_backups
from opsproof.archive.names import ENDINGS, SIDECAR, sidecar_name, stem_of
from opsproof.errors import ConfigurationError, StoreError
from opsproof.system.store import Store, open_store
from opsproof.target import StoreSettings, Target

LATEST = "latest"


def choose_backup(
    target: Target,
    store: Store,
    wanted: str,
    at: datetime | None,
    source: Target | None = None,
    source_store: Store | None = None,
    open_store: Callable[[StoreSettings, str], Store] = open_store,
) -> Choice:
    """Choose the backup that is brought back to `target`; nothing is changed or downloaded.

    Args:
        target: What is restored.
        store: The target's store.
        wanted: `latest`; an id, with or without its ending; `s3://bucket/key`; or the path of a file or a folder.
        at: With `latest`: the newest that is not newer than this, to the second.
        source: Whose backup it is, where it is not the target's own: what `--from` names.
        source_store: The source's store; by default it is opened.
        open_store: Opens it.

    Raises:
        StoreError: There is no such backup, it was never verified, or the store cannot be reached or read.
        ConfigurationError: It is another's, or `wanted` names nothing that can be a backup.
        ArchiveError: The manifest beside a file is none, or that of another file.
    """
    keeper = source or target
    if at is not None and wanted != LATEST:
        raise ConfigurationError(
            "A time and a backup both say which backup it is to be",
            expected="one of them",
            found=f"{show_time(at)}, and {wanted}",
            kept=KEPT,
            hint="the same command without --at, or without --backup",
        )
    if source is not None:
        store = source_store or open_store(source.store, source.customer)
    place = Place(store, keeper, owner_of(target, source))
    if wanted.startswith(S3):
        return choose_object(place, wanted)
    if "/" in wanted or wanted.startswith("~") or wanted in ("", ".", ".."):
        return choose_path(place, wanted)
    with telling_what_is_needed(place):
        return _choose_newest(place, at) if wanted == LATEST else _choose_by_id(place, wanted)


def choose_backup_at(target: Target, store: Store, heads: Sequence[str], major: int) -> Choice | None:
    """Choose the newest verified backup of a target whose database was at these heads; None where there is none.

    Args:
        target: Whose.
        store: The target's store.
        heads: Alembic's.
        major: The major version of the server that it has to come from.

    Raises:
        StoreError: The store cannot be listed, or a manifest in it cannot be read.
    """
    place = Place(store, target, owner_of(target))
    entry = find_newest_at(place, heads, major)
    return None if entry is None else choice_of(entry, place, f"the newest at {', '.join(heads) or 'base'}")


def _choose_newest(place: Place, at: datetime | None) -> Choice:
    search = find_newest(place, at)
    if search.found is None:
        raise no_backup(place, at, search.tally)
    return choice_of(search.found, place, _why_newest(search.found, search.unverified, place, at))


def _choose_by_id(place: Place, wanted: str) -> Choice:
    stem = stem_of(wanted.removesuffix(SIDECAR))
    wishes = {wanted} if wanted.endswith(ENDINGS) else {stem + ending for ending in ENDINGS}
    listed = {one.name: one for one in place.store.list(stem)}
    found = [listed[name] for name in sorted(wishes & listed.keys())]
    if not found:
        if Path(wanted).is_file():
            return choose_path(place, wanted)
        raise no_such_backup(place, wanted, {one.name for one in place.store.list() if one.name.endswith(ENDINGS)})
    has_sidecar, failed = sidecar_name(stem) in listed, failed_backups(listed).get(stem)
    entries = [
        describe_backup(place.store, one, has_sidecar=has_sidecar, failed=failed, sealing=place.keeper.policies.sealing)
        for one in found
    ]
    entry = next((one for one in entries if one.is_verified), entries[0])
    if entry.sidecar is None:
        is_damaged = entry.problem.startswith(FAILED)
        raise StoreError(
            f"{entry.id} was found damaged, so it counts for nothing"
            if is_damaged
            else f"{entry.id} was never verified, so it counts for nothing",
            expected="a backup whose last verification has passed"
            if is_damaged
            else f"its manifest {place.store.location}{sidecar_name(stem)}, which is written last",
            found=entry.problem,
            kept=KEPT,
            hint=f"{place.listing_command}   shows those that are\n{way_to_unverified(entry, place)}",
        )
    require_owned(entry.sidecar.manifest, place.owner)
    return choice_of(entry, place, why_named(entry.sidecar, "named by its id"))


def _why_newest(found: Entry, unverified: Entry | None, place: Place, at: datetime | None) -> str:
    when = f" not after {show_time(at)}" if at is not None else ""
    why = f"the newest verified backup of {place.owner.label}{when}, {show_age(taken_of(found))}"
    if unverified is not None:
        why += f" ({unverified.id} is newer, but does not count: {unverified.problem})"
    return why
