"""Taking stock of a store before a cleanup: what is in it, what becomes of each backup, and why."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from opsproof.archive.catalogue.holdings import (
    Holding,
    find_holdings,
    find_lone,
    find_unknown,
    identify,
    is_authentic,
    known_of,
)
from opsproof.archive.catalogue.index import Contents, read_contents
from opsproof.archive.catalogue.listing import READ_AT_ONCE
from opsproof.archive.catalogue.newest import NO_MANIFEST
from opsproof.archive.catalogue.ownership import Owner, owner_of, printable
from opsproof.archive.catalogue.retention import Decision, Known, Rules, decide, last_verified, relied_on
from opsproof.archive.manifest import STAMP, is_backup_of
from opsproof.procedures.cleanup.removal import lock_on
from opsproof.system.store import Listing, Store
from opsproof.target import Target

SHOWN = 3
_STAMPED = re.compile(r"_(\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d)(?:_\d+)?\.zip(?:\.age)?")


@dataclass(frozen=True)
class Stock:
    """A store as it was found, and what becomes of each backup in it.

    Attributes:
        contents: All that is there.
        holdings: Every backup, with the objects that it is made of.
        decisions: What becomes of each, in the same order.
        owner: Whose backups may go.
        last: The newest verified one of the owner's; None where there is none.
        check_locks: Whether the store may have locks on its objects.
        lone: Verdicts and signatures of backups that are gone, which go.
    """

    contents: Contents
    holdings: tuple[Holding, ...]
    decisions: tuple[Decision, ...]
    owner: Owner
    last: Known | None
    check_locks: bool
    lone: tuple[Listing, ...]

    @property
    def going(self) -> list[Holding]:
        """What is to be removed, the oldest first: what is killed over it leaves the newer ones."""
        pairs = zip(self.holdings, self.decisions, strict=True)
        gone = [holding for holding, decision in pairs if not decision.keep]
        return sorted(gone, key=lambda one: (_taken(one.known), one.known.id))

    @property
    def own_staying(self) -> list[Holding]:
        """What of the owner's stays."""
        pairs = zip(self.holdings, self.decisions, strict=True)
        return [holding for holding, decision in pairs if decision.keep and self._is_own(holding.known)]

    def plan(self) -> Iterator[str]:
        """Yield what would go and why, then why each other stays; of others' backups only how many."""
        size = {one.known.id: sum(each.bytes for each in one.objects) for one in self.holdings}
        ordered = sorted(self.decisions, key=lambda one: (_taken(one.backup), one.backup.id), reverse=True)
        for one in reversed(ordered):
            if not one.keep:
                yield f"remove {printable(one.backup.id)} ({size[one.backup.id]:,} bytes): {one.why}"
        if not any(not one.keep for one in ordered):
            yield "remove no backup"
        others: Counter[str] = Counter()
        for one in ordered:
            if one.keep and one.backup.whose is not None and not self._is_own(one.backup):
                others[one.why] += 1
            elif one.keep:
                yield f"keep {printable(one.backup.id)}: {printable(one.why)}"
        for why, count in sorted(others.items()):
            yield f"keep {count:,} {'backup' if count == 1 else 'backups'} {why}"
        lone = {one.name for one in self.lone}
        if lone:
            yield f"remove {len(lone):,} verdicts and signatures of backups that are gone"
        unknown = [name for name in find_unknown(self.contents) if name not in lone]
        if unknown:
            more = f" and {len(unknown) - SHOWN:,} more" if len(unknown) > SHOWN else ""
            yield f"keep what is no backup: {printable(', '.join(unknown[:SHOWN]))}{more}"

    def gone_for_good(self, rules: Rules, now: datetime) -> set[str]:
        """Return the ids of the owner's backups that an index knows, nothing is left of, and no rule would keep.

        Args:
            rules: What is asked for.
            now: The present time.
        """
        present = [one.known for one in self.holdings]
        held = {one.id for one in present}
        gone = [known_of(line.said) for backup, line in self.contents.gone.items() if backup not in held]
        decisions = decide([*present, *gone], self.owner, rules, now)[len(present) :]
        return {one.backup.id for one in decisions if not one.keep}

    def _is_own(self, known: Known) -> bool:
        return known.whose is not None and known.whose.is_of(self.owner)


