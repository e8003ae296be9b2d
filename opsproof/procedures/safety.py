"""The safety backup: taken of what is live before it is replaced, and the way back of a restore in place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from opsproof.archive.catalogue import sidecar_name
from opsproof.archive.choosing import Choice
from opsproof.archive.fetching import fetch
from opsproof.archive.manifest import DatabaseRecord, read_sidecar
from opsproof.archive.opening import open_backup
from opsproof.errors import StoreError
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.procedures.backup import Backup, Outcome
from opsproof.procedures.building import SideDatabase
from opsproof.procedures.files import FilesRestore
from opsproof.procedures.workspace import Workspace
from opsproof.system.databases import clear_intent, drop_database, find_intents, maintenance, side_name
from opsproof.system.dump import Clients, find_client_programs
from opsproof.system.host import Host
from opsproof.system.postgres import read_server
from opsproof.system.store import Store
from opsproof.system.swap import swap
from opsproof.target import Target


def take_safety_backup(target: Target, store: Store, journal: Journal) -> Outcome:
    """Take a backup of what is live, with all of its proof, for a procedure that holds the target's lock.

    Raises:
        OpsproofError: A step failed; nothing of it is left.
    """
    backup = Backup(target, store, journal, kind="safety", locked=True)
    steps: tuple[Callable[[], object], ...] = (
        backup.find_database,
        backup.find_clients,
        backup.find_filestore,
        backup.check_store,
        backup.check_room,
        backup.take_lock,
        backup.capture,
        backup.compare_dump,
        backup.write_bundle,
        backup.check_attachments,
        backup.complete_upload,
        backup.read_back,
        backup.clear_away,
    )
    try:
        for step in steps:
            step()
        return backup.publish(tuple(step.__name__ for step in steps))
    finally:
        backup.close()


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
    choice = _choose(store, intent.safety)
    host = Host(target.connection)
    workspace = Workspace()
    try:
        dump = workspace.path / "database"
        backup = open_backup(fetch(choice, workspace.path, journal), choice.sidecar, dump)
        record = backup.manifest.database if backup.manifest else None
        if record is None:
            raise StoreError(f"The safety backup {intent.safety} has no manifest")
        with maintenance(target.database) as connection:
            programs = find_client_programs(host, read_server(connection).major, target.pg_bindir)
        side = _begin_anew(target, Clients(host, programs, target.database), journal, intent, record)
        side.load(backup, dump, record.owner, {})
        side.prove(backup, dump, {})
        files = FilesRestore(target, host, journal)
        # A filestore that is exchanged with its database was left alone, or has been put back already.
        if files.stage(backup, "") is None:
            files.add(backup, None)
        swap(target.database, intent.live, side.name, "", intent, connection_limit=record.connection_limit)
        with maintenance(target.database) as connection:
            clear_intent(connection, intent.live)
        backup.close()
    finally:
        workspace.close()


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
    return side


def _choose(store: Store, safety: str) -> Choice:
    sidecar = read_sidecar(store.get_small(sidecar_name(safety)), sidecar_name(safety))
    location = f"{store.location}{sidecar.name}"
    return Choice(safety, location, store, sidecar.name, None, sidecar, sidecar.bytes, "the safety backup")
