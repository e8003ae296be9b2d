"""Whether the disks have room for a restore or a rollback: for databases, files, and the safety backup."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from opsproof.inspection.finding import ROOM, Finding
from opsproof.inspection.restores.farroom import examine_far_room
from opsproof.inspection.restores.situation import Material, Situation
from opsproof.inspection.room import COMPRESSED_SHARE
from opsproof.system.postgres import catalog
from opsproof.system.postgres.server import Connection, DatabaseFacts
from opsproof.target import DatabaseAddress

LOCAL_HOSTS = ("", "localhost", "127.0.0.1", "::1")
# How much bigger than its dump a database is at most, where nobody wrote down how big it was.
UNPACKED = {"custom": 5, "plain": 2}

# By disk: what for, where, how many bytes.
Needed = dict[int, list[tuple[str, Path, int]]]


def examine_room(connection: Connection, situation: Situation) -> Iterator[Finding]:
    """Yield the disks that are too small; what falls on one disk is added up."""
    needed: Needed = defaultdict(list)
    target, live, backup = situation.target, situation.live, situation.backup
    temporary = Path(tempfile.gettempdir())
    if live:
        spool = int(live.bytes * COMPRESSED_SHARE)
        needed[temporary.stat().st_dev].append(("the safety backup", temporary, spool))
    if target.database.via is not None:
        yield from find_small_disks(needed)
        yield from examine_far_room(connection, situation, _database_bytes(situation))
        return
    if target.filestore:
        folder = _existing(Path(target.filestore.path))
        missing = _missing_bytes(
            backup, Path(target.filestore.path), content_addressed=target.filestore.content_addressed
        )
        needed[folder.stat().st_dev].append(("files", folder, missing))
    size = _database_bytes(situation)
    yield from add_to_server(needed, connection, target.database, live.name if live else None, size)
    yield from find_small_disks(needed)


def examine_room_of_rollback(
    connection: Connection, address: DatabaseAddress, live: DatabaseFacts
) -> Iterator[Finding]:
    """Yield the disks that are too small for two copies of a live database, and its safety backup.

    Args:
        connection: To the server.
        address: Where it is.
        live: The database.
    """
    needed: Needed = defaultdict(list)
    temporary = Path(tempfile.gettempdir())
    # The safety backup, while it is taken; then its download, and the dump that is unpacked from it.
    needed[temporary.stat().st_dev].append(("the safety backup", temporary, int(live.bytes * (1 + COMPRESSED_SHARE))))
    yield from add_to_server(needed, connection, address, live.name, 2 * live.bytes)
    yield from find_small_disks(needed)


def add_to_server(
    needed: Needed, connection: Connection, address: DatabaseAddress, database: str | None, size: int
) -> Iterator[Finding]:
    """Add what the server itself needs, where its disk can be seen from here; yield that it cannot."""
    folders = catalog.read_data_folders(connection, database)
    is_here = address.via is None and (address.host in LOCAL_HOSTS or address.host.startswith("/"))
    try:
        if not is_here or not folders:
            raise FileNotFoundError
        data = Path(folders[0])
        needed[data.stat().st_dev].append(("the database", data, size))
    except OSError:
        yield Finding(
            ROOM, f"{size:,} bytes free where the server keeps its data", "a disk that cannot be looked at from here",
            "df on the server, in the folder that SHOW data_directory tells a superuser", blocks=False,
        )  # fmt: skip


def find_small_disks(needed: Needed) -> Iterator[Finding]:
    """Yield the disks that have less room than all that is needed on each."""
    for purposes in needed.values():
        disk = os.statvfs(purposes[0][1])
        free, total = disk.f_bavail * disk.f_frsize, sum(size for _, _, size in purposes)
        if free < total:
            shown = "; ".join(f"{size:,} for {purpose} in {folder}" for purpose, folder, size in purposes)
            yield Finding(
                ROOM, f"{total:,} bytes free: {shown}", f"{free:,} bytes free",
                "remove what is not needed there, such as databases that earlier restores parked", blocks=True,
            )  # fmt: skip


def _database_bytes(situation: Situation) -> int:
    """Return what the restored database takes more on the server's disk than is taken now, at most."""
    backup, live = situation.backup, situation.live.bytes if situation.live else 0
    if backup.manifest:
        size = backup.manifest.database.bytes
    else:
        size = max(live, backup.database_bytes * UNPACKED[backup.database_format])
    return max(0, size - live) if situation.in_place else size


def _missing_bytes(backup: Material, root: Path, *, content_addressed: bool) -> int:
    if not content_addressed:
        return backup.files_bytes
    return sum(member.bytes for member in backup.file_members() if not (root / member.path).exists())


def _existing(folder: Path) -> Path:
    return next((one for one in (folder, *folder.parents) if one.exists()), Path("/"))
