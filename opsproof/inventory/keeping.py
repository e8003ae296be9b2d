"""What a host asks for -> the policies of its target."""

from __future__ import annotations

from pathlib import Path

from opsproof.inventory.schema import HostVariables, fields_given
from opsproof.policies import (
    Artifacts,
    BucketExpectations,
    DrillSettings,
    Objectives,
    ObjectLock,
    Policies,
    Retention,
    Sealing,
    Thresholds,
)


def policies_of_host(own: HostVariables, folder: Path) -> Policies:
    """Return a host's policies; what it does not say has the default of `opsproof.policies`.

    Args:
        own: The host's variables.
        folder: What relative paths of key files are relative to: the inventory's folder.
    """
    return Policies(
        retention=Retention(**fields_given(own.retention)),
        artifacts=Artifacts(**fields_given(own.artifacts)),
        objectives=Objectives(**fields_given(own.objectives)),
        object_lock=object_lock_of_host(own),
        bucket=BucketExpectations(**fields_given(own.store.expect)),
        sealing=Sealing(
            recipients=own.encryption.recipients or (),
            identity_file=_path(folder, own.encryption.identity_file),
            signing_key_file=_path(folder, own.signing.key_file),
            verify_key_file=_path(folder, own.signing.verify_key_file),
        ),
        drill=DrillSettings(**fields_given(own.drill)),
        thresholds=Thresholds(**fields_given(own.thresholds)),
        ping_urls=fields_given(own.ping),
    )


def object_lock_of_host(own: HostVariables) -> ObjectLock | None:
    """Return the lock that every object of a host's backups gets, or None."""
    asked = own.store.object_lock
    return None if asked is None else ObjectLock(asked.mode, asked.days)


def _path(folder: Path, name: str | None) -> str | None:
    return None if name is None else str((folder / Path(name).expanduser()).absolute())
