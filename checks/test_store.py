"""The store of a target's backups: can be read and written, is set up as asked for, and opens. Read-only."""

from __future__ import annotations

import pytest

from opsproof.archive.catalogue.sealed import find_latest, load_opener
from opsproof.inspection.bucket import require_bucket
from opsproof.inspection.keys import check_key_opens_latest
from opsproof.plugin.run import Run
from opsproof.policies import BucketExpectations
from opsproof.system.store import Store
from opsproof.target import Target


class TestStore:
    """What backups, and whoever needs one, ask of the store."""

    def test_store_is_readable(self, store: Store) -> None:
        """It can be listed and read."""
        store.check_readable()

    def test_store_is_writable(self, store: Store, run: Run) -> None:
        """A backup could be stored; nothing is."""
        if run.options.dry_run:
            pytest.skip("a dry run does not so much as try whether the store can be written")
        store.check_writable()

    def test_bucket_is_as_asked_for(self, store: Store, target: Target, run: Run) -> None:
        """Versioning, encryption, lock, lifecycle and public access are what the inventory asks for."""
        if target.policies.bucket == BucketExpectations():
            pytest.skip(f"the inventory asks for nothing of the bucket of {target.name}: store.expect")
        for finding in require_bucket(store, target.policies.bucket):
            run.journal.info(f"{finding.subject}: {finding.found}, {finding.expected}")

    def test_key_opens_the_latest_backup(self, store: Store, target: Target) -> None:
        """The private key that is here opens the latest backup, which is encrypted as the inventory wants."""
        sealing, latest = target.policies.sealing, find_latest(target, store)
        if not sealing.recipients and (latest is None or not latest.recipients):
            pytest.skip(f"backups of {target.name} are not encrypted")
        assert check_key_opens_latest(latest, store, load_opener(sealing), sealing.recipients)
