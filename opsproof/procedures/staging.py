"""A filestore that is not content-addressed: written anew beside the live one, and exchanged with it."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from opsproof.errors import FilestoreError
from opsproof.system.fileadding import remove_folder


class StagedFiles:
    """Two folders beside the live one: the staged, which will be live, and the parked, which was.

    Args:
        live: The folder that the application uses.
        stamp: What tells this restore's folders from those of another.
    """

    def __init__(self, live: Path, stamp: str) -> None:
        self.live = live
        self.staged = live.parent / f".{live.name}.opsproof-side-{stamp}"
        self.parked = live.parent / f"{live.name}__before_{stamp}"

    def exchange(self) -> None:
        """Rename live away and staged to live; what was done already is not done again.

        Raises:
            FilestoreError: A folder cannot be renamed.
        """
        if not self.staged.exists():
            return
        self._rename(self.live, self.parked)
        self._rename(self.staged, self.live)
        self._sync()

    def adopt(self, kept: Path) -> None:
        """Stage the folder that an earlier exchange has parked.

        Raises:
            FilestoreError: It cannot be renamed.
        """
        self._rename(kept, self.staged)
        self._sync()

    def release(self, kept: Path) -> None:
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
        if self.parked.exists():
            if self.live.exists():
                self._rename(self.live, self.staged)
            self._rename(self.parked, self.live)
            self._sync()

    def discard(self) -> None:
        """Remove the staged folder, if it did not become the live one; the parked one stays, for the undo.

        Raises:
            FilestoreError: It cannot be removed.
        """
        remove_folder(self.staged)

    def _rename(self, old: Path, new: Path) -> None:
        try:
            if old.exists():
                old.rename(new)
        except OSError as error:
            raise FilestoreError(
                f"{old} could not be renamed to {new.name}: {error.strerror}",
                expected=f"{old.parent}, which this account can write, and nothing of the new name in it",
                found=str(error),
                kept=f"all files: they are in {old}",
                hint=f"mv {shlex.quote(str(old))} {shlex.quote(str(new))}",
            ) from error

    def _sync(self) -> None:
        try:
            folder = os.open(self.live.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise FilestoreError(
                f"{self.live.parent} could not be written to its disk: {error.strerror}",
                expected="a disk that keeps what was renamed on it",
                found=str(error),
                kept="all files: the folders have been renamed, which the disk may not know yet",
                hint=f"sync --file-system {shlex.quote(str(self.live.parent))}",
            ) from error
