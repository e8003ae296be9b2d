"""Whether the disks have room, in bytes and in inodes, for the next backup of a target and for the next restore.

Before there is a backup to look into, what it will take is estimated from what is live: it is never less than that.
"""

from __future__ import annotations

import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import CommandFailed, NoRoom
from opsproof.inspection.restores.restoreroom import LOCAL_HOSTS
from opsproof.inspection.room import COMPRESSED_SHARE
from opsproof.inspection.services import UNTOUCHED
from opsproof.system.files.filestore import FilestoreFacts
from opsproof.system.hosts.host import Host
from opsproof.system.postgres import catalog
from opsproof.system.postgres.server import Connection, DatabaseFacts
from opsproof.target import Connection as Way
from opsproof.target import DirectoryStoreSettings, Target

DF_SECONDS = 60.0
# What a run makes of temporary files and folders, at most, besides those that are counted.
FEW_FILES = 64
# The folders of a content-addressed filestore: 16 * 16, or 16 * 16 * 16 where names begin with three digits.
HASH_FOLDERS = 4096
# A relation's own file, its free space map and its visibility map; and one more for each GiB.
FORKS = 3
SEGMENT_BYTES = 1 << 30
_ROW = re.compile(r"(\S.*?)\s+(\d+|-)\s+(\d+|-)\s+(\d+|-)\s+(/.*)")


@dataclass(frozen=True)
class Need:
    """What is going to be written somewhere.

    Attributes:
        purpose: What it is.
        host: The machine.
        folder: Where on it.
        bytes: How much.
        files: How many files and folders.
        must_exist: Nothing can be said of it where the folder is not there; else the nearest one above it counts.
    """

    purpose: str
    host: Host
    folder: str
    bytes: int
    files: int
    must_exist: bool = False


@dataclass(frozen=True)
class Disk:
    """A file system, and what it has free; `files` is None where it makes inodes as it needs them."""

    name: str
    bytes: int
    files: int | None


def needs_of_backup(target: Target, live: DatabaseFacts, files: FilestoreFacts | None) -> Iterator[Need]:
    """Yield what the next backup is going to write.

    Args:
        target: Whose.
        live: Its database.
        files: Its filestore; None where it keeps none.
    """
    here, temporary = Host(Way()), tempfile.gettempdir()
    yield Need("the temporary compressed dump", here, temporary, int(live.bytes * COMPRESSED_SHARE), FEW_FILES)
    if isinstance(target.store, DirectoryStoreSettings):
        size = int(live.bytes * COMPRESSED_SHARE) + (files.bytes if files else 0)
        yield Need("the backup", here, str(target.store.path.absolute()), size, FEW_FILES)
    if target.filestore and files:
        parent = str(target.filestore.path.parent)
        # Hard links take no room, but their folders do; files that may change are copied, where they cannot be linked.
        own = (0, HASH_FOLDERS) if target.filestore.content_addressed else (files.bytes, files.files)
        yield Need("the frozen filestore", Host(target.connection), parent, own[0], own[1] + FEW_FILES)


def needs_of_restore(
    connection: Connection, target: Target, live: DatabaseFacts, files: FilestoreFacts | None
) -> Iterator[Need]:
    """Yield what a restore of the newest backup would write, as far as it can be told where.

    Where the server's disk is another machine's that nobody can log in to, nothing is yielded for the database: see
    `is_server_in_sight`.

    Args:
        connection: To the database.
        target: Whose.
        live: Its database.
        files: Its filestore; None where it keeps none.
    """
    here, temporary, host = Host(Way()), tempfile.gettempdir(), Host(target.connection)
    packed = int(live.bytes * COMPRESSED_SHARE)
    yield Need("the safety backup", here, temporary, packed, FEW_FILES)
    if not isinstance(target.store, DirectoryStoreSettings):
        yield Need("the download", here, temporary, packed + (files.bytes if files else 0), FEW_FILES)
    yield Need("the unpacked dump", here, temporary, packed, FEW_FILES)
    if target.filestore and files and not target.filestore.content_addressed:
        parent = str(target.filestore.path.parent)
        yield Need("the files, beside those that are live", host, parent, files.bytes, files.files + FEW_FILES)
    folders = catalog.read_data_folders(connection, live.name)
    if folders and is_server_in_sight(target):
        machine = Host(target.database.via or Way())
        yield Need("the side database", machine, folders[0], live.bytes, _count_files(connection, live), True)


