"""The backups: young enough, as big as they were, verified lately; with --backup each is read to its end. Read-only."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from opsproof.archive.catalogue.drills import History
from opsproof.archive.catalogue.recent import Stock
from opsproof.inspection.backups import check_age, check_damage, check_restore_time, check_size, check_verified
from opsproof.plugin.checking import Note
from opsproof.procedures.verify.procedure import DRY_RUN, Verification, Verify, require_passed
from opsproof.target import Target


class TestBackups:
    """What is in the store, as far as its listing and its manifests say."""

    def test_newest_is_young_enough(self, stock: Stock, target: Target) -> None:
        """The newest verified backup is not older than the recovery point objective."""
        rpo = target.policies.objectives.rpo
        if rpo is None:
            pytest.skip(f"the inventory has no objective of {target.name}: objectives: {{rpo: 26h}}")
        check_age(stock, rpo, datetime.now(UTC), target.environment)

    def test_size_has_not_fallen(self, stock: Stock, target: Target) -> None:
        """The newest backup is about as big as the one before."""
        if check_size(stock, target.policies.thresholds.size_fall, target.environment) is None:
            pytest.skip("there is no backup before it that is big enough to compare")

    def test_verified_lately(self, stock: Stock, target: Target) -> None:
        """The newest backup was read to its end not long ago, and nothing lies there that was never finished."""
        check_verified(stock, target.policies.thresholds.unverified_for, datetime.now(UTC), target.environment)

    def test_newest_is_not_damaged(self, stock: Stock, target: Target) -> None:
        """No backup was found damaged that is newer than the newest whole one."""
        check_damage(stock, target.environment)

    def test_restore_is_fast_enough(self, target: Target, drills: History, note: Note) -> None:
        """The last drill's restore took no longer than the recovery time objective."""
        rto = target.policies.objectives.rto
        if rto is None:
            pytest.skip(f"the inventory has no objective of {target.name}: objectives: {{rto: 4h}}")
        for fault in drills.faults:
            note("does not count", fault)
        last = next((one for one in reversed(drills.drills) if one.rto is not None), None)
        if last is None or last.rto is None:
            pytest.skip(
                f"no drill of {target.name} has measured a restore:"
                f" pytest actions/test_drill.py --env={target.environment}"
            )
        check_restore_time(last.rto, rto, last.ended, target.environment)


class TestVerification:
    """The backups that `--backup` names, read to their end; with `--deep` restored, too. Each gets a verdict."""

    def test_backups_are_whole(self, verify: Verify, report_verdict: Callable[[Verification], None]) -> None:
        """Every member, the dump, the SQL, the tables and the attachments are what the manifest and the rows say."""
        found = []
        for done in verify.verify():
            report_verdict(done)
            found.append(done)
        if found and all(one.reason == DRY_RUN for one in found):
            pytest.skip(f"{DRY_RUN}; it would be: {', '.join(one.id for one in found)}")
        require_passed(found)
