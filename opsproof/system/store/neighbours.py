"""What lies beside a store's own place: any folder of the bucket by its address, and the customers that are there."""

from __future__ import annotations

import os
from contextlib import suppress

from opsproof.errors import OpsproofError
from opsproof.system.store.contract import Store
from opsproof.target import DirectoryStoreSettings, S3StoreSettings, StoreSettings


def open_folder(settings: S3StoreSettings, prefix: str) -> Store:
    """Return the store at `s3://{bucket}/{prefix}`, whatever is kept there; nothing is contacted.

    Args:
        settings: How to reach the bucket; their own prefix does not count.
        prefix: Empty, or ending in a slash.

    Raises:
        ConfigurationError: A profile or a credentials file that the settings name is not there.
    """
    # boto3 and its S3 client cost about half a second, which a run with a directory need not spend.
    from opsproof.system.store.s3 import S3Store
    from opsproof.system.store.s3_connection import S3Connection

    return S3Store(S3Connection(settings, prefix))


def find_customers(settings: StoreSettings) -> tuple[str, ...]:
    """Return the folders that stand where customers' folders stand, a thousand at most.

    It only serves a message: where they may not be listed, it returns none.
    """
    if isinstance(settings, DirectoryStoreSettings):
        with suppress(OSError), os.scandir(settings.path.expanduser()) as entries:
            # Without a customer the place itself holds the backups, and any folder may be beside them.
            return tuple(sorted(entry.name for entry in entries if os.path.isdir(os.path.join(entry.path, "backups"))))  # noqa: PTH112, PTH118  scandir's own texts
        return ()
    with suppress(OpsproofError):
        return _prefixes(settings)
    return ()


def _prefixes(settings: S3StoreSettings) -> tuple[str, ...]:
    from opsproof.system.store.s3_connection import S3Connection

    connection = S3Connection(settings, settings.prefix.lstrip("/"))
    with connection.translating():
        page = connection.client.list_objects_v2(
            Bucket=connection.bucket, Prefix=connection.place.prefix, Delimiter="/", MaxKeys=1000
        )
    return tuple(connection.name(each["Prefix"]).rstrip("/") for each in page.get("CommonPrefixes", ()))
