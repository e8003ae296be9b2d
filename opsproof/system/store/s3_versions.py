"""What a bucket with versioning keeps besides what is there now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC
from itertools import groupby
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from opsproof.system.store.entries import OldVersion
from opsproof.system.store.s3_connection import S3Connection
from opsproof.system.store.s3_errors import is_unknown_there

if TYPE_CHECKING:
    from types_boto3_s3.type_defs import DeleteMarkerEntryTypeDef, ObjectVersionTypeDef


def old_versions(connection: S3Connection, prefix: str) -> Iterator[OldVersion]:
    """Yield what `Store.old_versions` says, a thousand a request.

    Raises:
        ClientError: The store refused.
        BotoCoreError: It did not answer.
    """
    for _, entries in groupby(_entries(connection, prefix), key=lambda entry: entry[0].name):
        versions = list(entries)
        alone = len(versions) == 1
        for version, is_latest in versions:
            if not is_latest or (version.is_delete_marker and alone):
                yield version


def _entries(connection: S3Connection, prefix: str) -> Iterator[tuple[OldVersion, bool]]:
    """Yield every version and marker with whether it is the latest, names in order."""
    pages = connection.client.get_paginator("list_object_versions")
    try:
        for page in pages.paginate(Bucket=connection.bucket, Prefix=connection.place.prefix + prefix):
            found = [(_version(connection, each), each["IsLatest"]) for each in page.get("Versions", ())]
            found += [(_marker(connection, each), each["IsLatest"]) for each in page.get("DeleteMarkers", ())]
            # A name's versions may go on in the next page; the sort is stable, and pages are in order already.
            for version, is_latest in sorted(found, key=lambda entry: entry[0].name.encode()):
                if version.name and not version.name.endswith("/"):
                    yield version, is_latest
    except ClientError as error:
        if not is_unknown_there(error):
            raise


def _version(connection: S3Connection, entry: ObjectVersionTypeDef) -> OldVersion:
    name, modified = connection.name(entry["Key"]), entry["LastModified"].astimezone(UTC)
    return OldVersion(name, entry["VersionId"], entry["Size"], modified, is_delete_marker=False)


def _marker(connection: S3Connection, entry: DeleteMarkerEntryTypeDef) -> OldVersion:
    name, modified = connection.name(entry["Key"]), entry["LastModified"].astimezone(UTC)
    return OldVersion(name, entry["VersionId"], 0, modified, is_delete_marker=True)
