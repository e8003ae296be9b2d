"""A store that is refused one kind of request, and what a listing alone tells of it."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError

from opsproof.system.store import StoredObject
from opsproof.system.store.s3 import S3Store


def refuse(
    store: S3Store, monkeypatch: pytest.MonkeyPatch, operation: str, method: str, code: str = "AccessDenied"
) -> None:
    """Let the server refuse one of the store's requests."""

    def answer(**_: object) -> None:
        status = {"HTTPStatusCode": 403 if code == "AccessDenied" else 400}
        raise ClientError({"Error": {"Code": code}, "ResponseMetadata": status}, operation)  # type: ignore[typeddict-item]

    monkeypatch.setattr(store._client, method, answer)


def listed(store: S3Store) -> list[StoredObject]:
    """Return what a listing alone tells: no version ids."""
    return [
        StoredObject(each.name, store.location + each.name, each.bytes, "", each.modified, etag=each.etag)
        for each in store.list()
    ]