def take_stock(target: Target, store: Store, rules: Rules, used: Mapping[str, str], now: datetime) -> Stock:
    """Look at a store, and decide what becomes of each backup in it.

    Args:
        target: Whose backups may go.
        store: Where they are.
        rules: What is asked for.
        used: Backups that something uses, by id, and what that is.
        now: The present time.

    Raises:
        StoreError: The store cannot be listed, or something in it cannot be read.
    """
    contents, owner = read_contents(store), owner_of(target)
    holdings = [_with_use(one, used) for one in find_holdings(contents)]
    if target.policies.sealing.verify_key_file:
        holdings = _authenticated(target, store, holdings, rules, now)
    last = last_verified([one.known for one in holdings], owner, now)
    if last is not None:
        holdings = [_identified(target, store, one, _taken(last)) for one in holdings]
    decisions = decide([one.known for one in holdings], owner, rules, now)
    gone = {one.backup.id for one in decisions if not one.keep}
    check_locks = bool(gone) and _may_lock(store)
    if check_locks:
        # Only what would go is asked for: a lock keeps more, never less.
        locks = _locks_on(store, [one for one in holdings if one.known.id in gone])
        holdings = [replace(one, known=replace(one.known, lock=locks.get(one.known.id, ""))) for one in holdings]
        decisions = decide([one.known for one in holdings], owner, rules, now)
    lone = find_lone(contents, target.database.name, target.environment)
    return Stock(contents, tuple(holdings), decisions, owner, last, check_locks, lone)


def _with_use(holding: Holding, used: Mapping[str, str]) -> Holding:
    use = used.get(holding.known.id, "")
    return replace(holding, known=replace(holding.known, use=use)) if use else holding


def _authenticated(
    target: Target, store: Store, holdings: Sequence[Holding], rules: Rules, now: datetime
) -> list[Holding]:
    """Look at the signatures of those that others may go for, until all of them have one."""
    found, owner, looked = {id(one): one for one in holdings}, owner_of(target), set[str]()
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        while wanted := relied_on([one.known for one in found.values()], owner, rules, now) - looked:
            some = [(key, one) for key, one in found.items() if one.known.id in wanted]
            answers = pool.map(lambda pair: is_authentic(store, pair[1], target.policies.sealing), some)
            for (key, one), answer in zip(some, answers, strict=True):
                found[key] = replace(one, known=replace(one.known, is_authentic=answer))
            looked |= wanted
    return list(found.values())


def _identified(target: Target, store: Store, holding: Holding, before: datetime) -> Holding:
    """Look into what has no manifest beside it, if by its name it may be the target's own and old enough to go."""
    bundle = holding.bundle
    if bundle is None or holding.known.problem != NO_MANIFEST or holding.known.whose is not None:
        return holding
    shape = _STAMPED.search(bundle.name)
    if shape is None or not is_backup_of(bundle.name, target.database.name, target.environment):
        return holding
    try:
        stamp = datetime.strptime(shape[1], STAMP).replace(tzinfo=UTC)
    except ValueError:  # a 13th month
        return holding
    return identify(store, target.store, holding) if stamp < before else holding


def _may_lock(store: Store) -> bool:
    settings = store.settings()
    return settings is not None and settings.object_lock is not False


def _locks_on(store: Store, holdings: Collection[Holding]) -> dict[str, str]:
    with ThreadPoolExecutor(READ_AT_ONCE) as pool:
        found = pool.map(lambda one: (one.known.id, lock_on(store, one)), holdings)
        return {backup: lock for backup, lock in found if lock}


def _taken(known: Known) -> datetime:
    taken = known.taken or datetime.min.replace(tzinfo=UTC)
    return taken if taken.tzinfo else taken.replace(tzinfo=UTC)
