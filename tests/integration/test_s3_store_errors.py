"""What the S3 store says when it is refused, or is not set up as it should be."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import boto3
import pytest

from opsproof.errors import (
    BucketMissing,
    ConfigurationError,
    StoreDenied,
    StoreError,
    StoreUnreachable,
)
from opsproof.system.store import s3_connection
from tests.lab.bucket import Bucket, make_bucket, use_credentials
from tests.lab.fault_proxy import Fault, running_proxy
from tests.lab.moto_buckets import bucket, moto_server
from tests.lab.moto_server import S3Server, free_ports, running_moto

__all__ = ["bucket", "moto_server"]


def test_what_is_not_allowed_is_named_with_action_and_resource(monkeypatch: pytest.MonkeyPatch) -> None:
    """Moto asks its IAM for permission once it is told to, and then for everybody."""
    with running_moto() as server:
        use_credentials(monkeypatch, server)
        bucket = make_bucket(server)
        key = make_user(server, ["s3:ListBucket"])
        strict = urllib.request.Request(
            f"{server.url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        urllib.request.urlopen(strict, timeout=10).close()
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key[0])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key[1])
        resource = f"arn:aws:s3:::{bucket.name}/acme/backups/"
        with pytest.raises(
            StoreDenied, match=f"writing to s3://{bucket.name}/.* s3:PutObject is not allowed"
        ) as caught:
            bucket.store().check_writable()
        assert f"{resource}opsproof-check" in caught.value.expected
        with pytest.raises(
            StoreDenied, match=f"reading from s3://{bucket.name}/.* s3:GetObject is not allowed"
        ) as caught:
            bucket.store().check_readable()
        assert f"{resource}*" in caught.value.expected
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "planted-and-wrong")
        with pytest.raises(StoreDenied, match="the secret does not belong to the access key") as caught:
            bucket.store().check_readable()
        assert "planted" not in str(caught.value)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAUNKNOWN")
        with pytest.raises(StoreDenied, match="the access key is not known there"):
            bucket.store().check_readable()


def make_user(server: S3Server, actions: list[str]) -> tuple[str, str]:
    iam = boto3.client("iam", endpoint_url=server.url, region_name=server.region)
    iam.create_user(UserName="backup")
    statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="backup", PolicyName="backup", PolicyDocument=policy)
    key = iam.create_access_key(UserName="backup")["AccessKey"]
    return key["AccessKeyId"], key["SecretAccessKey"]


def test_a_missing_bucket_is_named_with_the_nearest(bucket: Bucket) -> None:
    wrong = bucket.name[:-1] + "x"
    store = bucket.store(bucket=wrong)
    for check in (store.check_writable, store.check_readable):
        with pytest.raises(BucketMissing, match=f"no bucket {wrong} in us-east-1") as caught:
            check()
        assert bucket.name in caught.value.found
        assert caught.value.hint.startswith("export S3_BUCKET=backups-")


def test_a_server_that_is_not_there_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_connection, "ATTEMPTS", 1)
    (port,) = free_ports(1)
    url = f"http://user:hunter2@127.0.0.1:{port}"
    with pytest.raises(StoreUnreachable, match=f"the S3 store at http://127.0.0.1:{port} did not answer") as caught:
        bucket.store(url).check_writable()
    assert "hunter2" not in str(caught.value)


def test_without_credentials_the_chain_is_named(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(StoreDenied, match="no AWS credentials were found") as caught:
        bucket.store().check_readable()
    assert "set here: AWS_SECRET_ACCESS_KEY" in caught.value.found
    assert "testing" not in str(caught.value)


def test_profile_and_credentials_file_are_where_the_chain_looks(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.delenv("AWS_SHARED_CREDENTIALS_FILE")
    file = tmp_path / "credentials"
    file.write_text("[backups]\naws_access_key_id = FROMFILE\naws_secret_access_key = secret\n")
    with running_proxy(bucket.server.url) as proxy:
        bucket.store(proxy.url, profile="backups", credentials_file=str(file)).check_readable()
        assert "Credential=FROMFILE/" in proxy.requests[0].headers["Authorization"]
    with pytest.raises(ConfigurationError, match="there is no AWS profile other"):
        bucket.store(profile="other", credentials_file=str(file))
    with pytest.raises(ConfigurationError, match="credentials file of the store is not there"):
        bucket.store(credentials_file=str(tmp_path / "missing"))


def test_an_endpoint_that_is_no_url_is_a_configuration_error(bucket: Bucket) -> None:
    with pytest.raises(ConfigurationError, match="cannot be set up as configured"):
        bucket.store("not a url")


def test_a_bucket_that_cannot_be_a_name_is_a_configuration_error(bucket: Bucket) -> None:
    with pytest.raises(ConfigurationError, match="cannot be asked for"):
        bucket.store(bucket="my bucket").check_readable()


@pytest.mark.parametrize(
    ("status", "code", "said", "hint"),
    [
        (400, "ExpiredToken", "the session token has expired", "export AWS_SESSION_TOKEN="),
        (400, "InvalidToken", "the session token is not valid", "export AWS_SESSION_TOKEN="),
        (403, "RequestTimeTooSkewed", "this machine's clock is wrong", "timedatectl"),
        (301, "PermanentRedirect", "is in another region than us-east-1", "export AWS_REGION="),
        (400, "AuthorizationHeaderMalformed", "is in another region than us-east-1", "export AWS_REGION="),
    ],
)
def test_what_amazon_says_is_told_with_what_to_do(bucket: Bucket, status: int, code: str, said: str, hint: str) -> None:
    with running_proxy(bucket.server.url) as proxy:
        proxy.inject(Fault("answer", status=status, code=code))
        store = bucket.store(proxy.url)
        for attempt in (store.check_writable, store.check_readable, lambda: store.upload("app.zip", 1)):
            with pytest.raises(StoreError, match=said) as caught:
                attempt()
            assert caught.value.hint.startswith(hint)


def test_a_web_server_that_redirects_everything_is_named(bucket: Bucket) -> None:
    with running_proxy(bucket.server.url) as proxy:
        proxy.inject(Fault("answer", status=301, code="301", location="https://s3.example.org/backups"))
        with pytest.raises(StoreError, match="it redirects") as caught:
            bucket.store(proxy.url).check_readable()
        assert caught.value.hint == "export S3_ENDPOINT_URL=https://s3.example.org"
        assert len(proxy.requests) < 10
