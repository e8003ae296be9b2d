"""Whether the disks of another machine have room for a restore: for the unpacked dump, the database and the files."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from opsproof.inspection.finding import ROOM, Finding
from opsproof.inspection.restores.situation import Situation
from opsproof.system.hosts.host import Host
from opsproof.system.postgres import catalog
from opsproof.system.postgres.server import Connection

DF_SECONDS = 60.0


def examine_far_room(connection: Connection, situation: Situation, database_bytes: int) -> Iterator[Finding]:
    """Yield the disks that are too small; what falls on one disk is added up.

    The dump has its place there already. Of the files all are counted: which of them are missing is looked at later.

    Args:
        connection: To the server.
        situation: What is to be restored, and where.
        database_bytes: What the restored database takes at most.
    """
    target, live = situation.target, situation.live
    host = Host(target.connection)
    wanted: list[tuple[str, str, int]] = []
    folders = catalog.read_data_folders(connection, live.name if live else None)
    if folders and (not target.database.host or target.database.host.startswith("/")):
        wanted.append(("the database", folders[0], database_bytes))
    else:
        yield Finding(
            ROOM, f"{database_bytes:,} bytes free where the server keeps its data", "its disk cannot be looked at",
            "df on the server, in the folder that SHOW data_directory tells a superuser", blocks=False,
        )  # fmt: skip
    if target.filestore and situation.backup.files_bytes:
        parent = str(target.filestore.path.parent)
        present = 0 if not target.filestore.content_addressed else _bytes_below(host, str(target.filestore.path))
        wanted.append(("files", parent, max(0, situation.backup.files_bytes - present)))
    needed: dict[str, list[tuple[str, str, int]]] = defaultdict(list)
    free: dict[str, int] = {}
    for purpose, folder, size in wanted:
        found = _disk_of(host, folder)
        if found is not None:
            needed[found[0]].append((purpose, folder, size))
            free[found[0]] = found[1]
    for disk, purposes in needed.items():
        total = sum(size for _, _, size in purposes)
        if free[disk] < total:
            shown = "; ".join(f"{size:,} for {purpose} in {folder}" for purpose, folder, size in purposes)
            yield Finding(
                ROOM, f"{total:,} bytes free on {target.connection.host}: {shown}", f"{free[disk]:,} bytes free",
                "remove what is not needed there, such as databases that earlier restores parked", blocks=True,
            )  # fmt: skip


def _disk_of(host: Host, folder: str) -> tuple[str, int] | None:
    """Return the disk of a folder, or of the nearest above it, and what is free there; None if nobody may look."""
    while True:
        done = host.run(
            "df", "--block-size=1", "--output=source,avail", "--", folder, timeout=DF_SECONDS, accept=(0, 1)
        )
        if done.status == 0:
            source, _, available = done.stdout.splitlines()[-1].rpartition(" ")
            return source.strip(), int(available)
        if folder in ("/", ""):
            return None
        folder = folder.rsplit("/", 1)[0] or "/"


def _bytes_below(host: Host, folder: str) -> int:
    done = host.run("du", "--summarize", "--bytes", "--", folder, timeout=3600.0, accept=(0, 1))
    return int(done.stdout.split()[0]) if done.stdout.strip() else 0
