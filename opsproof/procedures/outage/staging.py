"""A filestore that is not content-addressed: written anew beside the live one, and exchanged with it."""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath

from opsproof.errors import FilestoreError, HostError
from opsproof.system.files.removing import HOURS, remove_folder
from opsproof.system.hosts.host import Host


class StagedFiles:
    """Two folders beside the live one: the staged, which will be live, and the parked, which was.

    Args:
        host: Where they are.
        live: The folder that the application uses.
        stamp: What tells this restore's folders from those of another.
    """

    def __init__(self, host: Host, live: PurePosixPath, stamp: str) -> None:
        self.live = live
        self.staged = live.parent / f".{live.name}.opsproof-side-{stamp}"
        self.parked = live.parent / f"{live.name}__before_{stamp}"
        self._host = host

    def exchange(self) -> None:
        """Rename live away and staged to live; what was done already is not done again.

        Raises:
            FilestoreError: A folder cannot be renamed.
        """
        if not self._exists(self.staged):
            return
        self._rename(self.live, self.parked)
        self._rename(self.staged, self.live)
        self._sync()

    def adopt(self, kept: PurePosixPath) -> None:
        """Stage the folder that an earlier exchange has parked.

        Raises:
            FilestoreError: It cannot be renamed.
        """
        self._rename(kept, self.staged)
        self._sync()

    def release(self, kept: PurePosixPath) -> None:
        """Undo `adopt`.

        Raises:
            FilestoreError: The folder cannot be renamed.
        """
        self._rename(self.staged, kept)
        self._sync()

    def take_back(self) -> None:
        """Undo `exchange`, as far as it went.

        Raises:
            FilestoreError: A folder cannot be renamed.
        """
        if self._exists(self.parked):
            if self._exists(self.live):
                self._rename(self.live, self.staged)
            self._rename(self.parked, self.live)
            self._sync()

    def discard(self) -> None:
        """Remove the staged folder, if it did not become the live one; the parked one stays, for the undo.

        Raises:
            FilestoreError: It cannot be removed.
        """
        remove_folder(self._host, self.staged)

    def _exists(self, folder: PurePosixPath) -> bool:
        return self._host.run("test", "-e", str(folder), accept=(0, 1)).status == 0

    def _rename(self, old: PurePosixPath, new: PurePosixPath) -> None:
        try:
            if self._exists(old):
                # Never into a folder of the new name, and never over one.
                self._host.run("mv", "--no-target-directory", "--no-clobber", "--", str(old), str(new))
                if self._exists(old):
                    raise HostError("mv has left it where it was", found=f"{new} is there already")
        except HostError as error:
            raise FilestoreError(
                f"{old} could not be renamed to {new.name}",
                expected=f"{old.parent}, which this account can write, and nothing of the new name in it",
                found=error.found or error.summary,
                kept=f"all files: they are in {old}",
                hint=f"mv {shlex.quote(str(old))} {shlex.quote(str(new))}",
            ) from error

    def _sync(self) -> None:
        try:
            self._host.run("sync", str(self.live.parent), timeout=HOURS)
        except HostError as error:
            raise FilestoreError(
                f"{self.live.parent} could not be written to its disk",
                expected="a disk that keeps what was renamed on it",
                found=error.found or error.summary,
                kept="all files: the folders have been renamed, which the disk may not know yet",
                hint=f"sync --file-system {shlex.quote(str(self.live.parent))}",
            ) from error
