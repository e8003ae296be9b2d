"""Whether there is room for what is about to be written."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import NoRoom

# What a database's compressed dump and SQL need at most of its size on disk, where nobody can know beforehand: its
# indexes are left out of both, and text deflates to less than half.
COMPRESSED_SHARE = 0.5


@dataclass(frozen=True)
class Room:
    """A disk, what it has free, and what is needed of it; bytes."""

    folder: str
    free: int
    needed: int


def check_spool_room(database_bytes: int, folder: Path | None = None) -> Room:
    """Return the room for the temporary compressed dump and SQL.

    Raises:
        NoRoom: There is less than a database of this size may need.
    """
    place = folder or Path(tempfile.gettempdir())
    room = Room(str(place), shutil.disk_usage(place).free, int(database_bytes * COMPRESSED_SHARE))
    _require(room, "the temporary compressed dump", "name a folder with more room: TMPDIR=/path pytest ...")
    return room


def check_store_room(location: str, free: int | None, database_bytes: int, filestore_bytes: int) -> Room | None:
    """Return the room in a store that knows its limit; None where it knows none.

    Raises:
        NoRoom: There is less than the bundle may need.
    """
    if free is None:
        return None
    room = Room(location, free, int(database_bytes * COMPRESSED_SHARE) + filestore_bytes)
    _require(room, "the bundle", "remove old backups, or name another backup_dir")
    return room


def _require(room: Room, purpose: str, hint: str) -> None:
    if room.free < room.needed:
        raise NoRoom(
            f"Not enough room in {room.folder} for {purpose}",
            expected=f"{room.needed:,} bytes free",
            found=f"{room.free:,} bytes free",
            kept="nothing was changed",
            hint=hint,
        )
