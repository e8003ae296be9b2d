"""Which backup a restore brings back: the newest of one's own, the newest before a time, or one that was named."""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from opsproof.archive.catalogue.absence import (
    KEPT,
    Place,
    no_backup,
    no_such_backup,
    show_time,
    telling_what_is_needed,
)
from opsproof.archive.catalogue.listing import Entry
from opsproof.archive.catalogue.newest import (
    FAILED,
    MISMATCH,
    describe_backup,
    describe_failure,
    find_newest,
    find_newest_at,
    mismatch,
    taken_of,
    way_to_unverified,
)
from opsproof.archive.catalogue.ownership import label_of, owner_of, require_owned
from opsproof.archive.catalogue.verdict import INFIX, failed_backups
from opsproof.archive.manifest import Sidecar, read_sidecar
from opsproof.archive.names import ENDINGS, SIDECAR, sidecar_name, stem_of
from opsproof.archive.sealing.signature import refuse_without_manifest, require_authentic_file
from opsproof.errors import ArchiveError, ConfigurationError, StoreDenied, StoreError
from opsproof.policies import Sealing
from opsproof.system.store import Listing, Store, open_store
from opsproof.system.store.neighbours import open_folder
from opsproof.target import DirectoryStoreSettings, S3StoreSettings, StoreSettings, Target

LATEST = "latest"
S3 = "s3://"
SQL_GZ = ".sql.gz"
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
        return _choose_object(place, wanted)
    if "/" in wanted or wanted.startswith("~") or wanted in ("", ".", ".."):
        return _choose_path(place, wanted)
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
            return _choose_path(place, wanted)
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
    return choice_of(entry, place, _why_named(entry.sidecar, "named by its id"))


def choice_of(entry: Entry, place: Place, why: str) -> Choice:
    """Return a backup of a store as the one that was chosen."""
    location = place.store.location + entry.name
    is_local = isinstance(place.keeper.store, DirectoryStoreSettings)
    path = Path(location) if is_local else None
    return Choice(entry.id, location, place.store, entry.name, path, entry.sidecar, entry.bytes, why)


def _choose_object(place: Place, address: str) -> Choice:
    bucket, _, key = address.removeprefix(S3).partition("/")
    if not bucket or not key or key.endswith("/"):
        raise ConfigurationError(
            f"{address} names no object",
            expected="s3://BUCKET/KEY of one backup",
            found="a bucket or a folder",
            kept=KEPT,
            hint=f"{place.listing_command}   shows ids, which need no address",
        )
    name = key.rpartition("/")[2]
    place = _place_at(place, address)
    store = place.store
    with telling_what_is_needed(place):
        stored = store.find(name)
        if stored is None:
            raise no_such_backup(place, name, {one.name for one in store.list() if not one.name.endswith(SIDECAR)})
        stem = _stem(name)
        has_sidecar, failed = _find_beside(store, name, stem)
        listed = Listing(name, stored.bytes, stored.modified or datetime.now(UTC))
        entry = describe_backup(store, listed, has_sidecar=has_sidecar, sealing=place.keeper.policies.sealing)
    if has_sidecar and entry.sidecar is None and not entry.problem.startswith(MISMATCH):
        raise _wrong_sidecar(address, entry.problem)
    if entry.sidecar is None:
        refuse_without_manifest(address, place.keeper.policies.sealing)
    else:
        require_owned(entry.sidecar.manifest, place.owner)
    why = _why_named(entry.sidecar, failed=failed)
    return Choice(stem, address, store, name, None, entry.sidecar, stored.bytes, why)


def _find_beside(store: Store, name: str, stem: str) -> tuple[bool, datetime | None]:
    """Return whether a manifest is beside an object, and when it was found damaged."""
    if not name.endswith(ENDINGS):
        return False, None
    try:
        names = {one.name for one in store.list(f"{stem}.")}
    except StoreDenied:  # whoever was given an address may have the right to read, and none to list
        return store.exists(sidecar_name(stem)), None
    return sidecar_name(stem) in names, failed_backups(names).get(stem)


def _choose_path(place: Place, wanted: str) -> Choice:
    try:
        path = Path(os.path.abspath(Path(wanted).expanduser()))  # noqa: PTH100  a symbolic link stays as it was named
        status = path.stat()
        if not wanted or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise _no_file(place, wanted, "nothing" if not wanted else "neither a file nor a folder")
        if stat.S_ISDIR(status.st_mode):
            _refuse_store_folder(path)
            refuse_without_manifest(str(path), place.keeper.policies.sealing)
            return Choice(path.name, str(path), None, "", path, None, _folder_bytes(path), _why_named(None))
        sidecar = _sidecar_beside(path, status.st_size, place.keeper.policies.sealing)
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a null byte
        raise _no_file(place, wanted, str(error)) from error
    if sidecar is None:
        refuse_without_manifest(str(path), place.keeper.policies.sealing)
    else:
        require_owned(sidecar.manifest, place.owner)
    failed = failed_backups(one.name for one in path.parent.glob("*" + INFIX + "*")).get(_stem(path.name))
    why = _why_named(sidecar, failed=failed if path.name.endswith(ENDINGS) else None)
    return Choice(_stem(path.name), str(path), None, "", path, sidecar, status.st_size, why)


