"""The S3 store against a real server, which keeps data on disk and verifies signatures and checksums."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time

import pytest

from opsproof.errors import BucketMissing, StoreDenied, StoreError
from opsproof.system.store import s3_connection
from tests.lab.bucket import Bucket, make_bucket, use_credentials
from tests.lab.fault_proxy import Fault, Kind, running_proxy
from tests.lab.moto_server import S3Server
from tests.lab.swift_server import swift_server
from tests.lab.taken_names import require_faster_one_kept

__all__ = ["swift_server"]

pytestmark = pytest.mark.slow

MIB = 1 << 20
SIZE = 20 * MIB


@pytest.fixture
def bucket(swift_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    use_credentials(monkeypatch, swift_server)
    return make_bucket(swift_server)


def test_an_upload_of_parts_is_what_was_written_and_its_own_to_delete(bucket: Bucket) -> None:
    store, data = bucket.store(), os.urandom(SIZE)
    with store.upload("app.zip", SIZE) as upload:
        upload.write(data)
        (running,) = store.leftovers()
        assert running.name == "app.zip"
        assert abs(running.started.timestamp() - time.time()) < 60
        stored = upload.commit()
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert b"".join(store.read("app.zip")) == data
    assert [(each.name, each.bytes) for each in store.list()] == [("app.zip", SIZE)]
    assert bucket.unfinished() == []
    store.delete(stored)
    assert bucket.is_empty()


def test_checks_pass_and_leave_nothing(bucket: Bucket) -> None:
    bucket.store().check_writable()
    bucket.store().check_readable()
    assert bucket.is_empty()


def test_leaving_without_a_commit_leaves_nothing(bucket: Bucket) -> None:
    with bucket.store().upload("app.zip", SIZE) as upload:
        upload.write(bytes(SIZE))
    assert bucket.is_empty()


@pytest.mark.parametrize("asked_before", [True, False], ids=["seen by HEAD", "seen by the condition alone"])
def test_a_name_taken_meanwhile_is_not_overwritten(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, asked_before: bool
) -> None:
    def do_not_ask() -> None:
        monkeypatch.setattr("opsproof.system.store.s3_commit.Commit.refuse_if_taken", lambda self: None)

    require_faster_one_kept(bucket.store(), bytes(SIZE), (lambda: None) if asked_before else do_not_ask)
    assert bucket.unfinished() == []


@pytest.mark.parametrize("checksums", [True, False], ids=["CRC-32", "MD5"])
def test_a_part_that_is_not_what_was_hashed_is_refused(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, checksums: bool
) -> None:
    """The hashes are of other bytes than those sent, as when memory or the line changed one."""
    store = bucket.store()
    store._connection.checksums = checksums
    monkeypatch.setattr(s3_connection, "crc32_text", lambda value: "AAAAAA==")
    monkeypatch.setattr(hashlib, "md5", lambda data, **options: hashlib.new("md5", b"other"))
    with pytest.raises(StoreError, match="BadDigest"), store.upload("app.zip", SIZE) as upload:
        upload.write(bytes(SIZE))
        upload.commit()
    assert bucket.is_empty()


@pytest.mark.parametrize(
    ("variable", "said"),
    [
        ("AWS_SECRET_ACCESS_KEY", "the secret does not belong to the access key"),
        # Swift does not tell an unknown key from one that may do nothing.
        ("AWS_ACCESS_KEY_ID", "s3:(PutObject|ListBucket) is not allowed"),
    ],
)
def test_wrong_credentials_are_said_without_showing_them(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, variable: str, said: str
) -> None:
    monkeypatch.setenv(variable, "planted+and/wrong")
    for check in (bucket.store().check_writable, bucket.store().check_readable):
        with pytest.raises(StoreDenied, match=said) as caught:
            check()
        assert "planted" not in str(caught.value)
        assert caught.value.hint.endswith("sts get-caller-identity")


def test_a_missing_bucket_is_named_with_the_nearest(bucket: Bucket) -> None:
    with pytest.raises(BucketMissing) as caught:
        bucket.store(bucket=bucket.name[:-1] + "x").check_writable()
    assert bucket.name in caught.value.found


@pytest.mark.parametrize("query", [r"partNumber=2(&|$)", r"^uploadId="], ids=["part", "completion"])
@pytest.mark.parametrize("kind", ["answer", "answer-after", "cut-request"])
def test_a_failure_leaves_nothing_on_a_real_server(bucket: Bucket, kind: Kind, query: str) -> None:
    with running_proxy(bucket.server.url) as proxy:
        method = "PUT" if "part" in query else "POST"
        fault = proxy.inject(Fault(kind, method=method, query=query))
        with (
            pytest.raises(StoreError),
            bucket.store(proxy.url).upload("app.zip", SIZE) as upload,
        ):
            upload.write(bytes(SIZE))
            upload.commit()
    assert fault.struck > 1
    assert bucket.is_empty()


def test_a_completion_whose_first_answer_is_lost_is_stored_once(bucket: Bucket) -> None:
    data = os.urandom(SIZE)
    with running_proxy(bucket.server.url) as proxy:
        proxy.inject(Fault("answer-after", method="POST", query="^uploadId=", times=1))
        with bucket.store(proxy.url).upload("app.zip", SIZE) as upload:
            upload.write(data)
            upload.commit()
    assert b"".join(bucket.store().read("app.zip")) == data
    assert bucket.unfinished() == []


def test_the_memory_of_a_big_upload_is_bounded(bucket: Bucket) -> None:
    program = (
        "import os, resource, sys\n"
        "from opsproof.system.store import open_store\n"
        "from opsproof.target import S3StoreSettings\n"
        "store = open_store(S3StoreSettings(sys.argv[1], 'us-east-1', endpoint_url=sys.argv[2]), 'acme')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "store.put_small('small', b'x'); before = peak()\n"
        "block = os.urandom(1 << 20)\n"
        "with store.upload('big', 300 << 20) as upload:\n"
        "    for _ in range(300): upload.write(block)\n"
        "    upload.commit()\n"
        "read = sum(len(piece) for piece in store.read('big'))\n"
        "print(read, peak() - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, bucket.name, bucket.server.url],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    read, grown_kib = map(int, done.stdout.split())
    assert read == 300 * MIB
    assert grown_kib < 100 << 10
