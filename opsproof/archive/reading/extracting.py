"""Writing what a backup holds to a new file of one's own."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from pathlib import Path

from opsproof.archive.paths import KEPT, shown
from opsproof.archive.writing.conveyor import conveying
from opsproof.archive.writing.relay import Relay
from opsproof.errors import ArchiveError


def write_new(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file that was not there, readable by its owner alone. After any error it is gone again.

    Raises:
        ArchiveError: There is such a file, or it cannot be written; or what the chunks raise.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except (OSError, ValueError) as error:
        raise _unwritable(path, error) from error
    try:
        with (
            os.fdopen(descriptor, "wb", buffering=0) as file,
            conveying(Relay(partial(_write, path, file.fileno()))) as relay,
        ):
            for chunk in chunks:
                relay.write(chunk)
    except BaseException:
        with suppress(OSError):
            path.unlink()
        raise


def require_size(path: Path, expected: int, found: int) -> None:
    """Make sure that a backup is as long as the manifest beside it says. Bytes.

    Raises:
        ArchiveError: It is not.
    """
    if expected != found:
        raise ArchiveError(
            f"{shown(path.name)} is not as long as the manifest beside it says",
            expected=f"{expected:,} bytes",
            found=f"{found:,} bytes",
            kept=KEPT,
            hint="download it again; if it stays so, choose another backup: pytest --list-backups --env=ENV",
        )


def _write(path: Path, descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(descriptor, view) :]
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError | ValueError) -> ArchiveError:
    reason = getattr(error, "strerror", "") or str(error)
    return ArchiveError(
        f"The backup cannot be unpacked: {reason}",
        expected=f"a new file {path}, and room for it",
        found=reason,
        kept=KEPT,
        hint="free some room, or name a folder with more: TMPDIR=/path pytest ...",
    )
