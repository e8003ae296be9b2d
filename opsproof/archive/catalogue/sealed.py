"""The latest backup of a target, and the keys to try on it: what a check of the keys is given."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from opsproof.archive.catalogue.absence import Place
from opsproof.archive.catalogue.newest import find_newest
from opsproof.archive.catalogue.ownership import owner_of
from opsproof.archive.sealing.agekeys import Identities, load_identities
from opsproof.archive.sealing.seal import open_beginning, require_key
from opsproof.policies import Sealing
from opsproof.system.store import Store
from opsproof.target import Target


@dataclass(frozen=True)
class LatestBackup:
    """The newest verified backup of a target; `recipients` are empty where it is not encrypted."""

    name: str
    location: str
    recipients: tuple[str, ...]


@dataclass(frozen=True)
class Opener:
    """The private keys that are here."""

    identities: Identities

    @property
    def recipients(self) -> tuple[str, ...]:
        """The public keys that belong to them."""
        return self.identities.recipients

    def open_beginning(self, chunks: Iterable[bytes], location: str, recipients: Sequence[str]) -> bytes:
        """Return the first decrypted bytes.

        Raises:
            ArchiveError: No key opens it, or its beginning is damaged.
        """
        require_key(self.identities, location, recipients)
        return open_beginning(self.identities, chunks, location, recipients)


def find_latest(target: Target, store: Store) -> LatestBackup | None:
    """Return the newest verified backup of a target that is no safety backup; None where there is none.

    Raises:
        StoreError: The store cannot be listed, or a manifest in it cannot be read.
    """
    found = find_newest(Place(store, target, owner_of(target)), None).found
    if found is None or found.sidecar is None:
        return None
    return LatestBackup(found.name, store.location + found.name, found.sidecar.recipients)


def load_opener(sealing: Sealing) -> Opener:
    """Return the private keys that the inventory's file and the variable hold.

    Raises:
        ConfigurationError: A file cannot be read, or holds no key.
    """
    return Opener(load_identities(sealing))
