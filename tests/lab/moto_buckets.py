"""Buckets of moto's for one test each, which the test itself may use by boto3's chain.

A test module takes the fixtures in by `from tests.lab.moto_buckets import bucket, moto_server`.
"""

from __future__ import annotations

import pytest

from tests.lab.bucket import Bucket, make_bucket, use_credentials
from tests.lab.moto_server import S3Server, moto_server

__all__ = ["bucket", "locking", "moto_server"]


@pytest.fixture
def bucket(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket of a test's own."""
    use_credentials(monkeypatch, moto_server)
    return make_bucket(moto_server)


@pytest.fixture
def locking(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """A bucket with Object Lock."""
    use_credentials(monkeypatch, moto_server)
    return make_bucket(moto_server, object_lock=True)
