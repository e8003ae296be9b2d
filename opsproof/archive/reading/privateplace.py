"""Where a backup may be unpacked: a folder that nobody else can enter, with room, and files that nobody else reads."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from opsproof.errors import ArchiveError
from opsproof.system.store.directory_upload import make_private_folders

GONE = "what was downloaded is removed; nothing else was changed"
KEPT = "nothing was changed"
OTHERS = stat.S_IRWXG | stat.S_IRWXO


def create_private(path: Path) -> int:
    """Make a file, 0600, and return its descriptor. Whatever is under that name is neither followed nor overwritten.

    Raises:
        ArchiveError: It cannot be made.
    """
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise unusable(f"{path} cannot be written", error, f"ls -la {path.parent}") from error


@contextmanager
def private_folder(folder: Path) -> Iterator[None]:
    """Make the folder where it is missing; after a failure one that was made here is gone again."""
    existed = os.path.lexists(folder)
    try:
        make_private_folders(folder)
        mode = folder.stat().st_mode
    except OSError as error:
        raise unusable(f"The folder {folder} cannot be made", error, f"namei -l {folder}") from error
    if not stat.S_ISDIR(mode) or mode & OTHERS:
        raise ArchiveError(
            f"{folder} is no place for a backup: it is not private",
            expected="a folder of mode 0700",
            found=f"mode {stat.S_IMODE(mode):04o}" if stat.S_ISDIR(mode) else "no folder",
            kept=KEPT,
            hint=f"chmod 700 {folder}",
        )
    try:
        yield
    except BaseException:
        if not existed:
            with suppress(OSError):  # somebody else has put something there
                folder.rmdir()
        raise


def unusable(summary: str, error: OSError, hint: str) -> ArchiveError:
    """Return the error of a folder or a file that the system refuses."""
    return ArchiveError(
        f"{summary}: {error.strerror}",
        expected="a private folder that can be written, a file that can be read",
        found=str(error),
        kept=KEPT,
        hint=hint,
    )
