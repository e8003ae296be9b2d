"""What a cleanup leaves in the store: a last backup that can be read, and a true index."""

from __future__ import annotations

from datetime import UTC, datetime

from opsproof.archive.catalogue.holdings import Holding
from opsproof.archive.catalogue.index import Contents, write_index
from opsproof.archive.manifest import read_sidecar
from opsproof.archive.names import sidecar_name
from opsproof.errors import ArchiveError, ProofError, StoreError
from opsproof.procedures.cleanup.removal import delete_listed
from opsproof.system.store import Store


def require_readable(store: Store, holding: Holding, hint: str) -> None:
    """Read the manifest and the beginning of a verified backup.

    Args:
        store: Where it is.
        holding: As it was found.
        hint: What to type where it cannot be read.

    Raises:
        ProofError: One cannot be read, or is not what it was.
    """
    name, problem = sidecar_name(holding.known.id), ""
    try:
        sidecar = read_sidecar(store.get_small(name), name)
        stored = store.find(sidecar.name)
        if stored is None or stored.bytes != sidecar.bytes:
            problem = f"{0 if stored is None else stored.bytes:,} bytes, but its manifest says {sidecar.bytes:,}"
        elif not next(store.read(sidecar.name), b""):
            problem = "it is empty"
    except (ArchiveError, StoreError) as error:
        problem = error.summary
    if problem:
        raise ProofError(
            f"The last verified backup, {holding.known.id}, cannot be read",
            expected="its manifest, and a backup of the size that this says",
            found=problem,
            kept="it was not touched by this cleanup",
            hint=hint,
        )


def renew_index(store: Store, contents: Contents) -> None:
    """Leave one index in the store, and a true one.

    Args:
        store: Where.
        contents: As they are now.

    Raises:
        StoreError: The store refused.
    """
    old = contents.indexes
    # Several targets may share the store: what a killed cleanup of another has half removed, only the index knows.
    halves = [line for line in contents.gone.values() if line.said.name in contents.listed]
    if contents.read or len(contents.gone) > len(halves):
        write_index(store, [*contents.lines.values(), *halves], datetime.now(UTC))
    else:
        old = old[1:]
    delete_listed(store, old, [])
