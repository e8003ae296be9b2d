"""Whether a way down a history can be gone: what is refused before anything is written, each with its own words."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from opsproof.errors import MigrationError, ProofError
from opsproof.inspection.restores.sameness import list_first
from opsproof.inspection.schemas.losses import Counted
from opsproof.system.alembic.downgrade import Reading
from opsproof.system.alembic.history import BASE, History, Revision
from opsproof.system.alembic.migrations import Planned

SHOWN = 12
DIGITS = 12
UNTOUCHED = "nothing was changed, and no backup was taken"


@dataclass(frozen=True)
class Descent:
    """A way down a history, and what its scripts say of themselves.

    Args:
        planned: What Alembic would do.
        readings: What each downgrade's text tells, by revision.
        losses: What would be lost, as it was counted in the live database.
        preview: The SQL; empty where it cannot be had.
        no_preview: Why it cannot.
    """

    planned: Planned
    readings: Mapping[str, Reading]
    losses: tuple[Counted, ...] = ()
    preview: str = ""
    no_preview: str = ""

    @property
    def is_at_its_end(self) -> bool:
        """Tell whether there is nothing to undo."""
        return not self.planned.undone

    @property
    def not_atomic(self) -> tuple[str, ...]:
        """Return why the chain is not one transaction; empty where it is."""
        found = [f"{one}: {what}" for one, reading in self.readings.items() for what in reading.not_atomic]
        versioning = self.planned.versioning
        if versioning is not None and versioning.per_migration:
            found.append("env.py: transaction_per_migration")
        if versioning is not None and not versioning.transactional:
            found.append("the dialect: DDL that cannot be undone")
        return tuple(found)

    @property
    def opaque(self) -> tuple[str, ...]:
        """Return what only the rehearsal tells."""
        return tuple(f"{one}: {what}" for one, reading in self.readings.items() for what in reading.opaque)

    @property
    def collateral(self) -> str:
        """Return which branches go, where it is more than one; else nothing."""
        branches = self.planned.history.collateral(one.id for one in self.planned.undone)
        return f"COLLATERAL: this undoes {len(branches)} branches: {', '.join(branches)}" if len(branches) > 1 else ""

    @property
    def loses_data(self) -> bool:
        """Tell whether rows or values are known to go."""
        return any(one.count for one in self.losses)

    @cached_property
    def digest(self) -> str:
        """Return what tells this plan from every other: the heads, the revisions, and the text of their scripts."""
        planned = self.planned
        parts = [*planned.heads, "to", str(planned.target), *planned.left]
        for one in planned.undone:
            parts += [one.id, hashlib.sha256((planned.sources.get(one.id) or "").encode()).hexdigest()]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:DIGITS]

    def lines(self) -> list[str]:
        """Return it as people read it, a line each."""
        planned = self.planned
        lines = [f"from {_names(planned.heads)} down to {_names(planned.left) or BASE}"]
        lines += [f"undo {one.shown}{_told(self.readings[one.id])}" for one in planned.undone]
        lines += [self.collateral] if self.collateral else []
        lines += [f"LOSES {one.shown}" for one in self.losses if one.count or one.count is None]
        if not self.loses_data:
            lines.append("no row and no value is known to be lost")
        lines += [f"only the rehearsal tells: {one}" for one in self.opaque]
        if self.not_atomic:
            lines.append(f"not one transaction ({'; '.join(self.not_atomic)}): done on a copy, which is swapped in")
        lines.append(f"SQL unavailable: {self.no_preview}" if self.no_preview else f"SQL: {_statements(self.preview)}")
        return [*lines, f"plan {self.digest}"]


def require_target(history: History, heads: Sequence[str], target: str | None) -> str:
    """Return the target of a downgrade, once it is clear which that is.

    Raises:
        MigrationError: None was named; or a relative one, where there is more than one head to count from.
    """
    if not target:
        raise MigrationError(
            "Nobody said which revision to go back to",
            expected="--to-revision=R",
            found="none",
            kept=UNTOUCHED,
            hint=_choices(history, heads),
        )
    if target.startswith("-") and len(heads) > 1:
        raise MigrationError(
            f"{target} is ambiguous: the database is at {len(heads)} heads",
            expected="a revision, or BRANCH@-1",
            found=_names(heads),
            kept=UNTOUCHED,
            hint="\n".join(f"--to-revision={head}@{target}" for head in heads),
        )
    return target


def require_known_stamp(history: History, heads: Sequence[str]) -> None:
    """Make sure that the scripts have the revisions that the database is at.

    Raises:
        MigrationError: They have not.
    """
    unknown = [head for head in heads if head not in history.by_id]
    if unknown:
        raise MigrationError(
            "The database is at a revision that the scripts do not have",
            expected=f"scripts up to {_names(unknown)}",
            found=f"{len(history.revisions)} scripts, the newest: {_names([one.id for one in history.revisions[:3]])}",
            kept=UNTOUCHED,
            hint="roll back with the scripts of the release that the database belongs to, not with older ones",
        )
    if not heads:
        raise MigrationError(
            "The database has no revision: Alembic was never run on it",
            expected="a stamp in Alembic's table",
            found="none",
            kept=UNTOUCHED,
            hint="bring back a backup instead: pytest actions/test_rollback.py --env=NAME --type=data",
        )


def explain_target(error: MigrationError, history: History, heads: Sequence[str], target: str) -> MigrationError:
    """Return the error of a target that Alembic does not go down to, in our own words.

    Args:
        error: What Alembic said.
        history: Of the scripts.
        heads: Where the database is.
        target: What was asked for.
    """
    name = target.split("@")[-1]
    known = [one for one in history.revisions if name and one.id.startswith(name)]
    if len(known) == 1:
        if known[0].id in history.applied(heads):
            # It is below, so it is the branch named before the @ that is wrong.
            where = f"below the current one, but not by way of {target}: {_first_line(error)}"
        elif {*heads} & history.applied([known[0].id]):
            where = f"above the current one: {_names(heads)}"
        else:
            where = f"on a branch that this database is not on: it is at {_names(heads)}"
        return MigrationError(
            f"{target} is no revision that this database can be downgraded to",
            expected="a revision below the current one",
            found=f"{known[0].shown} is {where}",
            kept=UNTOUCHED,
            hint=_choices(history, heads),
        )
    if len(known) > 1:
        return MigrationError(
            f"{name} is the beginning of {len(known)} revisions",
            expected="one of them",
            found=", ".join(one.shown for one in known),
            kept=UNTOUCHED,
            hint=f"--to-revision={known[0].id}",
        )
    if name.startswith("-"):
        return MigrationError(
            f"{target} leads to no one revision",
            expected="one way down, as many revisions long",
            found=error.found.splitlines()[0] if error.found else "none",
            kept=UNTOUCHED,
            hint=_choices(history, heads),
        )
    near = history.nearest(name)
    return MigrationError(
        f"There is no revision {target}",
        expected="a revision of the scripts",
        found=_first_line(error),
        kept=UNTOUCHED,
        hint="\n".join(f"--to-revision={one}   {history.by_id[one].title}" for one in near) or _choices(history, heads),
    )


def require_reversible(descent: Descent) -> None:
    """Make sure that every downgrade can run, and does what its upgrade calls for.

    Raises:
        ProofError: One raises, is missing, or is empty.
    """
    stuck = [f"{one.shown}: {why}" for one, why in _irreversible(descent)]
    if stuck:
        raise ProofError(
            f"{len(stuck)} of {len(descent.planned.undone)} revisions cannot be undone",
            expected="a downgrade() that takes back what its upgrade() does",
            found=list_first(stuck, SHOWN),
            kept=UNTOUCHED,
            hint="write the downgrade; or bring back a backup: pytest actions/test_rollback.py --env=NAME --type=data",
        )


def require_consent_to_loss(losses: Iterable[Counted], allowed: bool, *, kept: str = UNTOUCHED) -> None:
    """Make sure that nobody loses data without having said so.

    Raises:
        ProofError: Data would go, and nobody has.
    """
    lost = [one.shown for one in losses if one.count]
    if lost and not allowed:
        raise ProofError(
            f"This rollback destroys data: {len(lost)} {'loss' if len(lost) == 1 else 'losses'}",
            expected="nothing lost, or --allow-data-loss",
            found=list_first(lost, SHOWN),
            kept=kept,
            hint="the same command with --allow-data-loss; the safety backup and the old database are kept",
        )


def require_same_plan(descent: Descent, confirmed: str | None) -> None:
    """Make sure that the plan is still the one that somebody has read.

    Raises:
        ProofError: It is another.
    """
    if confirmed and confirmed != descent.digest:
        raise ProofError(
            "The plan is not the one that was confirmed",
            expected=f"plan {confirmed}",
            found="\n".join(descent.lines()),
            kept=UNTOUCHED,
            hint=f"read the new plan, then: --plan={descent.digest}",
        )


def require_consent_to_drift(drift: Sequence[str], allowed: bool, what: str, *, kept: str = UNTOUCHED) -> None:
    """Make sure that a schema is what its migrations make, or that somebody has said that it need not be.

    Args:
        drift: The lines in which they differ.
        allowed: Whether somebody has.
        what: What was compared with what.
        kept: What is as it was.

    Raises:
        ProofError: It is not, and nobody has.
    """
    if drift and not allowed:
        raise ProofError(
            f"{what}: {len(drift)} {'line differs' if len(drift) == 1 else 'lines differ'}",
            expected="no difference, or --allow-drift",
            found=list_first(list(drift), SHOWN),
            kept=kept,
            hint="look at the lines; the same command with --allow-drift, if they are meant to be so",
        )


def _irreversible(descent: Descent) -> Iterable[tuple[Revision, str]]:
    for one in descent.planned.undone:
        reading = descent.readings[one.id]
        if reading.irreversible:
            yield one, reading.irreversible
        elif reading.is_empty:
            yield one, "downgrade() is empty, upgrade() is not"


def _told(reading: Reading) -> str:
    words = [f"drops {one.shown}" for one in reading.losses if one.kind != "rows"]
    words += [f"changes rows of {one.shown}" for one in reading.losses if one.kind == "rows"]
    return f": {', '.join(words)}" if words else ""


def _choices(history: History, heads: Sequence[str]) -> str:
    applied = history.applied(heads)
    below = [one for one in history.revisions if one.id in applied and one.id not in heads]
    lines = [f"--to-revision={one.id}   {one.title}" for one in below[:5]]
    return "\n".join(lines) or f"--to-revision={BASE}"


def _names(revisions: Sequence[str]) -> str:
    return ", ".join(revisions)


def _first_line(error: MigrationError) -> str:
    return error.found.splitlines()[0] if error.found else "none"


def _statements(preview: str) -> str:
    found = [line for line in preview.splitlines() if line.strip() and not line.startswith("--")]
    return f"{len(found)} lines, in the log"
