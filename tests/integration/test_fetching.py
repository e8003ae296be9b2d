"""Backups in a bucket or a folder: downloaded whole or not at all, and read where they are."""

from __future__ import annotations

import os
import stat
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.archive.catalogue import fetching
from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.catalogue.fetching import fetch
from opsproof.archive.manifest import to_json
from opsproof.archive.names import sidecar_name
from opsproof.errors import ArchiveError, ConfigurationError, StoreError, StoreUnreachable
from opsproof.journal import Journal, Progress
from opsproof.procedures.blame import is_fault_of_backup
from opsproof.system.store import open_store
from tests.lab.bucket import Bucket, target_in
from tests.lab.fault_proxy import Fault, FaultProxy, running_proxy
from tests.lab.moto_buckets import bucket, moto_server
from tests.lab.moto_server import S3Server
from tests.lab.targets import CUSTOMER, choose, put_backup, sidecar_for, target_of

__all__ = ["bucket", "moto_server"]

MIB = 1 << 20
DATA = os.urandom(3 * MIB + 17)


@pytest.fixture
def proxy(moto_server: S3Server) -> Iterator[FaultProxy]:
    with running_proxy(moto_server.url) as proxy:
        yield proxy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def put(bucket: Bucket, data: bytes = DATA) -> str:
    return put_backup(bucket.store(customer=CUSTOMER), data=data)


def require_nothing_left(folder: Path) -> None:
    assert not os.path.lexists(folder)
    assert list(folder.parent.iterdir()) == []


def test_a_download_is_private_and_what_was_backed_up(bucket: Bucket, folder: Path) -> None:
    name = put(bucket)
    choice = choose(target_in(bucket))
    assert (choice.id, choice.path, choice.bytes) == (name, None, len(DATA))
    assert choice.location == f"s3://{bucket.name}/{CUSTOMER}/backups/{name}.zip"
    seen: list[Progress] = []
    journal = Journal()
    journal.listen(seen.append)
    path = fetch(choice, folder, journal)
    assert path == folder / f"{name}.zip"
    assert path.read_bytes() == DATA
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (seen[-1].phase, seen[-1].doing, seen[-1].done, seen[-1].total) == ("download", name, len(DATA), len(DATA))
    assert len(seen) >= 4


