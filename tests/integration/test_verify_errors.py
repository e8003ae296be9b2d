"""A verification that cannot be made: that is no fault of the backup, which still counts."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.errors import HostError, OpsproofError, ProofError, StoreDenied, StoreError, StoreUnreachable
from opsproof.procedures.verify.procedure import require_passed
from opsproof.system.store import StoredObject
from opsproof.system.store.directory import DirectoryStore
from opsproof.target import S3StoreSettings, Target
from tests.lab.verifying import Shelf

pytest_plugins = ["tests.lab.shelf"]


def test_a_manifest_of_a_newer_version_is_no_fault_of_the_backup(shelf: Shelf) -> None:
    path = shelf.sidecar(shelf.newer)
    content = json.loads(path.read_text())
    content["manifest"]["format_version"] = 99
    path.write_text(json.dumps(content))
    (done,) = shelf.look(shelf.newer.id)
    assert done.verdict == "error"
    assert "was written by a newer opsproof" in str(done.error)


class Faulty(DirectoryStore):
    """A store that looks like a bucket, and does not do everything."""

    def __init__(
        self, folder: Path, reading: OpsproofError | None = None, writing: OpsproofError | None = None
    ) -> None:
        super().__init__(folder)
        self.reading, self.writing, self.reads = reading, writing, 0

    def read(self, name: str) -> Iterator[bytes]:
        if not name.endswith(".zip"):
            return super().read(name)
        self.reads += 1
        if self.reading is not None:
            raise self.reading
        return super().read(name)

    def put_small(self, name: str, data: bytes, *, locked: bool = True) -> StoredObject:
        if self.writing is not None and ".verdict_" in name:
            raise self.writing
        return super().put_small(name, data, locked=locked)


def in_a_bucket(target: Target) -> Target:
    """What is in a bucket is downloaded, not read where it is."""
    return replace(target, store=S3StoreSettings("backups", "eu-central-1"))


@pytest.mark.parametrize(
    "refusal",
    [
        StoreUnreachable("The store did not answer"),
        StoreDenied("The store refused", hint="aws sts get-caller-identity"),
    ],
)
def test_a_store_that_does_not_answer_is_an_error_and_no_fault_of_the_backup(shelf: Shelf, refusal: StoreError) -> None:
    store = Faulty(shelf.folder, reading=refusal)
    (done,) = shelf.look(shelf.newer.id, target=in_a_bucket(shelf.target), store=store)
    assert (done.verdict, done.error) == ("error", refusal)
    assert shelf.verdicts() == {shelf.newer.id: ["error"]}
    with pytest.raises(type(refusal), match="1 could not be verified"):
        require_passed([done])
    # It still counts, for nothing is known against it.
    assert shelf.chosen() == shelf.newer.id


def test_a_damaged_download_is_read_once_more_before_the_backup_is_blamed(shelf: Shelf) -> None:
    class Flickering(Faulty):
        def read(self, name: str) -> Iterator[bytes]:
            for chunk in super().read(name):
                yield chunk if self.reads != 1 else bytes([chunk[0] ^ 1]) + chunk[1:]

    store = Flickering(shelf.folder)
    (done,) = shelf.look(shelf.newer.id, target=in_a_bucket(shelf.target), store=store)
    assert (done.verdict, store.reads) == ("passed", 2)


def test_no_server_and_no_programs_is_an_error(shelf: Shelf, tmp_path: Path) -> None:
    target = replace(shelf.target, pg_bindir=str(tmp_path))
    (done,) = shelf.look(shelf.newer.id, target=target)
    assert done.verdict == "error"
    assert "pg_dump not found" in str(done.error)
    unreachable = replace(target.database, host="127.0.0.1", port=1)
    (deep,) = shelf.look(shelf.newer.id, deep=True, target=replace(shelf.target, database=unreachable))
    # Without a server the dump is still read: by the programs of the version that wrote it.
    assert deep.verdict == "error"
    assert any("dump read to its end" in check for check in deep.checks)
    assert shelf.verdicts() == {shelf.newer.id: ["error", "error"]}
    assert shelf.chosen() == shelf.newer.id


def test_a_server_that_may_not_take_a_trial_restore_is_an_error(shelf: Shelf) -> None:
    with shelf.own.server.connect() as connection:
        connection.execute(f'ALTER ROLE "{shelf.own.application.role}" NOCREATEDB'.encode())
    try:
        (done,) = shelf.look(shelf.newer.id, deep=True)
    finally:
        with shelf.own.server.connect() as connection:
            connection.execute(f'ALTER ROLE "{shelf.own.application.role}" CREATEDB'.encode())
    assert done.verdict == "error"
    assert "CREATEDB" in str(done.error)


def test_no_room_is_an_error(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(shelf.folder)
    monkeypatch.setattr("opsproof.procedures.verify.soundness.shutil.disk_usage", lambda _: usage._replace(free=1000))
    (done,) = shelf.look(shelf.newer.id)
    assert done.verdict == "error"
    assert isinstance(done.error, HostError)
    assert "TMPDIR=" in done.error.hint


def test_a_verdict_that_cannot_be_recorded_is_told_and_is_no_pass(shelf: Shelf) -> None:
    store = Faulty(shelf.folder, writing=StoreDenied("The store refused", hint="s3:PutObject"))
    (done,) = shelf.look(shelf.newer.id, store=store)
    assert (done.verdict, done.recorded) == ("passed", "")
    with pytest.raises(StoreDenied, match="have not passed") as raised:
        require_passed([done])
    assert "passed, but its verdict could not be recorded: The store refused" in raised.value.found
    assert "s3:PutObject" in raised.value.hint
    assert shelf.verdicts() == {}


def test_a_backup_that_is_removed_meanwhile_is_skipped(shelf: Shelf) -> None:
    class Vanishing(Faulty):
        def read(self, name: str) -> Iterator[bytes]:
            if name.endswith(".zip"):
                (shelf.folder / name).unlink()
            return super().read(name)

    store = Vanishing(shelf.folder)
    (done,) = shelf.look(shelf.newer.id, target=in_a_bucket(shelf.target), store=store)
    assert (done.verdict, shelf.verdicts()) == ("skipped", {})
    with pytest.raises(ProofError, match="No backup was verified") as raised:
        require_passed([done])
    assert "removed from the store meanwhile" in raised.value.found
