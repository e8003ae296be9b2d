"""A backup in a bucket that cannot be chosen: why not, with what is near, and what the credentials need."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import boto3
import pytest

from opsproof.errors import BucketMissing, OpsproofError, StoreDenied, StoreError
from opsproof.target import S3StoreSettings
from tests.lab.bucket import Bucket, make_bucket, target_in, use_credentials
from tests.lab.fault_proxy import Fault, FaultProxy, running_proxy
from tests.lab.moto_server import S3Server, moto_server
from tests.lab.targets import CUSTOMER, choose, put_backup

__all__ = ["moto_server"]

NEEDED = "check the S3 bucket and the customer name; the credentials need s3:ListBucket and s3:GetObject"


@pytest.fixture
def bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    use_credentials(monkeypatch, moto_server)
    return make_bucket(moto_server)


@pytest.fixture
def proxy(moto_server: S3Server) -> Iterator[FaultProxy]:
    with running_proxy(moto_server.url) as proxy:
        yield proxy


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


@contextmanager
def asking_who_may(server: S3Server) -> Iterator[None]:
    """Let the server look at every signature and policy; before and afterwards it lets everybody do everything."""

    def let(requests: bytes) -> None:
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"{server.url}/moto-api/reset-auth", data=requests, headers=headers)
        urllib.request.urlopen(request, timeout=10).close()

    let(b"0")
    try:
        yield
    finally:
        let(b"inf")


@pytest.mark.parametrize("allowed", ["s3:GetObject", "s3:ListBucket"])
def test_refused_listing_and_refused_reading_are_told_apart(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    put_backup(bucket.store(customer=CUSTOMER))
    server, user = bucket.server, f"reader-by-{allowed[3:]}"
    iam = boto3.client("iam", endpoint_url=server.url, region_name=server.region)
    iam.create_user(UserName=user)
    policy = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": allowed, "Resource": "*"}]}
    iam.put_user_policy(UserName=user, PolicyName="reader", PolicyDocument=json.dumps(policy))
    key = iam.create_access_key(UserName=user)["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    what, action = {
        "s3:GetObject": ("listing", "s3:ListBucket"),
        "s3:ListBucket": ("reading from", "s3:GetObject"),
    }[allowed]
    with (
        asking_who_may(server),
        pytest.raises(StoreDenied, match=f"{what} s3://.* was refused: {action} is not allowed") as caught,
    ):
        choose(target_in(bucket))
    assert caught.value.hint.endswith(NEEDED)
    assert f"bucket {bucket.name}, customer acme-corp, prefix none" in caught.value.expected


def test_a_store_that_does_not_answer_is_told_as_such(bucket: Bucket, proxy: FaultProxy) -> None:
    put_backup(bucket.store(customer=CUSTOMER))
    target = target_in(bucket, proxy.url)
    proxy.inject(Fault("answer", "GET", path=r"manifest\.json$", status=400, code="ExpiredToken"))
    with pytest.raises(OpsproofError, match="the session token has expired"):
        choose(target)