def _place_at(place: Place, address: str) -> Place:
    folder, _, name = address.removeprefix(S3).rpartition("/")
    bucket, _, prefix = f"{folder}/".partition("/")
    if f"{S3}{bucket}/{prefix}" == place.store.location:
        return place
    if isinstance(place.keeper.store, S3StoreSettings):
        settings = replace(place.keeper.store, bucket=bucket, prefix=prefix)
        return Place(open_folder(settings, prefix), replace(place.keeper, store=settings), place.owner)
    raise ConfigurationError(
        f"Nothing says how to reach the bucket {bucket}",
        expected=f"an S3 store of {place.keeper.name}, whose region and endpoint would be used",
        found=f"the folder {place.store.location}",
        kept=KEPT,
        hint=f"aws s3 cp {shlex.quote(address)} .   and then: --backup={shlex.quote(f'./{name}')}",
    )


def _sidecar_beside(path: Path, size: int, sealing: Sealing) -> Sidecar | None:
    beside = path.with_name(sidecar_name(_stem(path.name)))
    if not path.name.endswith(ENDINGS) or not beside.is_file():
        return None
    data = beside.read_bytes()
    require_authentic_file(beside, data, sealing)
    sidecar = read_sidecar(data, str(beside))
    problem = mismatch(sidecar, path.name, size)
    if problem.startswith(MISMATCH):
        return None
    if problem:
        raise _wrong_sidecar(str(path), problem)
    return sidecar


def _refuse_store_folder(path: Path) -> None:
    held = sorted(one.name.removesuffix(SIDECAR) for one in path.iterdir() if one.name.endswith(SIDECAR))
    if held:
        raise ConfigurationError(
            f"{path} is a folder of backups, and no backup",
            expected="one of them",
            found=f"{len(held):,}, the last by name {held[-1]}",
            kept=KEPT,
            hint=f"--backup={path / held[-1]}.zip",
        )


def _folder_bytes(path: Path) -> int:
    walk = os.walk(path, onerror=_raise)
    return sum(Path(folder, name).lstat().st_size for folder, _, names in walk for name in names)


def _raise(error: OSError) -> None:
    # os.walk's default is to leave out in silence what it may not list.
    raise error


def _stem(name: str) -> str:
    if name.endswith(ENDINGS):
        return stem_of(name)
    return name.removesuffix(SQL_GZ) if name.endswith(SQL_GZ) else name.rsplit(".", 1)[0]


def _why_newest(found: Entry, unverified: Entry | None, place: Place, at: datetime | None) -> str:
    when = f" not after {show_time(at)}" if at is not None else ""
    why = f"the newest verified backup of {place.owner.label}{when}, {_age(taken_of(found))}"
    if unverified is not None:
        why += f" ({unverified.id} is newer, but does not count: {unverified.problem})"
    return why


def _why_named(sidecar: Sidecar | None, how: str = "named by its place", *, failed: datetime | None = None) -> str:
    how += f" ({describe_failure(failed)})" if failed else ""
    if sidecar is None:
        return f"{how}; {UNKNOWN}"
    manifest = sidecar.manifest
    kind = "safety" if manifest.kind == "safety" else "verified"
    taken = manifest.taken if manifest.taken.tzinfo else manifest.taken.replace(tzinfo=UTC)
    return f"{how}: a {kind} backup of {label_of(manifest)}, {_age(taken)}"


def _age(taken: datetime) -> str:
    minutes = (datetime.now(UTC) - taken).total_seconds() / 60
    if minutes < 0:
        return f"taken at {show_time(taken)}, which is yet to come by this machine's clock"
    for size, unit in ((24 * 60, "day"), (60, "hour"), (1, "minute")):
        count = int(minutes // size)
        if count:
            return f"{count:,} {unit}{'s' if count > 1 else ''} old"
    return "less than a minute old"


def _wrong_sidecar(location: str, problem: str) -> ArchiveError:
    return ArchiveError(
        f"{location} is not what the manifest beside it describes",
        expected="a file and its own manifest, or a file without one",
        found=problem,
        kept=KEPT,
        hint="get the file again; to take it as it is, unverified, put it where no manifest is beside it",
    )


def _no_file(place: Place, wanted: str, found: str) -> ConfigurationError:
    return ConfigurationError(
        f"--backup={wanted} is no backup",
        expected="a file or a folder that can be read, an id, or s3://BUCKET/KEY",
        found=found,
        kept=KEPT,
        hint=f"{place.listing_command}   shows ids",
    )
