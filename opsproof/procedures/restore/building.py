"""The side database: made beside the live one, loaded, and proven before anything else happens."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg

from opsproof.archive.manifest import DatabaseRecord
from opsproof.archive.reading.backup import OpenedBackup
from opsproof.errors import ProofError
from opsproof.inspection.restores.restored import Proof, prove
from opsproof.intent import Intent
from opsproof.journal import Journal
from opsproof.system.postgres.databases import create_side, write_intent
from opsproof.system.postgres.dump import Clients
from opsproof.system.postgres.dumpfile import DumpFile
from opsproof.system.postgres.load import assign_roles, load_dump, load_sql
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.properties import copy_properties
from opsproof.system.postgres.server import DatabaseFacts, connect
from opsproof.target import DatabaseAddress

CANCEL_SECONDS = 0.2


class SideDatabase:
    """What a restore builds.

    Args:
        clients: PostgreSQL's programs, with the address of the live database.
        name: The side database's own name.
        journal: What happened.
    """

    def __init__(self, clients: Clients, name: str, journal: Journal) -> None:
        self.name = name
        self.address: DatabaseAddress = replace(clients.address, name=name)
        self._live = clients.address
        self._clients = replace(clients, address=self.address)
        self._journal = journal

    def create(
        self,
        shape: DatabaseFacts | DatabaseRecord,
        properties: DatabaseFacts | DatabaseRecord,
        intent: Intent,
        roles: Mapping[str, str],
    ) -> None:
        """Create it empty, out of every application's sight, with the intent on it.

        Args:
            shape: Whose encoding and locale it gets.
            properties: Whose owner, grants, comment and settings it gets.
            intent: What is going on here, for whoever finds it.
            roles: Roles of the backup that others take the place of.

        Raises:
            DatabaseError: The server refused.
        """
        with maintenance(self._live) as connection:
            owner = roles.get(properties.owner, properties.owner)
            create_side(connection, self.name, shape, owner=owner, like=self._live.name)
            write_intent(connection, self.name, intent)
            copy_properties(connection, properties, self.name, roles=roles)

    def load(self, backup: OpenedBackup, dump: Path, owner: str, roles: Mapping[str, str]) -> None:
        """Load the dump.

        Args:
            backup: What the dump came from.
            dump: The extracted dump, on the host.
            owner: Whose everything becomes where the dump does not say.
            roles: Roles of the dump that others take the place of.

        Raises:
            DumpError: The server refused a statement, at which the loading stopped.
        """
        with self._journal.phase("load"):
            if backup.database_format == "plain":
                load_sql(self._clients, dump, role=owner if backup.manifest is None else "")
            else:
                self._load_custom(dump, owner, roles)

    def prove(self, backup: OpenedBackup, dump: Path, roles: Mapping[str, str]) -> Proof:
        """Hold it against what the backup says of itself, and have its statistics made meanwhile.

        Args:
            backup: What it was built from.
            dump: The extracted dump, on the host.
            roles: Roles of the backup that others took the place of.

        Raises:
            ProofError: It differs, or the server cannot make its statistics.
        """
        with self._journal.phase("prove"), self._analyzed_meanwhile():
            return prove(self._clients, backup, dump, roles)

    @contextmanager
    def _analyzed_meanwhile(self) -> Iterator[None]:
        with connect(self.address) as connection, ThreadPoolExecutor(1, "opsproof analyze") as second:
            connection.autocommit = True
            analysis = second.submit(connection.execute, "ANALYZE")
            try:
                yield
                self._require_analyzed(analysis)
            except BaseException:
                # Again and again: what is cancelled before the server has begun it would run to its end.
                while not analysis.done():
                    with suppress(psycopg.Error):
                        connection.cancel()
                    wait([analysis], CANCEL_SECONDS)
                raise

    def _require_analyzed(self, analysis: Future[Any]) -> None:
        try:
            analysis.result()
        except psycopg.Error as error:
            raise ProofError(
                f"The server cannot make the statistics of {self.name!r}, which was built from the backup",
                expected="an ANALYZE that reads every table, and computes every index and statistics on expressions",
                found=str(error).strip(),
                kept="the live database is as it was",
                hint="mend the function or the index that it names, take a new backup, and restore that; or choose an"
                " older one with --backup=ID",
            ) from error

    def _load_custom(self, dump: Path, owner: str, roles: Mapping[str, str]) -> None:
        jobs = max(2, min(8, os.cpu_count() or 2))
        schema = DumpFile(dump, self._clients.programs, self._clients.host).schema
        if not schema.owners():
            load_dump(self._clients, dump, jobs, role=owner)
            return
        load_dump(self._clients, dump, jobs, with_roles=not roles)
        if roles:
            assign_roles(self._clients, schema, roles)
