"""Looking at a target before anything is done to it: database, client programs, files, store, room.

Every procedure begins with this. Each method is a step that changes nothing, and keeps what it found for later ones.
"""

from __future__ import annotations

from opsproof.errors import OpsproofError
from opsproof.inspection import room
from opsproof.journal import Journal
from opsproof.system.files.filestore import Filestore, FilestoreFacts
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.dump import Clients, find_client_programs
from opsproof.system.postgres.server import DatabaseFacts, Server, connect, describe_database, read_server
from opsproof.system.store import Store
from opsproof.target import Target


class Survey:
    """A first look at one target.

    Args:
        target: What to look at.
        store: Where its backups are.
        journal: What happened.
        dry_run: Look without so much as trying whether the store can be written.
    """

    server: Server
    facts: DatabaseFacts
    clients: Clients
    live_files: FilestoreFacts | None

    def __init__(self, target: Target, store: Store, journal: Journal, *, dry_run: bool = False) -> None:
        self.target = target
        self.store = store
        self.journal = journal
        self.dry_run = dry_run
        self.host = Host(target.connection)
        settings = target.filestore
        self.filestore = Filestore(self.host, settings, target.database.name) if settings else None

    def find_database(self) -> tuple[Server, DatabaseFacts]:
        """Connect, and find out what server and database answer.

        Raises:
            DatabaseError: Nothing answers, or no such database.
        """
        with connect(self.target.database) as connection:
            self.server = read_server(connection)
            self.facts = describe_database(connection)
        self.journal.record(
            "database found", server=self.server.version, database=self.facts.name, bytes=self.facts.bytes
        )
        return self.server, self.facts

    def find_clients(self) -> Clients:
        """Find the client programs of the server's own major version.

        Raises:
            ProgramMissing: There are none.
        """
        programs = find_client_programs(self.host, self.server.major, self.target.pg_bindir)
        self.clients = Clients(self.host, programs, self.target.database)
        self.journal.record("client programs found", version=programs.version, folder=programs.bindir or "PATH")
        return self.clients

    def find_filestore(self) -> FilestoreFacts | None:
        """Look at the live filestore; None where the target keeps no files.

        Raises:
            FilestoreError: It is not where the configuration says.
        """
        self.live_files = self.filestore.describe() if self.filestore else None
        self.journal.record("filestore found", filestore=self.live_files)
        return self.live_files

    def check_store(self) -> str:
        """Find out whether the store takes a backup; in a dry run only whether it can be read. Return its location.

        Raises:
            StoreError: It does not.
        """
        self.store.check_readable()
        if not self.dry_run:
            self.store.check_writable()
        return self.store.location

    def check_room(self) -> tuple[room.Room, ...]:
        """Find out whether the temporary disk and the store have room.

        Raises:
            ProofError: One has not.
        """
        files = self.live_files.bytes if self.live_files else 0
        spool = room.check_spool_room(self.facts.bytes)
        store = room.check_store_room(self.store.location, self.store.free_bytes(), self.facts.bytes, files)
        return (spool, store) if store else (spool,)


def describe_versions(target: Target) -> str:
    """Return the versions of a target's server and client programs, for a header; or why they cannot be told."""
    try:
        with connect(target.database) as connection:
            server = read_server(connection)
        programs = find_client_programs(Host(target.connection), server.major, target.pg_bindir)
    except OpsproofError as error:
        return f"not known: {error.summary}"
    return f"PostgreSQL {server.version}; client programs {programs.version} in {programs.bindir or 'PATH'}"
