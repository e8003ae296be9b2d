"""The newest backup of somebody's in a store, without reading every sidecar there, and without missing one."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from opsproof.archive.catalogue.absence import Place, Reason, Tally, show_time
from opsproof.archive.catalogue.listing import READ_AT_ONCE, Entry
from opsproof.archive.catalogue.verdict import failed_backups
from opsproof.archive.manifest import SEED_STAMP, STAMP, Sidecar, is_backup_of, read_sidecar
from opsproof.archive.names import ENDINGS, SIDECAR, sidecar_name, stem_of
from opsproof.archive.sealing.signature import require_authentic
from opsproof.errors import ArchiveError, StoreDenied, StoreError, StoreUnreachable
from opsproof.policies import Sealing
from opsproof.system.store import Listing, Store

STAMPS = (
    (re.compile(r"_(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_(\d+))?\.zip(?:\.age)?"), STAMP),
    (re.compile(r"_(\d{8}_\d{6})(?:_(\d+))?\.sql(?:\.age)?"), SEED_STAMP),
)
# A snapshot is older than the object that holds it, as far as the clocks of server and store agree.
CLOCKS_DIFFER_BY = timedelta(days=1)
NO_MANIFEST = "no manifest beside it"
MISMATCH = "its manifest is that of"
OTHER_SIZE = "but its manifest says"
FAILED = "its verification has failed"


@dataclass(frozen=True)
class Search:
    """What a search came to.

    Attributes:
        found: The newest backup that may be taken; None if there is none.
        unverified: A backup by its name of the same database, newer than `found`, that does not count.
        tally: What was passed over.
    """

    found: Entry | None
    unverified: Entry | None
    tally: Tally


def find_newest(place: Place, at: datetime | None) -> Search:
    """Find the newest verified backup, by its manifest's time, that is no safety backup, and of a time that has come.

    Sidecars are read from the newest object on, eight at once, until no object that is left can hold a newer snapshot.

    Args:
        place: Where, and whose.
        at: The backup may not be newer than this.

    Raises:
        StoreError: The store cannot be listed, or a sidecar that is there cannot be read: an older backup is never
            taken in place of one that could not be looked at.
    """
    listed = {one.name: one for one in place.store.list()}
    backups = newest_first(listed.values())
    held, failed = {sidecar_name(stem_of(one.name)) for one in backups}, failed_backups(listed)
    tally = Tally(orphans=sum(name.endswith(SIDECAR) and name not in held for name in listed))
    best: Entry | None = None
    unverified: Entry | None = None

    describe = describing(place, listed, failed)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for batch in batches_of(backups):
            if best is not None and taken_of(best) > latest_moment(batch[0]):
                break
            for entry in pool.map(describe, batch):
                objection = _objection(entry, place, at)
                if objection is None:
                    best = max(best or entry, entry, key=lambda one: (taken_of(one), one.id))
                    continue
                tally.add(objection[0], entry, objection[1])
                if not entry.is_verified and _is_own_by_name(entry, place, at):
                    unverified = max(unverified or entry, entry, key=_order)
    if best is not None and unverified is not None and _order(unverified) <= _order(best):
        unverified = None
    return Search(best, unverified, tally)


def find_newest_at(place: Place, heads: Sequence[str], major: int) -> Entry | None:
    """Find the newest verified backup of somebody's own whose database was at these heads; one for safety will do.

    Args:
        place: Where, and whose.
        heads: Alembic's, in any order.
        major: The major version of the server that it has to come from.

    Raises:
        StoreError: The store cannot be listed, or a sidecar that is there cannot be read.
    """
    listed = {one.name: one for one in place.store.list()}
    failed = failed_backups(listed)
    best: Entry | None = None

    describe = describing(place, listed, failed)
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        for batch in batches_of(newest_first(listed.values())):
            if best is not None and taken_of(best) > latest_moment(batch[0]):
                break
            for entry in pool.map(describe, batch):
                if entry.sidecar is not None and _is_at(entry.sidecar, place, heads, major):
                    best = max(best or entry, entry, key=lambda one: (taken_of(one), one.id))
    return best


def describing(place: Place, listed: Collection[str], failed: Mapping[str, datetime]) -> Callable[[Listing], Entry]:
    """Return what describes a backup of a listing, as `describe_backup` does.

    Args:
        place: Where, and whose.
        listed: The names of all that is there.
        failed: When which backup was found damaged, by id.
    """

    def describe(one: Listing) -> Entry:
        stem = stem_of(one.name)
        return describe_backup(
            place.store,
            one,
            has_sidecar=sidecar_name(stem) in listed,
            failed=failed.get(stem),
            sealing=place.keeper.policies.sealing,
        )

    return describe


def describe_backup(
    store: Store,
    listed: Listing,
    *,
    has_sidecar: bool,
    failed: datetime | None = None,
    sealing: Sealing = Sealing(),  # noqa: B008  frozen
) -> Entry:
    """Return a backup with its sidecar, if that is there, is its own, and nothing has proven it wrong since.

    Unlike a listing, which shows what it can, this raises where a sidecar could not be looked at.

    Args:
        store: Where it is.
        listed: The backup.
        has_sidecar: Whether there is one beside it.
        failed: When it was found damaged, if that is the last that is known of it; then nothing is read.
        sealing: Names the public key whose signature it must have, where there is one.

    Raises:
        StoreError: The sidecar is there and cannot be read.
    """
    stem = stem_of(listed.name)
    sidecar, problem = None, NO_MANIFEST
    if has_sidecar and failed is not None:
        problem = describe_failure(failed)
    elif has_sidecar:
        name = sidecar_name(stem)
        try:
            data = store.get_small(name)
            require_authentic(store, name, data, sealing)
            sidecar = read_sidecar(data, name)
            problem = mismatch(sidecar, listed.name, listed.bytes)
        except ArchiveError as error:
            problem = error.summary
        except (StoreDenied, StoreUnreachable):
            raise
        except StoreError:
            if store.exists(name):
                raise
            # Retention removes the sidecar first: the backup is on its way out.
    return Entry(stem, listed.name, listed.bytes, listed.modified, None if problem else sidecar, problem)


def describe_failure(when: datetime) -> str:
    """Return why a backup does not count whose last verification has found it damaged."""
    return f"{FAILED}, at {show_time(when)}"


def mismatch(sidecar: Sidecar, name: str, size: int) -> str:
    """Return why a sidecar does not describe the file beside it; empty if it does."""
    # An .sql that was unpacked beside its bundle shares the name of the bundle's sidecar.
    if sidecar.name.removeprefix(stem_of(sidecar.name)) != name.removeprefix(stem_of(name)):
        return f"{MISMATCH} {sidecar.name}"
    return "" if sidecar.bytes == size else f"{size:,} bytes, {OTHER_SIZE} {sidecar.bytes:,}"


def taken_of(entry: Entry) -> datetime:
    """Return when the snapshot was taken; of an unverified backup what its name says, or when it was written."""
    if entry.sidecar is not None:
        taken = entry.sidecar.manifest.taken
        return taken if taken.tzinfo else taken.replace(tzinfo=UTC)
    return _stamp(entry.name) or entry.modified or datetime.min.replace(tzinfo=UTC)


def _order(entry: Entry) -> tuple[datetime, int]:
    """Return what tells which is newer: a name has no fractions of a second, but a number from the second one on."""
    shapes = (pattern.search(entry.name) for pattern, _ in STAMPS)
    number = next((shape[2] for shape in shapes if shape), None)
    return taken_of(entry).replace(microsecond=0), int(number or 1)


def way_to_unverified(entry: Entry, place: Place) -> str:
    """Return what to do about a backup that does not count."""
    as_it_is = f"--backup={shlex.quote(place.store.location + entry.name)}   takes {entry.id} as it is, unverified"
    environment = shlex.quote(place.keeper.environment)
    if entry.problem.startswith(FAILED):
        again = f"pytest checks/test_backups.py --env={environment} --backup={shlex.quote(entry.id)}"
        return f"{again}   verifies it again\n{as_it_is}"
    if entry.problem != NO_MANIFEST:
        return f"take a new backup: pytest actions/test_backup.py --env={environment}"
    return as_it_is


def _objection(entry: Entry, place: Place, at: datetime | None) -> tuple[Reason, str] | None:
    """Return why a backup may not be taken, and what to type to take it all the same; None if it may be."""
    by_id = f"--backup={shlex.quote(entry.id)}"
    if entry.sidecar is None:
        label = "found damaged" if entry.problem.startswith(FAILED) else "never verified"
        return Reason(3, label), way_to_unverified(entry, place)
    manifest, owner = entry.sidecar.manifest, place.owner
    if not owner.owns(manifest):
        return Reason(2, f"of {owner.describe_other(manifest)}"), owner.way_to(manifest)
    if manifest.kind == "safety":
        return Reason(1, "taken for safety"), f"{by_id}   takes that safety backup"
    if taken_of(entry) - datetime.now(UTC) > CLOCKS_DIFFER_BY:
        # It would stay the newest until then, whatever is backed up meanwhile.
        return Reason(1, "taken at a time that is yet to come by this machine's clock"), by_id
    # A time is copied from a listing, which shows no fractions of a second.
    if at is not None and taken_of(entry).replace(microsecond=0) > at:
        return Reason(0, f"taken after {show_time(at)}", oldest=True), by_id
    return None


def _is_own_by_name(entry: Entry, place: Place, at: datetime | None) -> bool:
    owner = place.owner
    database = owner.database or place.keeper.database.name
    return is_backup_of(entry.name, database, owner.environment) and (at is None or taken_of(entry) <= at)


def _is_at(sidecar: Sidecar, place: Place, heads: Sequence[str], major: int) -> bool:
    manifest = sidecar.manifest
    return (
        place.owner.owns(manifest)
        and sorted(manifest.alembic_revisions) == sorted(heads)
        and manifest.server.version.partition(".")[0] == str(major)
    )


def newest_first(listed: Iterable[Listing]) -> list[Listing]:
    """Return the backups of a listing, those first that may be the newest."""
    backups = [one for one in listed if one.name.endswith(ENDINGS)]
    return sorted(backups, key=lambda one: (latest_moment(one), one.name), reverse=True)


def batches_of(backups: Sequence[Listing]) -> Iterator[Sequence[Listing]]:
    """Yield as many at a time as are looked at together."""
    return (backups[start : start + READ_AT_ONCE] for start in range(0, len(backups), READ_AT_ONCE))


def latest_moment(listed: Listing) -> datetime:
    """Return the time after which this object's snapshot cannot have been taken."""
    written = listed.modified + CLOCKS_DIFFER_BY
    # A time of writing may be lost where files are copied about; the name says it, too.
    stamp = _stamp(listed.name)
    return written if stamp is None else max(written, stamp.replace(microsecond=999_999))


def _stamp(name: str) -> datetime | None:
    for pattern, form in STAMPS:
        if shape := pattern.search(name):
            try:
                return datetime.strptime(shape[1], form).replace(tzinfo=UTC)
            except ValueError:  # a 13th month
                return None
    return None
