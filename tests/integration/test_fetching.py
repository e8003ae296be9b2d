"""Backups in a bucket: chosen, told why not, and downloaded whole or not at all."""

from __future__ import annotations

import json
import os
import stat
import urllib.request
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import boto3
import pytest

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.catalogue.choosing import choose_backup
from opsproof.archive.catalogue.listing import sidecar_name
from opsproof.archive.manifest import to_json
from opsproof.archive.reading import fetching
from opsproof.archive.reading.fetching import fetch
from opsproof.errors import (
    ArchiveError,
    BucketMissing,
    ConfigurationError,
    OpsproofError,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from opsproof.journal import Journal, Progress
from opsproof.procedures.verify.blame import is_fault_of_backup
from opsproof.system.store import open_store
from opsproof.target import S3StoreSettings, Target
from tests.lab.bucket import Bucket, make_bucket, use_credentials
from tests.lab.fault_proxy import Fault, FaultProxy, running_proxy
from tests.lab.moto_buckets import bucket, moto_server
from tests.lab.moto_server import S3Server, running_moto
from tests.lab.targets import CUSTOMER, put_backup, sidecar_for, target_of

__all__ = ["bucket", "moto_server"]

MIB = 1 << 20
DATA = os.urandom(3 * MIB + 17)
NEEDED = "check the S3 bucket and the customer name; the credentials need s3:ListBucket and s3:GetObject"


@pytest.fixture
def proxy(moto_server: S3Server) -> Iterator[FaultProxy]:
    with running_proxy(moto_server.url) as proxy:
        yield proxy


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "workspace"


def target_in(bucket: Bucket, url: str = "", name: str = "") -> Target:
    settings = S3StoreSettings(name or bucket.name, bucket.server.region, endpoint_url=url or bucket.server.url)
    return target_of(settings)


def choose(target: Target, wanted: str = "latest", source: Target | None = None) -> Choice:
    return choose_backup(target, open_store(target.store, target.customer), wanted, None, source)


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
    monkeypatch.setattr("opsproof.archive.reading.fetching.shutil.disk_usage", lambda path: usage(len(DATA) - 1))
    with pytest.raises(ArchiveError, match="Not enough room") as caught:
        fetch(choice, folder, Journal())
    assert caught.value.expected == f"{len(DATA):,} bytes free"
    assert not is_fault_of_backup(caught.value)
    require_nothing_left(folder)
    monkeypatch.setattr("opsproof.archive.reading.fetching.shutil.disk_usage", lambda path: usage(len(DATA)))
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


def test_an_address_of_nothing_is_answered_with_what_is_near(bucket: Bucket) -> None:
    bucket.client.put_object(Bucket=bucket.name, Key="dumps/odoo.dump", Body=b"PGDMP")
    with pytest.raises(StoreError, match=r"There is no backup odo\.dump") as caught:
        choose(target_in(bucket, name="another-bucket"), f"s3://{bucket.name}/dumps/odo.dump")
    assert caught.value.expected.startswith(f"odo.dump in s3://{bucket.name}/dumps/ (bucket {bucket.name}, ")
    assert caught.value.found == "the nearest: odoo.dump"


def test_an_empty_place_names_bucket_customer_and_prefix_and_who_is_there(bucket: Bucket) -> None:
    bucket.store(customer="acme-corporation", prefix="dumps/").put_small("x.zip", b"x")
    bucket.store(customer="not-in-this-prefix").put_small("x.zip", b"x")
    target = target_in(bucket)
    assert isinstance(target.store, S3StoreSettings)
    with pytest.raises(StoreError, match="No verified backup of prod/erp was found") as caught:
        choose(replace(target, store=replace(target.store, prefix="dumps/")))
    place = f"s3://{bucket.name}/dumps/acme-corp/backups/"
    assert caught.value.expected == (
        f"a verified backup of prod/erp in {place} (bucket {bucket.name}, customer acme-corp, prefix dumps/)"
    )
    assert caught.value.found.splitlines() == [
        f"nothing at all under {place}",
        "folders of customers beside it: acme-corporation",
    ]
    assert caught.value.hint == NEEDED


def test_no_such_bucket_is_told_apart(bucket: Bucket) -> None:
    with pytest.raises(BucketMissing, match=f"there is no bucket {bucket.name}x") as caught:
        choose(target_in(bucket, name=f"{bucket.name}x"))
    assert bucket.name in caught.value.found
    assert "customer acme-corp" in caught.value.expected
    assert caught.value.hint.endswith(NEEDED)


@pytest.mark.parametrize("allowed", ["s3:GetObject", "s3:ListBucket"])
def test_refused_listing_and_refused_reading_are_told_apart(monkeypatch: pytest.MonkeyPatch, allowed: str) -> None:
    with running_moto() as server:
        use_credentials(monkeypatch, server)
        bucket = make_bucket(server)
        put(bucket)
        iam = boto3.client("iam", endpoint_url=server.url, region_name=server.region)
        iam.create_user(UserName="reader")
        policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": allowed, "Resource": "*"}]}
        iam.put_user_policy(UserName="reader", PolicyName="reader", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        headers = {"Content-Type": "text/plain"}
        strict = urllib.request.Request(f"{server.url}/moto-api/reset-auth", data=b"0", headers=headers)
        urllib.request.urlopen(strict, timeout=10).close()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        what, action = {
            "s3:GetObject": ("listing", "s3:ListBucket"),
            "s3:ListBucket": ("reading from", "s3:GetObject"),
        }[allowed]
        with pytest.raises(StoreDenied, match=f"{what} s3://.* was refused: {action} is not allowed") as caught:
            choose(target_in(bucket))
        assert caught.value.hint.endswith(NEEDED)
        assert f"bucket {bucket.name}, customer acme-corp, prefix none" in caught.value.expected


def test_a_store_that_does_not_answer_is_told_as_such(bucket: Bucket, proxy: FaultProxy) -> None:
    put(bucket)
    target = target_in(bucket, proxy.url)
    proxy.inject(Fault("answer", "GET", path=r"manifest\.json$", status=400, code="ExpiredToken"))
    with pytest.raises(OpsproofError, match="the session token has expired"):
        choose(target)
