"""A database built anew from its safety backup: the way back where it was not kept, or was changed where it is live."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opsproof.archive.catalogue.choice import Choice
from opsproof.archive.catalogue.fetching import fetch
from opsproof.archive.manifest import DatabaseRecord, read_sidecar
from opsproof.archive.names import sidecar_name
from opsproof.archive.opening import open_backup
from opsproof.archive.reading.backup import OpenedBackup
from opsproof.archive.sealing.signature import require_authentic
from opsproof.errors import ArchiveError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.restore.building import SideDatabase
from opsproof.procedures.restore.files import FilesRestore
from opsproof.procedures.restore.workspace import Workspace
from opsproof.system.hosts.farfolder import placed
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.databases import clear_intent, drop_database, find_intents, side_name
from opsproof.system.postgres.dropping import survives
from opsproof.system.postgres.dump import Clients, find_client_programs
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import read_server
from opsproof.system.postgres.swap import swap
from opsproof.system.store import Store
from opsproof.target import Target


def restore_safety_backup(target: Target, store: Store, journal: Journal, intent: Intent) -> None:
    """Build the database that an intent names anew from its safety backup, prove it, and give it the live name.

    Args:
        target: Whose database it is; there is none under the live name.
        store: Where the safety backup is.
        journal: What happened.
        intent: Of the restore in place that failed or was killed.

    Raises:
        OpsproofError: It could not be built; the safety backup is in the store as before.
    """
    journal.warn(f"{intent.live!r} is built anew from the safety backup {intent.safety}")
    with _opened(target, store, journal, intent) as (backup, dump, clients):
        record = _database_of(backup, intent)
        side = _begin_anew(target, clients, journal, intent, record)
        side.load(backup, dump, record.owner, {})
        side.prove(backup, dump, {})
        files = FilesRestore(target, Host(target.connection), journal)
        # A filestore that is exchanged with its database was left alone, or has been put back already.
        if files.stage(backup, "") is None:
            files.add(backup, None)
        # Whoever finds it after the swap has nothing to exchange any more, and another backup that is live.
        swapped = replace(intent, backup=intent.safety, options={})
        swap(target.database, intent.live, side.name, "", swapped, connection_limit=record.connection_limit)
        with maintenance(target.database) as connection:
            clear_intent(connection, intent.live)


@contextmanager
def build_from_safety_backup(
    target: Target, store: Store, journal: Journal, intent: Intent
) -> Iterator[tuple[SideDatabase, OpenedBackup]]:
    """Build the side database that an intent names from its safety backup, prove it, and leave it there.

    Raises:
        OpsproofError: It could not be built.
    """
    with _opened(target, store, journal, intent) as (backup, dump, clients):
        record = _database_of(backup, intent)
        side = SideDatabase(clients, intent.side, journal)
        side.create(record, record, intent, {})
        side.load(backup, dump, record.owner, {})
        side.prove(backup, dump, {})
        yield side, backup


@contextmanager
def _opened(
    target: Target, store: Store, journal: Journal, intent: Intent
) -> Iterator[tuple[OpenedBackup, Path, Clients]]:
    """Yield the safety backup that an intent names, its dump, and the programs to load it with."""
    choice, host = _choose(target, store, intent.safety), Host(target.connection)
    with ExitStack() as stack:
        workspace = stack.enter_context(closing(Workspace()))
        dump = workspace.path / "database"
        path = fetch(choice, workspace.path, journal, target.policies.sealing)
        backup = stack.enter_context(closing(open_backup(path, choice.sidecar, dump)))
        with maintenance(target.database) as connection:
            programs = find_client_programs(host, read_server(connection).major, target.pg_bindir)
        clients = Clients(host, programs, target.database)
        yield backup, stack.enter_context(placed(clients.host, dump)), clients


def _database_of(backup: OpenedBackup, intent: Intent) -> DatabaseRecord:
    if backup.manifest is None:
        raise ArchiveError(
            f"The safety backup {intent.safety} does not say how its database is made",
            expected="a manifest with the database's encoding, locale and owner",
            found=backup.description,
            kept=f"the safety backup {intent.safety}",
            hint=f"createdb --template=template0 --encoding=UTF8 {shlex.quote(intent.live)}, and load it by hand:"
            " RESTORE.txt in it tells how",
        )
    return backup.manifest.database


def _begin_anew(
    target: Target, clients: Clients, journal: Journal, intent: Intent, record: DatabaseRecord
) -> SideDatabase:
    """Return a new side database in the place of those that are there: one bears the intent at every moment."""
    with maintenance(target.database) as connection:
        old = [name for name, one in find_intents(connection) if one.run == intent.run]
    moment = datetime.now(UTC)
    while (name := side_name(intent.live, moment)) in (*old, intent.side):
        moment += timedelta(seconds=1)
    side = SideDatabase(clients, name, journal)
    side.create(record, record, replace(intent, side=name, stage="in place"), {})
    with maintenance(target.database) as connection:
        for one in old:
            drop_database(connection, one)
        if not survives(connection, intent.live):
            # A drop that the server did not bring to its end has left something under the name.
            drop_database(connection, intent.live, even_live=True)
    return side


def _choose(target: Target, store: Store, safety: str) -> Choice:
    name = sidecar_name(safety)
    data = store.get_small(name)
    # It may have been taken long ago, by a run that was killed: somebody may have put another in its place.
    require_authentic(store, name, data, target.policies.sealing)
    sidecar = read_sidecar(data, name)
    location = f"{store.location}{sidecar.name}"
    return Choice(safety, location, store, sidecar.name, None, sidecar, sidecar.bytes, "the safety backup")
