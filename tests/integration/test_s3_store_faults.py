"""The S3 store when the server, or the line to it, fails: nothing new is in the store, and nothing unfinished."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TypedDict

import pytest
from botocore.retries.standard import ExponentialBackoff

from opsproof.errors import StoreDenied, StoreError, StoreUnreachable
from opsproof.system.store import s3_connection
from tests.lab.bucket import Bucket, make_bucket, use_credentials
from tests.lab.fault_proxy import Fault, FaultProxy, Kind, running_proxy
from tests.lab.moto_server import S3Server, moto_server

__all__ = ["moto_server"]

MIB = 1 << 20
SIZE = 20 * MIB
DATA = os.urandom(MIB)


class Step(TypedDict, total=False):
    """Which requests are meant."""

    method: str
    path: str
    query: str


FIRST, MIDDLE, LAST = (Step(method="PUT", query=rf"partNumber={number}(&|$)") for number in (1, 2, 3))
CREATION = Step(method="POST", query="^uploads")
COMPLETION = Step(method="POST", query="uploadId=")
SMALL = Step(method="PUT", path=r"app\.json$")
READING = Step(method="GET", path=r"app\.zip$")


@pytest.fixture
def bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    use_credentials(monkeypatch, moto_server)
    # Twice, and without a pause, is enough to see that a request is repeated.
    monkeypatch.setattr(s3_connection, "ATTEMPTS", 2)
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.01)
    return make_bucket(moto_server)


@pytest.fixture
def proxy(bucket: Bucket) -> Iterator[FaultProxy]:
    with running_proxy(bucket.server.url) as proxy:
        yield proxy


def upload(bucket: Bucket, proxy: FaultProxy) -> None:
    with bucket.store(proxy.url).upload("app.zip", SIZE) as upload:
        for _ in range(SIZE // MIB):
            upload.write(DATA)
        upload.commit()


@pytest.mark.parametrize("step", [CREATION, FIRST, MIDDLE, LAST, COMPLETION])
@pytest.mark.parametrize("kind", ["answer", "answer-after", "cut-request"])
def test_a_failure_that_stays_leaves_nothing(bucket: Bucket, proxy: FaultProxy, step: Step, kind: Kind) -> None:
    fault = proxy.inject(Fault(kind, **step, at=MIB))
    with pytest.raises(StoreError):
        upload(bucket, proxy)
    assert fault.struck >= 2
    assert bucket.is_empty()


@pytest.mark.parametrize("step", [CREATION, FIRST, MIDDLE, LAST, COMPLETION])
@pytest.mark.parametrize("kind", ["answer", "answer-after", "cut-request"])
def test_a_failure_that_passes_is_overcome(bucket: Bucket, proxy: FaultProxy, step: Step, kind: Kind) -> None:
    fault = proxy.inject(Fault(kind, **step, at=MIB, times=1))
    upload(bucket, proxy)
    assert fault.struck == 1
    assert b"".join(bucket.store().read("app.zip")) == DATA * 20
    assert bucket.keys() == ["acme/backups/app.zip"]
    assert bucket.unfinished() == []


@pytest.mark.parametrize("step", [FIRST, LAST, COMPLETION])
def test_a_permission_taken_away_meanwhile_is_named_and_leaves_nothing(
    bucket: Bucket, proxy: FaultProxy, step: Step
) -> None:
    proxy.inject(Fault("answer", **step, status=403, code="AccessDenied"))
    with pytest.raises(StoreDenied, match="s3:PutObject is not allowed"):
        upload(bucket, proxy)
    assert bucket.is_empty()


def test_a_server_that_is_too_busy_leaves_nothing(bucket: Bucket, proxy: FaultProxy) -> None:
    proxy.inject(Fault("answer", **MIDDLE, status=503, code="SlowDown"))
    with pytest.raises(StoreError, match="the S3 store failed") as caught:
        upload(bucket, proxy)
    assert "503 SlowDown" in caught.value.found
    assert bucket.is_empty()


def test_a_server_that_falls_silent_is_given_up(
    bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3_connection, "READ_TIMEOUT", 1)
    # While a request is sent, it is the time-out of the connection that counts.
    monkeypatch.setattr(s3_connection, "CONNECT_TIMEOUT", 1)
    proxy.inject(Fault("stall", **MIDDLE, seconds=30))
    with pytest.raises(StoreUnreachable, match="did not answer"):
        upload(bucket, proxy)
    assert bucket.is_empty()


def test_an_upload_that_cannot_be_aborted_is_named_with_the_command_for_it(bucket: Bucket, proxy: FaultProxy) -> None:
    proxy.inject(Fault("answer", **LAST))
    proxy.inject(Fault("answer", method="DELETE"))
    with pytest.raises(StoreError) as caught:
        upload(bucket, proxy)
    assert "s3api abort-multipart-upload" in caught.value.hint
    assert "partNumber" not in caught.value.summary
    (leftover,) = bucket.store().leftovers()
    assert leftover.handle in caught.value.hint


@pytest.mark.parametrize("kind", ["answer", "answer-after", "cut-request"])
def test_a_small_object_that_fails_is_not_there(bucket: Bucket, proxy: FaultProxy, kind: Kind) -> None:
    fault = proxy.inject(Fault(kind, **SMALL))
    with pytest.raises(StoreError):
        bucket.store(proxy.url).put_small("app.json", b"{}")
    assert fault.struck == 2
    assert bucket.is_empty()


def test_a_small_object_whose_first_answer_is_lost_is_stored_once(bucket: Bucket, proxy: FaultProxy) -> None:
    proxy.inject(Fault("answer-after", **SMALL, times=1))
    bucket.store(proxy.url).put_small("app.json", b"{}")
    assert bucket.store().get_small("app.json") == b"{}"


@pytest.mark.parametrize(
    ("step", "status", "code"),
    [(CREATION, 400, "InvalidArgument"), (FIRST, 400, "InvalidRequest"), (FIRST, 501, "NotImplemented")],
)
def test_a_server_that_takes_no_crc32_gets_md5_with_each_part(
    bucket: Bucket, proxy: FaultProxy, step: Step, status: int, code: str
) -> None:
    proxy.inject(Fault("answer", **step, times=1, status=status, code=code))
    upload(bucket, proxy)
    parts = [each for each in proxy.requests if "partNumber" in each.query and each.status == 200]
    assert len(parts) == 3
    assert all("Content-MD5" in each.headers for each in parts)
    assert not any("x-amz-checksum-crc32" in each.headers for each in parts)
    assert b"".join(bucket.store().read("app.zip")) == DATA * 20
    assert bucket.unfinished() == []


def test_a_server_that_knows_no_condition_is_asked_by_head(bucket: Bucket, proxy: FaultProxy) -> None:
    proxy.inject(Fault("answer", **COMPLETION, times=2, status=501, code="NotImplemented"))
    upload(bucket, proxy)
    completions = [each for each in proxy.requests if each.method == "POST" and "uploadId" in each.query]
    assert [each.headers.get("If-None-Match") for each in completions] == ["*", "*", None]
    before_last = proxy.requests[: proxy.requests.index(completions[-1])]
    assert before_last[-1].method == "HEAD"
    assert bucket.keys() == ["acme/backups/app.zip"]


@pytest.fixture
def stored(bucket: Bucket) -> bytes:
    with bucket.store().upload("app.zip", SIZE) as upload:
        for _ in range(SIZE // MIB):
            upload.write(DATA)
        upload.commit()
    return DATA * 20


def test_a_reading_that_breaks_is_taken_up_where_it_ended(bucket: Bucket, proxy: FaultProxy, stored: bytes) -> None:
    proxy.inject(Fault("cut-response", **READING, at=5 * MIB + 3, times=3))
    assert b"".join(bucket.store(proxy.url).read("app.zip")) == stored
    ranges = [each.headers.get("Range") for each in proxy.requests if each.method == "GET"]
    assert ranges[0] is None
    assert len(ranges) == 4
    assert all(ranges[1:])


def test_a_reading_that_breaks_again_and_again_is_an_error(bucket: Bucket, proxy: FaultProxy, stored: bytes) -> None:
    proxy.inject(Fault("cut-response", **READING, at=0))
    with pytest.raises(StoreUnreachable):
        list(bucket.store(proxy.url).read("app.zip"))


def test_a_reading_never_goes_on_with_another_object(bucket: Bucket, proxy: FaultProxy, stored: bytes) -> None:
    proxy.inject(Fault("cut-response", **READING, at=5 * MIB, times=1))
    pieces = bucket.store(proxy.url).read("app.zip")
    next(pieces)
    bucket.client.put_object(Bucket=bucket.name, Key="acme/backups/app.zip", Body=bytes(SIZE))
    with pytest.raises(StoreError, match="replaced"):
        list(pieces)


def test_one_flipped_byte_is_found_by_the_checksum_that_the_store_keeps(
    bucket: Bucket, proxy: FaultProxy, stored: bytes
) -> None:
    proxy.inject(Fault("flip", **READING, at=11 * MIB))
    with pytest.raises(StoreError, match="does not match the checksum"):
        list(bucket.store(proxy.url).read("app.zip"))
