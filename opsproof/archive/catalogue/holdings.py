"""What a store holds of each backup: the bundle, its manifest, what stands beside, and what retention has to know."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import ValidationError

from opsproof.archive.catalogue.index import NAME, Contents, Line, Said, say
from opsproof.archive.catalogue.newest import NO_MANIFEST
from opsproof.archive.catalogue.retention import Known, Standing, Whose
from opsproof.archive.catalogue.verdict import failed_backups, parse_verdict
from opsproof.archive.manifest import Manifest, is_backup_of, read_sidecar
from opsproof.archive.names import ENDINGS, SIDECAR, sidecar_name, stem_of
from opsproof.archive.reading.zipread import ZipReader
from opsproof.archive.sealing.signature import SIGNATURE, require_authentic
from opsproof.errors import ArchiveError, StoreError
from opsproof.policies import Sealing
from opsproof.system.store import Listing, Store
from opsproof.target import DirectoryStoreSettings, StoreSettings

BUNDLE = ".zip"
MANIFEST = "manifest.json"
# A bundle that no manifest stands beside says itself whose it is, at its end; a store is read from the beginning.
MOST_FETCHED = 64 << 20
MOST_MANIFEST = 16 << 20


@dataclass(frozen=True)
class Holding:
    """A backup as it lies in the store.

    Attributes:
        known: What retention goes by.
        bundle: The backup itself; None where only what stands beside it is there.
        sidecar: Its manifest; None where there is none, or it is another's.
        beside: Its signature and its verdicts.
        line: What its manifest says; None without one that can be read.
    """

    known: Known
    bundle: Listing | None
    sidecar: Listing | None
    beside: tuple[Listing, ...]
    line: Line | None

    @property
    def objects(self) -> tuple[Listing, ...]:
        """All of it, in the order in which it is removed."""
        return tuple(one for one in (self.sidecar, *self.beside, self.bundle) if one is not None)


def find_holdings(contents: Contents) -> tuple[Holding, ...]:
    """Return what a store holds, sorted by name: each bundle, and each manifest without one."""
    failed = failed_backups(contents.listed)
    beside: defaultdict[str, list[Listing]] = defaultdict(list)
    for name, one in contents.listed.items():
        if name.endswith(SIGNATURE):
            beside[name.removesuffix(SIGNATURE)].append(one)
        elif (verdict := parse_verdict(name)) is not None:
            beside[verdict[0]].append(one)
    found = []
    for name, one in contents.listed.items():
        if name.endswith(ENDINGS) and "/" not in name:
            backup = stem_of(name)
            line = contents.lines.get(backup)
            known = _known(contents, backup, one, line)
            if backup in failed and known.standing == "verified" and known.whose is not None:
                known = replace(known, standing="failed", problem=f"verified {failed[backup]:%Y-%m-%d %H:%M:%S} UTC")
            if line is not None and line.said.name == name:
                found.append(Holding(known, one, contents.listed[sidecar_name(backup)], tuple(beside[backup]), line))
            else:
                is_alone = sidecar_name(backup) not in contents.listed
                found.append(Holding(known, one, None, tuple(beside[backup]) if is_alone else (), None))
        elif name.endswith(SIDECAR) and "/" not in name:
            backup = name.removesuffix(SIDECAR)
            if not any(backup + ending in contents.listed for ending in ENDINGS):
                known = Known(backup, None, None, standing="unverified", problem="a manifest, and no backup beside it")
                found.append(Holding(known, None, one, (), None))
    return tuple(found)


def find_unknown(contents: Contents) -> list[str]:
    """Return the names of what belongs to no backup, sorted."""
    backups = {stem_of(name) for name in contents.listed if name.endswith(ENDINGS)}
    rest = (name for name in contents.listed if not NAME.fullmatch(name) and not name.endswith((*ENDINGS, SIDECAR)))
    return sorted(name for name in rest if backup_of(name) not in backups)


def find_lone(contents: Contents, database: str, environment: str) -> tuple[Listing, ...]:
    """Return verdicts and signatures of which neither the backup nor its manifest is there any more.

    Nobody puts one there before the backup, and a backup's name is given only once: they say nothing to anybody.

    Args:
        contents: Of the store.
        database: Whose backups, by their names.
        environment: As `database`.
    """
    found = []
    for name, one in contents.listed.items():
        backup = backup_of(name)
        if (
            "/" in name
            or not (name.endswith(SIGNATURE) or parse_verdict(name))
            or sidecar_name(backup) in contents.listed
        ):
            continue
        bundles = [backup + ending for ending in ENDINGS]
        is_own = any(is_backup_of(each, database, environment) for each in bundles)
        if is_own and not any(each in contents.listed for each in bundles):
            found.append(one)
    return tuple(found)


def backup_of(name: str) -> str:
    """Return the id of the backup that an object belongs to, by its name."""
    verdict = parse_verdict(name)
    if verdict is not None:
        return verdict[0]
    for ending in (SIDECAR, SIGNATURE):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return stem_of(name)


def identify(store: Store, settings: StoreSettings, holding: Holding) -> Holding:
    """Look into a bundle that no manifest stands beside: the manifest in it says whose it is, and of when.

    Where that cannot be read (it is cut or encrypted, or too big to be fetched for it), the holding is as it was.

    Args:
        store: Where it is.
        settings: The store's.
        holding: Of a bundle without a manifest.

    Raises:
        StoreError: The store failed.
    """
    bundle = holding.bundle
    if bundle is None or holding.known.problem != NO_MANIFEST or not bundle.name.endswith(BUNDLE):
        return holding
    try:
        if isinstance(settings, DirectoryStoreSettings):
            manifest = _read_manifest(Path(store.location) / bundle.name)
        elif bundle.bytes <= MOST_FETCHED:
            with tempfile.NamedTemporaryFile(prefix="opsproof-", suffix=BUNDLE) as file:
                for chunk in store.read(bundle.name):
                    file.write(chunk)
                file.flush()
                manifest = _read_manifest(Path(file.name))
        else:
            return holding
    except ArchiveError:
        return holding
    if manifest is None or manifest.id != holding.known.id:
        return holding
    whose = Whose(manifest.environment, manifest.target, manifest.customer, manifest.database.name)
    known = replace(holding.known, whose=whose, taken=manifest.taken, kind=manifest.kind)
    return replace(holding, known=known)


def is_authentic(store: Store, holding: Holding, sealing: Sealing) -> bool:
    """Tell whether a backup's manifest has the signature that is wanted, and says what is known of it.

    Args:
        store: Where it is.
        holding: A backup with its manifest, of which an index, which nobody signs, may have told.
        sealing: Names the public key.

    Raises:
        StoreError: It could not be looked at.
        ConfigurationError: The key cannot be read.
    """
    name = sidecar_name(holding.known.id)
    try:
        data = store.get_small(name)
        require_authentic(store, name, data, sealing)
        return holding.line is not None and say(read_sidecar(data, name)) == holding.line.said
    except ArchiveError:
        return False
    except StoreError:
        if store.exists(name):
            raise
        return False  # another run is just removing it


def known_of(said: Said, standing: Standing = "verified", problem: str = "") -> Known:
    """Return what is known of a backup, as its manifest says."""
    whose = Whose(said.environment, said.target, said.customer, said.database)
    return Known(said.id, said.taken, whose, said.kind, standing, problem=problem)


def _known(contents: Contents, backup: str, bundle: Listing, line: Line | None) -> Known:
    if line is None:
        problem = contents.problems.get(backup, NO_MANIFEST)
        gone = contents.gone.get(backup)
        is_it = gone is not None and (gone.said.name, gone.said.bytes) == (bundle.name, bundle.bytes)
        if gone is not None and is_it and problem == NO_MANIFEST:
            return known_of(gone.said, "unverified", "a cleanup that was cut short has removed its manifest")
        return Known(backup, None, None, standing="unverified", problem=problem)
    said = line.said
    if said.name != bundle.name:
        return Known(backup, None, None, standing="unverified", problem=f"its manifest is that of {said.name}")
    if said.bytes != bundle.bytes:
        problem = f"{bundle.bytes:,} bytes, but its manifest says {said.bytes:,}"
        return known_of(said, "unverified", problem)
    return known_of(said)


def _read_manifest(path: Path) -> Manifest | None:
    reader = ZipReader(path)
    try:
        member = reader.find(MANIFEST).get(MANIFEST)
        return None if member is None else Manifest.model_validate_json(reader.read(member, MOST_MANIFEST))
    except ValidationError:
        return None
    finally:
        reader.close()
