"""Removing a folder that stands beside a live filestore, and that nobody uses."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from opsproof.errors import FilestoreError, HostError
from opsproof.system.hosts.host import Host

HOURS = 3600.0


def remove_folder(host: Host, folder: PurePosixPath) -> None:
    """Remove a folder with all that is in it; what is gone already is no error.

    Args:
        host: Where it is.
        folder: What nobody uses. What is mounted below it stays.

    Raises:
        FilestoreError: It cannot be removed.
    """
    try:
        host.run("rm", "--recursive", "--force", "--one-file-system", "--", str(folder), timeout=HOURS)
    except HostError as error:
        raise FilestoreError(
            f"{folder} could not be removed",
            expected="a folder that this account can remove: no application uses it",
            found=error.found or error.summary,
            kept="the live filestore, which is another folder",
            hint=f"rm -rf {shlex.quote(str(folder))}",
        ) from error
