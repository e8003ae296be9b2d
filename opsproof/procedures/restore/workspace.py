"""A folder for what a restore unpacks, that nobody else may enter, and that the next run removes after a kill -9."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

from opsproof.errors import HostError

PREFIX = "opsproof-restore-"
LOCK = "lock"


class Workspace:
    """A new folder in the temporary folder, mode 0700; whoever holds the lock in it is at work there.

    Raises:
        HostError: The temporary folder cannot be written.
    """

    def __init__(self) -> None:
        try:
            # Until it is locked, another run may take it for one that a killed run has left.
            while not self._make():
                pass
        except OSError as error:
            raise HostError(
                f"There is no folder to unpack a backup in: {error.strerror}",
                expected="a temporary folder that this account can write, with room",
                found=str(error),
                kept="nothing was changed",
                hint="name one with room for it: TMPDIR=/path pytest ...",
            ) from error

    def close(self) -> None:
        """Remove the folder with everything in it."""
        with suppress(OSError):
            _remove(self.path)
        self._lock.close()

    def _make(self) -> bool:
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX))
        try:
            self._lock: IO[bytes] = (self.path / LOCK).open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            return os.path.samestat(os.fstat(self._lock.fileno()), (self.path / LOCK).stat())
        except FileNotFoundError:
            return False


def own_folders() -> list[Path]:
    """Return the folders that look like such a one and are this account's, sorted.

    Anybody may make a name in the temporary folder, and let it lead to a folder that nobody meant.
    """
    found = []
    try:
        for folder in sorted(Path(tempfile.gettempdir()).glob(f"{PREFIX}*")):
            with suppress(FileNotFoundError):
                status = folder.lstat()
                if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                    found.append(folder)
    except OSError:
        # Whoever needs a folder there is told by `Workspace`.
        return []
    return found


def remove_abandoned() -> list[Path]:
    """Remove the folders of runs that ended without doing so themselves; return which."""
    removed: list[Path] = []
    for folder in own_folders():
        # Somebody else's folder, or one that is at work: not ours to judge.
        with suppress(OSError):
            if (folder / LOCK).exists():
                with (folder / LOCK).open("rb") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    _remove(folder)
            else:
                # A run that was killed before it locked it, or after all else was removed: it is empty.
                folder.rmdir()
            removed.append(folder)
    return removed


def _remove(folder: Path) -> None:
    """Remove a folder, its lock last: whoever is killed over it leaves something that the next run knows."""
    for path in folder.iterdir():
        if path.name == LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    shutil.rmtree(folder)
