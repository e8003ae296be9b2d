"""The scratch copy of a drill: a database and a folder of files, under names that nothing else has, and gone after it.

Both bear the name of the scratch database, so that whoever finds one knows the other. For Odoo that is also where it
looks for the files of that database: beside those of the live one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import PurePosixPath

from opsproof.archive.reading.backup import OpenedBackup
from opsproof.errors import DatabaseError, FilestoreError
from opsproof.journal import Journal
from opsproof.procedures.restore.building import SideDatabase
from opsproof.system.files.removing import remove_folder
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.databases import create_side, database_exists
from opsproof.system.postgres.dump import Clients
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.properties import copy_properties
from opsproof.system.postgres.scratch import claimed, drop_scratch, is_scratch, is_scratch_of
from opsproof.system.postgres.server import DatabaseFacts
from opsproof.target import FilestoreSettings, Target


@contextmanager
def scratch_database(
    clients: Clients,
    name: str,
    backup: OpenedBackup,
    live: DatabaseFacts | None,
    journal: Journal,
    roles: Mapping[str, str] | None = None,
) -> Iterator[SideDatabase]:
    """Create an empty scratch database, out of every application's sight, and drop it again.

    Args:
        clients: PostgreSQL's programs, with the address of the live database.
        name: As `scratch_name` makes it.
        backup: What is to be loaded into it: its encoding and its locale.
        live: Whose owner, grants and settings it gets; None where nothing is live: then the backup's.
        journal: What happened.
        roles: Roles of the backup that others take the place of, where it is made as the backup says.

    Raises:
        DatabaseError: The server refused, or nobody says how it is to be made.
    """
    record = backup.manifest.database if backup.manifest else None
    shape, properties = record or live, live or record
    if shape is None or properties is None:
        raise DatabaseError(
            "Neither the backup nor a live database says how a database is to be made for it",
            expected="a manifest, or a live database",
            found=backup.description,
            kept="nothing was changed",
            hint="choose a backup that opsproof has made: pytest --list-backups --env=NAME",
        )
    known = {} if live else roles or {}
    # From before it is made until it is dropped no other run takes it for one that was left behind.
    with claimed(clients.address, name):
        try:
            with maintenance(clients.address) as connection:
                owner = known.get(properties.owner, properties.owner)
                create_side(connection, name, shape, owner=owner, like=clients.address.name)
                copy_properties(connection, properties, name, roles=known)
            yield SideDatabase(clients, name, journal)
        finally:
            with maintenance(clients.address) as connection:
                drop_scratch(connection, name)


def scratch_target(target: Target, name: str) -> Target:
    """Return a target as its scratch copy is one: no service serves it, and no page of it is the live one's."""
    filestore = target.filestore
    return replace(
        target,
        database=replace(target.database, name=name),
        filestore=replace(filestore, path=scratch_folder(filestore, name)) if filestore else None,
        services=(),
        nodes={},
        health_url=None,
    )


def scratch_folder(filestore: FilestoreSettings, name: str) -> PurePosixPath:
    """Return where the files of a scratch database are."""
    return filestore.path.parent / name


def remove_scratch_folder(host: Host, filestore: FilestoreSettings, name: str) -> None:
    """Remove the files of a scratch database; what is gone already is no error.

    Raises:
        FilestoreError: It is no scratch name, or the folder cannot be removed.
    """
    folder = scratch_folder(filestore, name)
    if not is_scratch(name) or "/" in name or folder == filestore.path:
        raise FilestoreError(
            f"{folder} is no scratch folder, and is not removed",
            expected="NAME__scratch_YYYYMMDDHHMMSS",
            found=name,
            kept="everything",
        )
    remove_folder(host, folder)


def find_abandoned_folders(host: Host, target: Target) -> tuple[str, ...]:
    """Return the scratch names of which only the files are left: the drill was killed, its database is dropped.

    Raises:
        HostError: The folder cannot be looked at.
    """
    filestore = target.filestore
    if filestore is None:
        return ()
    done = host.run("ls", "-1", "--", str(filestore.path.parent), accept=(0, 2))
    names = [name for name in done.stdout.splitlines() if is_scratch_of(name, target.database.name)]
    if not names:
        return ()
    with maintenance(target.database) as connection:
        return tuple(name for name in names if not database_exists(connection, name))


def remove_abandoned_folders(host: Host, target: Target) -> tuple[PurePosixPath, ...]:
    """Remove the folders of drills that were killed, once their databases are dropped; return which.

    Call it only where the target's lock is held: a drill that is at work has it.

    Raises:
        FilestoreError: One cannot be removed.
        HostError: The folder that they are in cannot be looked at.
    """
    filestore = target.filestore
    if filestore is None:
        return ()
    names = find_abandoned_folders(host, target)
    for name in names:
        remove_scratch_folder(host, filestore, name)
    return tuple(scratch_folder(filestore, name) for name in names)
