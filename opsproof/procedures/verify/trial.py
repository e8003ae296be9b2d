"""A trial restore: into a scratch database on the target's server, compared, looked through, and dropped again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from opsproof.archive.reading.backup import OpenedBackup
from opsproof.errors import DatabaseError
from opsproof.inspection.databases.structure import Sound, check_structure
from opsproof.inspection.finding import Finding
from opsproof.inspection.restores.preflight import examine
from opsproof.inspection.restores.restored import Proof
from opsproof.inspection.restores.situation import Situation
from opsproof.journal import Journal
from opsproof.procedures.scratchcopy import scratch_database
from opsproof.system.hosts.farfolder import placed
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.databases import database_exists, scratch_name
from opsproof.system.postgres.dump import Clients, find_client_programs
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Server, connect, describe_database, read_server
from opsproof.target import Target


@dataclass(frozen=True)
class Trial:
    """What a trial restore came to."""

    proof: Proof
    sound: Sound
    findings: tuple[Finding, ...]


def try_restore(target: Target, backup: OpenedBackup, dump: Path, journal: Journal) -> Trial:
    """Restore a backup's database into a scratch database, hold it against the manifest, and drop it.

    Args:
        target: On whose server.
        backup: The opened backup.
        dump: Its extracted dump, on this machine.
        journal: What happened.

    Raises:
        ProofError: What was restored is not what was backed up.
        DumpError: A statement of the dump failed.
        DatabaseError: The server is not able to take it.
    """
    address = target.database
    host = Host(target.connection)
    with maintenance(address) as connection:
        server = read_server(connection)
        exists = database_exists(connection, address.name)
    live = None
    if exists:
        with connect(address) as connection:
            live = describe_database(connection)
    programs = find_client_programs(host, server.major, target.pg_bindir)
    clients = Clients(host, programs, address)
    with placed(clients.host, dump) as there:
        findings = _examine(target, server, clients, backup, there, dump)
        name = scratch_name(address.name, datetime.now(UTC))
        with journal.phase("trial restore"), scratch_database(clients, name, backup, live, journal) as side:
            owner = live.owner if live else (backup.manifest.database.owner if backup.manifest else server.user)
            side.load(backup, there, owner, {})
            proof = side.prove(backup, there, {})
            sound = check_structure(side.address)
    return Trial(proof, sound, findings)


def _examine(
    target: Target, server: Server, clients: Clients, backup: OpenedBackup, dump: Path, unpacked: Path
) -> tuple[Finding, ...]:
    """Look for what is in the way of it. That is the server's fault, never the backup's."""
    # Nothing is swapped and no file is written: what is live, and its filestore, are not in the way.
    situation = Situation(
        target=replace(target, filestore=None),
        server=server,
        live=None,
        clients=clients,
        backup=backup,
        dump=dump,
        unpacked=unpacked,
    )
    findings = examine(situation)
    blocking = [one for one in findings if one.blocks]
    if blocking:
        raise DatabaseError(
            f"The server of {target.name} cannot take a trial restore",
            expected="\n".join(f"{one.subject}: {one.expected}" for one in blocking),
            found="\n".join(f"{one.subject}: {one.found}" for one in blocking),
            kept="nothing was changed",
            hint="\n".join(one.hint for one in blocking),
        )
    return tuple(one for one in findings if not one.blocks)
