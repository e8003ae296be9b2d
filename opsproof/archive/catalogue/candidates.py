"""Which backups a verification reads: unlike a restore it also takes those that count for nothing, to say why."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from opsproof.archive.catalogue.absence import Place, Tally, no_backup, telling_what_is_needed
from opsproof.archive.catalogue.choice import Choice, choice_of
from opsproof.archive.catalogue.choosing import LATEST, choose_backup
from opsproof.archive.catalogue.listing import READ_AT_ONCE, Entry
from opsproof.archive.catalogue.newest import (
    FAILED,
    MISMATCH,
    NO_MANIFEST,
    OTHER_SIZE,
    describe_backup,
    find_newest,
    taken_of,
)
from opsproof.archive.catalogue.ownership import owner_of, require_owned
from opsproof.archive.manifest import is_backup_of
from opsproof.archive.names import ENDINGS, SIDECAR, sidecar_name, stem_of
from opsproof.errors import ArchiveError, OpsproofError, StoreError
from opsproof.system.store import Listing, Store
from opsproof.target import Target

ALL = "all"


@dataclass(frozen=True)
class Candidate:
    """A backup that is to be verified.

    Attributes:
        id: Its name without the ending.
        location: Where it is, as a person sees it.
        bytes: Its size.
        choice: What to read; None where there is nothing that could be believed.
        damage: Without a choice: what is wrong with it before it is read; None where it was never finished.
        is_stored: Whether a verdict on it has a place: it is in a store, with a manifest beside it.
    """

    id: str
    location: str
    bytes: int
    choice: Choice | None
    damage: OpsproofError | None
    is_stored: bool


def find_candidates(target: Target, store: Store, wanted: str, at: datetime | None) -> tuple[Candidate, ...]:
    """Find what `--backup` names, the newest first; nothing is downloaded.

    Args:
        target: Whose.
        store: Its store.
        wanted: `all` of the target's own; `latest`, with whatever is newer and damaged; an id; an address or a path.
        at: With `latest`: the newest that is not newer than this.

    Raises:
        StoreError: There is no such backup, or the store cannot be listed or read.
        ConfigurationError: It is another target's, or `wanted` names nothing that can be a backup.
        ArchiveError: The manifest beside a file is none, or that of another file.
    """
    place = Place(store, target, owner_of(target))
    with telling_what_is_needed(place):
        if wanted == ALL:
            found = _own_of(place, _describe_all(place, ""))
            if not found:
                raise no_backup(place, None, Tally())
            return tuple(_candidate(place, one, "one of all") for one in found)
        if wanted == LATEST:
            search = find_newest(place, at)
            damaged = _own_with_the_id_of(place, search.unverified)
            if damaged is None or damaged.problem == NO_MANIFEST or damaged.problem.startswith(FAILED):
                return (_chosen(choose_backup(target, store, wanted, at)),)
            newest = search.found
            why = "the newest that can be read"
            return tuple(_candidate(place, one, why) for one in (damaged, newest) if one is not None)
        stem = stem_of(wanted.removesuffix(SIDECAR))
        if "/" not in stem and not stem.startswith("~") and stem not in ("", ".", ".."):
            named = [one for one in _describe_all(place, stem) if wanted in (one.id, one.name, sidecar_name(one.id))]
            if named:
                best = next((one for one in named if one.is_verified), named[0])
                if best.sidecar is not None:
                    require_owned(best.sidecar.manifest, place.owner)
                return (_candidate(place, best, "named by its id"),)
    return (_chosen(choose_backup(target, store, wanted, at)),)


def _describe_all(place: Place, prefix: str) -> list[Entry]:
    listed = {one.name: one for one in place.store.list(prefix)}
    backups = [one for one in listed.values() if one.name.endswith(ENDINGS)]

    def describe(one: Listing) -> Entry:
        has_sidecar = sidecar_name(stem_of(one.name)) in listed
        return describe_backup(place.store, one, has_sidecar=has_sidecar, sealing=place.keeper.policies.sealing)

    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        entries = list(pool.map(describe, backups))
    # What somebody has unpacked or decrypted beside a backup shares its id: a verdict on it would be one on the backup.
    described = {one.id for one in entries if not one.problem.startswith(MISMATCH)}
    return [one for one in entries if one.id not in described or not one.problem.startswith(MISMATCH)]


def _own_with_the_id_of(place: Place, entry: Entry | None) -> Entry | None:
    """Return what does not count; of something beside a backup that backup, and None where it is whole."""
    if entry is None or not entry.problem.startswith(MISMATCH):
        return entry
    return next((one for one in _describe_all(place, entry.id) if one.id == entry.id and not one.is_verified), None)


def _own_of(place: Place, entries: Iterable[Entry]) -> list[Entry]:
    """Return one's own, by what their manifests say, or by their names where that cannot be believed."""
    database, environment = place.keeper.database.name, place.keeper.environment
    own = [
        one
        for one in entries
        if (
            place.owner.owns(one.sidecar.manifest)
            if one.sidecar is not None
            else is_backup_of(one.name, database, environment)
        )
    ]
    return sorted(own, key=lambda one: (taken_of(one), one.id), reverse=True)


def _candidate(place: Place, entry: Entry, why: str) -> Candidate:
    location = place.store.location + entry.name
    if entry.sidecar is not None:
        choice = choice_of(entry, place, why)
        return Candidate(entry.id, location, entry.bytes, choice, None, is_stored=True)
    if entry.problem == NO_MANIFEST:
        return Candidate(entry.id, location, entry.bytes, None, None, is_stored=False)
    # A manifest that this version cannot read may be one of a newer version: that says nothing of the backup.
    kind = ArchiveError if entry.problem.startswith(MISMATCH) or OTHER_SIZE in entry.problem else StoreError
    damage = kind(
        f"{entry.id} and the manifest beside it do not belong together",
        expected=f"{location} as {sidecar_name(entry.id)} describes it",
        found=entry.problem,
        kept="the stored backup is as it was",
        hint="take a new backup, or choose another with --backup=ID",
    )
    return Candidate(entry.id, location, entry.bytes, None, damage, is_stored=True)


def _chosen(choice: Choice) -> Candidate:
    is_stored = choice.store is not None and choice.sidecar is not None
    return Candidate(choice.id, choice.location, choice.bytes, choice, None, is_stored=is_stored)
