"""The history of a schema: its revisions, what comes after what, and what of it a database has.

Pure knowledge of Alembic's graph, as its own interpreter has told it. Nothing here reads a file or a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property

BASE = "base"
SHOWN = 5
# Below this a name is no misspelling of another.
NEAR = 0.5


@dataclass(frozen=True)
class Revision:
    """One migration script.

    Attributes:
        id: Its revision.
        down: The revisions that it builds on: none for a base, several for a merge.
        depends_on: Revisions of other branches that must be there before it.
        labels: Names of the branch.
        title: The first line of its docstring.
        path: Of its file, on the host.
    """

    id: str
    down: tuple[str, ...]
    depends_on: tuple[str, ...]
    labels: tuple[str, ...]
    title: str
    path: str

    @property
    def shown(self) -> str:
        """Return revision and title as a plan shows them."""
        return f"{self.id} ({self.title})" if self.title else self.id


@dataclass(frozen=True)
class History:
    """All revisions that the scripts have, newest first."""

    revisions: tuple[Revision, ...]

    @cached_property
    def by_id(self) -> Mapping[str, Revision]:
        """Return the revisions by what they are called."""
        return {one.id: one for one in self.revisions}

    def applied(self, heads: Iterable[str]) -> frozenset[str]:
        """Return everything that a database at these heads has been through."""
        found: set[str] = set()
        waiting = list(heads)
        while waiting:
            one = waiting.pop()
            if one not in found and one in self.by_id:
                found.add(one)
                waiting += [*self.by_id[one].down, *self.by_id[one].depends_on]
        return frozenset(found)

    def heads_of(self, applied: Iterable[str]) -> tuple[str, ...]:
        """Return the heads of a database that has been through these: those that no other of them builds on."""
        there = set(applied)
        below = {old for one in there for old in (*self.by_id[one].down, *self.by_id[one].depends_on)}
        return tuple(sorted(there - below))

    def after_undoing(self, heads: Iterable[str], undone: Iterable[str]) -> tuple[str, ...]:
        """Return the heads that are left when revisions are undone."""
        return self.heads_of(self.applied(heads) - set(undone))

    def nearest(self, name: str) -> tuple[str, ...]:
        """Return the revisions that somebody may have meant: by their beginning, their spelling, or their title."""
        wanted = name.casefold()
        begun = [one.id for one in self.revisions if wanted and one.id.casefold().startswith(wanted)]
        spelled = get_close_matches(name, list(self.by_id), n=SHOWN, cutoff=NEAR)
        titled = [one.id for one in self.revisions if len(wanted) > 2 and wanted in one.title.casefold()]
        found = dict.fromkeys([*begun, *spelled, *titled])
        return tuple(found)[:SHOWN]

    def collateral(self, undone: Iterable[str]) -> tuple[str, ...]:
        """Return the heads of the branches that a downgrade undoes, where it undoes more than one."""
        branches = self.heads_of(undone)
        return branches if len(branches) > 1 else ()