def is_server_in_sight(target: Target) -> bool:
    """Tell whether the database's server is the machine that its sessions begin on."""
    return target.database.host in LOCAL_HOSTS or target.database.host.startswith("/")


def check_room(needs: Iterable[Need], purpose: str) -> tuple[str, ...]:
    """Make sure that each disk has room for all that is to be written to it, in bytes and in inodes.

    Args:
        needs: What is to be written.
        purpose: What for: `the next backup`.

    Returns:
        What could not be looked at, a sentence each.

    Raises:
        NoRoom: A disk is too small.
        HostError: A host cannot be reached.
    """
    wanted: dict[tuple[Way, str], list[Need]] = defaultdict(list)
    disks: dict[tuple[Way, str], Disk] = {}
    unseen = []
    for need in needs:
        disk = find_disk(need.host, need.folder, must_exist=need.must_exist)
        if disk is None:
            unseen.append(f"nobody can tell how much is free in {need.folder}, for {need.purpose}")
            continue
        key = (need.host.connection, disk.name)
        wanted[key].append(need)
        disks[key] = disk
    for key, of_disk in wanted.items():
        _require(disks[key], of_disk, purpose)
    return tuple(unseen)


def find_disk(host: Host, folder: str, *, must_exist: bool = False) -> Disk | None:
    """Return the disk of a folder, or of the nearest above it; None where nobody may look.

    Raises:
        HostError: The host cannot be reached, or has no `df` of coreutils.
    """
    command = ("df", "--block-size=1", "--output=source,avail,iavail,itotal,target", "--")
    while True:
        try:
            done = host.run(*command, folder, timeout=DF_SECONDS)
        except CommandFailed as error:
            if "option" in error.found:
                raise
            if must_exist or folder in ("/", ""):
                return None
            folder = folder.rsplit("/", 1)[0] or "/"
            continue
        row = _ROW.fullmatch(done.stdout.splitlines()[-1].strip())
        if row is None or not row[2].isdigit():
            return None
        # A memory file system has no device that tells one from another; a device may be mounted in several places.
        name = row[1] if row[1].startswith("/") else row[5]
        has_inodes = row[3].isdigit() and row[4].isdigit() and int(row[4]) > 0
        return Disk(name, int(row[2]), int(row[3]) if has_inodes else None)


def _require(disk: Disk, needs: list[Need], purpose: str) -> None:
    size, files = sum(need.bytes for need in needs), sum(need.files for need in needs)
    where = needs[0].host.connection.host or "this machine"
    shown = "\n".join(
        f"{need.bytes:,} bytes and {need.files:,} files for {need.purpose} in {need.folder}" for need in needs
    )
    if disk.bytes < size:
        raise NoRoom(
            f"{disk.name} of {where} has not enough room for {purpose}",
            expected=f"{size:,} bytes free:\n{shown}",
            found=f"{disk.bytes:,} bytes free",
            kept=UNTOUCHED,
            hint=f"on it: df -h {Path(needs[0].folder)}, and remove what is not needed there; TMPDIR=/path pytest ..."
            " names another folder for temporary files",
        )
    if disk.files is not None and disk.files < files:
        raise NoRoom(
            f"{disk.name} of {where} has not enough inodes for {purpose}",
            expected=f"{files:,} inodes free:\n{shown}",
            found=f"{disk.files:,} inodes free, and {disk.bytes:,} bytes",
            kept=UNTOUCHED,
            hint=f"on it: df -i {Path(needs[0].folder)}; many small files that nobody needs: sessions, caches, mail",
        )


def _count_files(connection: Connection, live: DatabaseFacts) -> int:
    row = connection.execute("SELECT count(*) FROM pg_class WHERE relkind IN ('r', 'i', 't', 'm', 'S')").fetchone()
    return (int(row[0]) if row else 0) * FORKS + live.bytes // SEGMENT_BYTES + FEW_FILES
