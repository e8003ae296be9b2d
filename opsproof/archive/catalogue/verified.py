"""The verified backups of somebody's own, with the times of their snapshots: from a listing and the index alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from opsproof.archive.catalogue.absence import show_time
from opsproof.archive.catalogue.holdings import find_holdings
from opsproof.archive.catalogue.index import read_contents
from opsproof.archive.catalogue.ownership import Owner
from opsproof.archive.catalogue.retention import Known
from opsproof.errors import StoreError
from opsproof.system.store import Store


def find_verified(store: Store, owner: Owner) -> tuple[Known, ...]:
    """Return the verified backups of an owner that were not taken for safety, the oldest first.

    Raises:
        StoreError: The store cannot be listed, or a sidecar cannot be read.
    """
    found = (holding.known for holding in find_holdings(read_contents(store)))
    own = [
        one
        for one in found
        if one.standing == "verified" and one.kind != "safety" and one.whose is not None and one.whose.is_of(owner)
    ]
    return tuple(sorted((one for one in own if one.taken is not None), key=taken_of))


def choose_at_random(known: Sequence[Known], window: timedelta, now: datetime) -> Known:
    """Return one of the backups that are not older than a window, each as likely as any other.

    Raises:
        StoreError: There is none.
    """
    young = [one for one in known if taken_of(one) >= now - window]
    if not young:
        newest = f"the newest of {len(known):,} is of {show_time(taken_of(known[-1]))}" if known else "none at all"
        raise StoreError(
            f"There is no verified backup of the last {window.total_seconds() / 86_400:,.1f} days to choose from",
            expected="one at least",
            found=newest,
            kept="nothing was changed",
            hint="a wider window: --random=90d; pytest --list-backups --env=NAME   shows them",
        )
    return random.SystemRandom().choice(young)


def taken_of(known: Known) -> datetime:
    """Return when the snapshot of a verified backup was taken."""
    taken = known.taken or datetime.min.replace(tzinfo=UTC)
    return taken if taken.tzinfo else taken.replace(tzinfo=UTC)