def test_a_byte_that_is_another_leaves_nothing(
    bucket: Bucket, proxy: FaultProxy, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store's own checksum would notice first: here it keeps none."""
    name = put(bucket)
    choice = choose(target_in(bucket, proxy.url))
    monkeypatch.setattr("opsproof.system.store.s3.crc32_text", lambda value: None)
    fault = proxy.inject(Fault("flip", "GET", path=r"\.zip$", at=2 * MIB))
    with pytest.raises((ArchiveError, StoreError)) as caught:
        fetch(choice, folder, Journal())
    assert fault.struck == 1
    assert "is removed" in caught.value.kept
    assert name in str(caught.value)
    require_nothing_left(folder)


@pytest.mark.parametrize(
    "other", [DATA[:-1] + bytes([DATA[-1] ^ 1]), DATA[:-1], DATA + b"x", b""], ids=["byte", "short", "long", "empty"]
)
def test_what_was_replaced_after_the_choice_is_refused(bucket: Bucket, folder: Path, other: bytes) -> None:
    name = put(bucket)
    choice = choose(target_in(bucket))
    bucket.client.put_object(Bucket=bucket.name, Key=f"{CUSTOMER}/backups/{name}.zip", Body=other)
    with pytest.raises(ArchiveError, match="is not what was backed up") as caught:
        fetch(choice, folder, Journal())
    assert choice.sidecar is not None
    assert caught.value.expected == f"{len(DATA):,} bytes, SHA-256 {choice.sidecar.sha256}"
    require_nothing_left(folder)


def test_a_connection_that_breaks_is_taken_up_again(bucket: Bucket, proxy: FaultProxy, folder: Path) -> None:
    put(bucket)
    choice = choose(target_in(bucket, proxy.url))
    fault = proxy.inject(Fault("cut-response", "GET", path=r"\.zip$", at=MIB + 5, times=1))
    assert fetch(choice, folder, Journal()).read_bytes() == DATA
    assert fault.struck == 1


def test_a_connection_that_keeps_breaking_leaves_nothing(bucket: Bucket, proxy: FaultProxy, folder: Path) -> None:
    put(bucket)
    choice = choose(target_in(bucket, proxy.url))
    proxy.inject(Fault("cut-response", "GET", path=r"\.zip$", at=0))
    with pytest.raises(StoreUnreachable, match="did not answer") as caught:
        fetch(choice, folder, Journal())
    assert caught.value.kept == "what was downloaded is removed; nothing else was changed"
    require_nothing_left(folder)


def test_an_object_that_is_gone_leaves_nothing(bucket: Bucket, folder: Path) -> None:
    name = put(bucket)
    choice = choose(target_in(bucket))
    bucket.client.delete_object(Bucket=bucket.name, Key=f"{CUSTOMER}/backups/{name}.zip")
    with pytest.raises(StoreError, match=rf"{name}\.zip is not in the store"):
        fetch(choice, folder, Journal())
    require_nothing_left(folder)


def test_an_interrupt_leaves_nothing_but_the_folder_that_was_there(bucket: Bucket, folder: Path) -> None:
    put(bucket)
    folder.mkdir(mode=0o700)

    def interrupt(progress: Progress) -> None:
        raise KeyboardInterrupt

    journal = Journal()
    journal.listen(interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch(choose(target_in(bucket)), folder, journal)
    assert list(folder.iterdir()) == []


def test_room_is_looked_for_first(bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(bucket)
    choice = choose(target_in(bucket))
    usage = namedtuple("usage", "free")
    monkeypatch.setattr("opsproof.archive.catalogue.fetching.shutil.disk_usage", lambda path: usage(len(DATA) - 1))
    with pytest.raises(ArchiveError, match="Not enough room") as caught:
        fetch(choice, folder, Journal())
    assert caught.value.expected == f"{len(DATA):,} bytes free"
    assert not is_fault_of_backup(caught.value)
    require_nothing_left(folder)
    monkeypatch.setattr("opsproof.archive.catalogue.fetching.shutil.disk_usage", lambda path: usage(len(DATA)))
    assert fetch(choice, folder, Journal()).stat().st_size == len(DATA)


def test_a_disk_that_fills_up_meanwhile_leaves_nothing(
    bucket: Bucket, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket)
    choice = choose(target_in(bucket))
    full = os.open("/dev/full", os.O_WRONLY)
    real = fetching._write
    try:
        monkeypatch.setattr(fetching, "_write", lambda descriptor, *rest: real(full, *rest))
        with pytest.raises(ArchiveError, match="No space left on device"):
            fetch(choice, folder, Journal())
    finally:
        os.close(full)
    require_nothing_left(folder)


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_a_folder_that_others_may_enter_is_refused(bucket: Bucket, folder: Path, mode: int) -> None:
    put(bucket)
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(ArchiveError, match="it is not private"):
        fetch(choose(target_in(bucket)), folder, Journal())
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_has_the_name_already_is_left_alone(bucket: Bucket, folder: Path, kind: str) -> None:
    name = put(bucket)
    folder.mkdir(mode=0o700)
    there, victim = folder / f"{name}.zip", folder / "victim"
    victim.write_bytes(b"mine")
    if kind == "link":
        there.symlink_to(victim)
    else:
        there.write_bytes(b"mine")
    with pytest.raises(ArchiveError, match="cannot be written"):
        fetch(choose(target_in(bucket)), folder, Journal())
    assert (there.read_bytes(), victim.read_bytes()) == (b"mine", b"mine")


def test_a_local_backup_is_read_where_it_is(folder: Path, tmp_path: Path) -> None:
    target = target_of(tmp_path / "store")
    store = open_store(target.store, target.customer)
    put_backup(store, data=DATA)
    choice = choose_backup(target, store, "latest", None)
    seen: list[Progress] = []
    journal = Journal()
    journal.listen(seen.append)
    path = fetch(choice, folder, journal)
    assert path == Path(choice.location)
    assert not folder.exists()
    assert (seen[-1].phase, seen[-1].done) == ("verify", len(DATA))
    path.write_bytes(DATA[:-1] + bytes([DATA[-1] ^ 1]))
    with pytest.raises(ArchiveError, match="is not what was backed up") as caught:
        fetch(choice, folder, journal)
    assert caught.value.kept == "nothing was changed"
    assert path.exists()
    path.unlink()
    with pytest.raises(ArchiveError, match="cannot be read"):
        fetch(choice, folder, journal)


def test_a_local_file_of_another_tool_is_passed_on(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "odoo.dump"
    file.write_bytes(b"PGDMP")
    target = target_of(tmp_path / "store")
    choice = choose_backup(target, open_store(target.store, CUSTOMER), str(file), None)
    assert fetch(choice, folder, Journal()) == file


@pytest.mark.parametrize("key", ["dumps/2024/odoo.dump", "odoo.dump", "a b/ü+%.sql.gz"])
def test_an_address_is_taken_as_it_is(bucket: Bucket, folder: Path, key: str) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"PGDMP")
    address = f"s3://{bucket.name}/{key}"
    choice = choose(target_in(bucket, name="another-bucket"), address)
    assert (choice.sidecar, choice.bytes, choice.location) == (None, 5, address)
    path = fetch(choice, folder, Journal())
    assert (path.name, path.read_bytes()) == (key.rpartition("/")[2], b"PGDMP")


def test_an_address_with_a_sidecar_beside_it_is_verified_and_somebody_s(bucket: Bucket, folder: Path) -> None:
    sidecar = sidecar_for(DATA, environment="staging")
    for name, body in ((sidecar.name, DATA), (sidecar_name(sidecar.id), to_json(sidecar))):
        bucket.client.put_object(Bucket=bucket.name, Key=f"moved/{name}", Body=body)
    target, address = target_in(bucket), f"s3://{bucket.name}/moved/{sidecar.name}"
    with pytest.raises(ConfigurationError, match="is not a backup of prod/erp"):
        choose(target, address)
    source = replace(target, environment="staging")
    choice = choose(target, address, source)
    assert choice.sidecar == sidecar
    assert fetch(choice, folder, Journal()).read_bytes() == DATA
    bucket.client.put_object(Bucket=bucket.name, Key=f"moved/{sidecar.name}", Body=DATA[1:])
    with pytest.raises(ArchiveError, match="is not what the manifest beside it describes"):
        choose(target, address, source)
