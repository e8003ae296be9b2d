"""A backup that is named by the place where it is: an address in S3, or a path of this machine."""

from __future__ import annotations

import os
import shlex
import stat
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from opsproof.archive.catalogue.absence import KEPT, Place, no_such_backup, telling_what_is_needed
from opsproof.archive.catalogue.choice import Choice, why_named
from opsproof.archive.catalogue.newest import MISMATCH, describe_backup, mismatch
from opsproof.archive.catalogue.ownership import require_owned
from opsproof.archive.catalogue.verdict import INFIX, failed_backups
from opsproof.archive.manifest import Sidecar, read_sidecar
from opsproof.archive.names import ENDINGS, SIDECAR, sidecar_name, stem_of
from opsproof.archive.sealing.signature import refuse_without_manifest, require_authentic_file
from opsproof.errors import ArchiveError, ConfigurationError, StoreDenied
from opsproof.policies import Sealing
from opsproof.system.store import Listing, Store
from opsproof.system.store.neighbours import open_folder
from opsproof.target import S3StoreSettings

S3 = "s3://"
SQL_GZ = ".sql.gz"


def choose_object(place: Place, address: str) -> Choice:
    """Choose what an address names: `s3://bucket/key`, also in a bucket that is not the store's.

    Raises:
        ConfigurationError: It names no object, nothing says how to reach it, or it is another's.
        StoreError: There is no such object, or it cannot be looked at.
        ArchiveError: The manifest beside it is that of another.
    """
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
    why = why_named(entry.sidecar, failed=failed)
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


def choose_path(place: Place, wanted: str) -> Choice:
    """Choose a file or a folder of this machine.

    Raises:
        ConfigurationError: There is none, it is a folder of backups, or it is another's.
        ArchiveError: The manifest beside it is that of another.
    """
    try:
        path = Path(os.path.abspath(Path(wanted).expanduser()))  # noqa: PTH100  a symbolic link stays as it was named
        status = path.stat()
        if not wanted or not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
            raise _no_file(place, wanted, "nothing" if not wanted else "neither a file nor a folder")
        if stat.S_ISDIR(status.st_mode):
            _refuse_store_folder(path)
            refuse_without_manifest(str(path), place.keeper.policies.sealing)
            return Choice(path.name, str(path), None, "", path, None, _folder_bytes(path), why_named(None))
        sidecar = _sidecar_beside(path, status.st_size, place.keeper.policies.sealing)
    except (OSError, RuntimeError, ValueError) as error:  # no such home, a null byte
        raise _no_file(place, wanted, str(error)) from error
    if sidecar is None:
        refuse_without_manifest(str(path), place.keeper.policies.sealing)
    else:
        require_owned(sidecar.manifest, place.owner)
    failed = failed_backups(one.name for one in path.parent.glob("*" + INFIX + "*")).get(_stem(path.name))
    why = why_named(sidecar, failed=failed if path.name.endswith(ENDINGS) else None)
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
