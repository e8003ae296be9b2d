"""Verify stored backups: read each to its end, restore it where that was asked for, and put the verdict beside it.

`failed` is the backup's fault, `error` is not: only the first makes a backup count for nothing. One backup is looked at
after the other, and what it took of the disk is given back before the next.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version

from opsproof.archive.catalogue.candidates import Candidate, find_candidates
from opsproof.archive.catalogue.verdict import Verdict, VerdictFinding, VerdictRecord, record_verdict
from opsproof.archive.writing.author import find_author
from opsproof.errors import HostError, OpsproofError, ProofError, StoreError
from opsproof.journal import Journal
from opsproof.procedures.blame import is_fault_of_backup
from opsproof.procedures.restore.workspace import remove_abandoned
from opsproof.procedures.verify.soundness import Soundness, examine_backup
from opsproof.system.postgres.lock import hold_lock
from opsproof.system.postgres.scratch import drop_abandoned
from opsproof.system.store import Store
from opsproof.target import Target

NEVER_FINISHED = "there is no manifest beside it: it was never finished, or is still being written"
GONE = "it was removed from the store meanwhile"
UNTOLD = "told to whoever ran the verification: the backup is encrypted, and this is not"
DRY_RUN = "a dry run reads no backup"


@dataclass(frozen=True)
class Verification:
    """What the verification of one backup came to.

    Attributes:
        id: The backup's.
        location: Where it is.
        verdict: What it came to.
        seconds: How long it took.
        bytes: How big it is.
        checks: What was found right.
        unverified: What nobody could look at.
        error: Why it has not passed.
        reason: Why it was skipped.
        recorded: The verdict's object in the store; empty where there is none.
        unrecorded: Why the verdict could not be recorded.
    """

    id: str
    location: str
    verdict: Verdict
    seconds: float
    bytes: int
    checks: tuple[str, ...] = ()
    unverified: tuple[str, ...] = ()
    error: OpsproofError | None = None
    reason: str = ""
    recorded: str = ""
    unrecorded: OpsproofError | None = None


class Verify:
    """The verification of backups of one target.

    Args:
        target: Whose.
        store: Its store.
        journal: What happened.
        wanted: `latest`, `all`, an id, an address, or a path.
        at: With `latest`: the newest not after this.
        deep: Also restore each into a scratch database.
        dry_run: Only find them.
    """

    def __init__(
        self,
        target: Target,
        store: Store,
        journal: Journal,
        wanted: str,
        at: datetime | None = None,
        *,
        deep: bool = False,
        dry_run: bool = False,
    ) -> None:
        self.target = target
        self.store = store
        self.journal = journal
        self._wanted = wanted
        self._at = at
        self._deep = deep
        self._dry_run = dry_run

    def verify(self) -> Iterator[Verification]:
        """Verify one backup after the other, the newest first, and yield what each came to.

        Raises:
            OpsproofError: There is none, or nobody can say which.
        """
        candidates = find_candidates(self.target, self.store, self._wanted, self._at)
        if not self._dry_run:
            for folder in remove_abandoned():
                self.journal.warn(f"An earlier run was killed and left {folder}: removed")
            if self._deep:
                self._drop_abandoned()
        for candidate in candidates:
            done = self._verify(candidate)
            self.journal.record("backup looked at", id=done.id, verdict=done.verdict, seconds=done.seconds)
            yield done

    def _drop_abandoned(self) -> None:
        try:
            # A rollback's own scratch database has moments without a session: whoever holds the lock may be at one.
            with hold_lock(self.target.database, "verify"):
                for name in drop_abandoned(self.target.database):
                    self.journal.warn(f"An earlier run was killed and left the scratch database {name!r}: dropped")
        except OpsproofError as error:
            # Each backup's own trial restore meets the same server, and says what is wrong with it.
            self.journal.warn(f"What earlier runs left on the server cannot be looked at: {error.summary}")

    def _verify(self, candidate: Candidate) -> Verification:
        started = time.monotonic()
        soundness = Soundness()
        error: OpsproofError | None = candidate.damage
        reason = ""
        if self._dry_run:
            reason, error = DRY_RUN, None
        elif candidate.choice is not None:
            try:
                examine_backup(self.target, candidate.choice, self.journal, soundness, deep=self._deep)
            except OpsproofError as found:
                error = found
            except (OSError, MemoryError, ValueError) as found:  # no room, no memory, what nobody has thought of: ours
                error = HostError(
                    f"{candidate.id} could not be verified: {found}",
                    expected="room, memory, and files that can be read",
                    found=repr(found),
                    hint="df -h; free -h",
                )
            if error is not None and self._is_gone(candidate):
                reason, error = GONE, None
        elif candidate.damage is None:
            reason = NEVER_FINISHED
        done = Verification(
            id=candidate.id,
            location=candidate.location,
            verdict=_verdict_of(error, reason),
            seconds=round(time.monotonic() - started, 3),
            bytes=candidate.bytes,
            checks=tuple(soundness.checks),
            unverified=tuple(soundness.unverified),
            error=error,
            reason=reason,
        )
        return done if reason or not candidate.is_stored else self._record(candidate, done)

    def _is_gone(self, candidate: Candidate) -> bool:
        """Tell whether a cleanup has removed it under our hands: then nothing is wrong with it."""
        choice = candidate.choice
        if choice is None or choice.store is None or not candidate.is_stored:
            return False
        try:
            return not choice.store.exists(choice.name)
        except StoreError:
            return False

    def _record(self, candidate: Candidate, done: Verification) -> Verification:
        store = candidate.choice.store if candidate.choice and candidate.choice.store else self.store
        error = done.error
        record = VerdictRecord(
            opsproof_version=version("opsproof"),
            id=done.id,
            verdict=done.verdict,
            when=datetime.now(UTC),
            seconds=done.seconds,
            deep=self._deep,
            bytes=done.bytes,
            author=find_author(os.environ),
            checks=done.checks,
            findings=() if error is None else (self._finding(candidate, error),),
            unverified=done.unverified,
        )
        try:
            return replace(done, recorded=record_verdict(store, record))
        except StoreError as refusal:
            self.journal.warn(f"The verdict on {done.id} could not be recorded: {refusal.summary}")
            return replace(done, unrecorded=refusal)

    def _finding(self, candidate: Candidate, error: OpsproofError) -> VerdictFinding:
        clean = self.journal.redactor.clean
        if candidate.choice is not None and candidate.choice.sidecar is not None and candidate.choice.sidecar.sealed:
            # What a server says of a row that it refuses quotes that row, and a verdict is not encrypted.
            return VerdictFinding(summary=clean(error.summary), found=UNTOLD)
        return VerdictFinding(summary=clean(error.summary), expected=clean(error.expected), found=clean(error.found))


def require_passed(found: Iterable[Verification]) -> tuple[Verification, ...]:
    """Return the verifications, if every backup that could be verified has passed, and was recorded so.

    Raises:
        ProofError: One has failed, or nothing was verified.
        OpsproofError: One could not be verified; of the kind of the first that is told.
    """
    known = tuple(found)
    bad = [one for one in known if one.verdict in ("failed", "error") or one.unrecorded is not None]
    if not bad:
        if not any(one.verdict == "passed" for one in known):
            raise ProofError(
                "No backup was verified",
                expected="one at least",
                found="\n".join(f"{one.id}: {one.reason}" for one in known) or "none",
                kept="everything: a verification only looks",
                hint="pytest actions/test_backup.py --env=NAME   takes one",
            )
        return known
    failed = [one for one in bad if one.verdict == "failed"]
    first = next((error for one in bad if (error := one.error or one.unrecorded)), None)
    kind = ProofError if failed or first is None else type(first)
    passed = [one.id for one in known if one.verdict == "passed"]
    parts = [_tell(one) for one in bad]
    counts = [f"{len(failed)} failed", f"{len(bad) - len(failed)} could not be verified", f"{len(passed)} passed"]
    raise kind(
        f"{len(bad)} of {len(known)} backups have not passed: {', '.join(counts)}",
        expected="\n".join(expected for expected, _, _ in parts),
        found="\n".join(told for _, told, _ in parts),
        kept="the backups, the database and its files; what has failed counts for nothing from now on",
        hint="\n".join(dict.fromkeys(hint for _, _, hint in parts if hint)),
    )


def _tell(one: Verification) -> tuple[str, str, str]:
    if one.error is not None:
        error = one.error
        return f"{one.id}: {error.expected}", f"{one.id}: {one.verdict}: {error.summary}: {error.found}", error.hint
    refusal = one.unrecorded
    if refusal is None:
        return "", "", ""
    told = f"{one.id}: {one.verdict}, but its verdict could not be recorded: {refusal.summary}: {refusal.found}"
    return f"{one.id}: a verdict beside its manifest", told, refusal.hint


def _verdict_of(error: OpsproofError | None, reason: str) -> Verdict:
    if reason:
        return "skipped"
    if error is None:
        return "passed"
    return "failed" if is_fault_of_backup(error) else "error"
