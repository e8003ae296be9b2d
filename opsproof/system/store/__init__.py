"""The place that backups go to: an S3 bucket and prefix, or a directory.

A store keeps bytes under names and never overwrites any; what the names and the bytes mean is the caller's affair.
"""

from __future__ import annotations

from opsproof.system.store.contract import PROBE, Store, Upload
from opsproof.system.store.entries import BucketSettings, Leftover, Listing, Lock, OldVersion, Refusal, StoredObject
from opsproof.target import DirectoryStoreSettings, StoreSettings

__all__ = [
    "PROBE",
    "BucketSettings",
    "Leftover",
    "Listing",
    "Lock",
    "OldVersion",
    "Refusal",
    "Store",
    "StoredObject",
    "Upload",
    "open_store",
]


def open_store(settings: StoreSettings, customer: str) -> Store:
    """Return the store that `settings` describe, at the customer's own place in it; nothing is contacted or made.

    An S3 store is at `s3://{bucket}/{prefix}{customer}/backups/`, a directory at `{path}/{customer}/backups/`; without
    a customer the directory is `path` itself.

    Raises:
        ConfigurationError: A profile or a credentials file that the settings name is not there, or the customer's
            name cannot be a folder.
    """
    if isinstance(settings, DirectoryStoreSettings):
        from opsproof.system.store.directory import open_directory_store

        return open_directory_store(settings, customer)
    # boto3 and its S3 client cost about half a second, which a run with a directory need not spend.
    from opsproof.system.store.s3 import open_s3_store

    return open_s3_store(settings, customer)
