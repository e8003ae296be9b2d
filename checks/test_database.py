"""The database and its server: what makes an application stand still, lose rows, or sort them wrongly. Read-only."""

from __future__ import annotations

import pytest

from opsproof.archive.manifest import Sidecar
from opsproof.inspection.databases.cluster import (
    check_connections,
    check_reachable,
    check_slots,
    check_version,
    check_wraparound,
)
from opsproof.inspection.databases.database import (
    check_collations,
    check_constraints,
    check_growth,
    check_unlogged,
    measure_database,
)
from opsproof.inspection.databases.indexes import check_indexes
from opsproof.inspection.databases.sequences import check_sequences
from opsproof.inspection.databases.transactions import check_long_transactions, check_prepared
from opsproof.plugin.checking import Note
from opsproof.plugin.run import without_libpq_variables
from opsproof.policies import Thresholds
from opsproof.system.postgres.server import Connection
from opsproof.target import Target


@pytest.fixture(scope="class")
def too_much(target: Target) -> Thresholds:
    """What the inventory takes for too much."""
    return target.policies.thresholds


class TestDatabase:
    """What an application needs of its database; nothing is written, and nobody waits."""

    def test_it_answers(self, target: Target) -> None:
        """The server takes a connection, and is one that opsproof knows."""
        with without_libpq_variables():
            check_reachable(target.database)

    def test_its_version_is_maintained(self, db: Connection, too_much: Thresholds, target: Target) -> None:
        """The server is at or above the version that the inventory asks for."""
        if too_much.minimum_version is None:
            pytest.skip(f'the inventory asks for none of {target.name}: thresholds: {{minimum_version: "15.18"}}')
        check_version(db, too_much.minimum_version)

    def test_its_size_is_known(self, db: Connection, note: Note) -> None:
        """The database can be measured."""
        bytes_now = measure_database(db)
        note("bytes", bytes_now)
        assert bytes_now > 0

    def test_it_has_not_grown_beyond_measure(
        self, db: Connection, newest_backup: Sidecar, too_much: Thresholds, note: Note
    ) -> None:
        """It is not much bigger than it was at its newest verified backup."""
        manifest = newest_backup.manifest
        note("growth", f"{check_growth(db, manifest.database.bytes, manifest.taken, too_much.growth):.1%}")

    def test_connections_are_to_be_had(self, db: Connection, too_much: Thresholds, note: Note) -> None:
        """The limits of the server, the database and its roles are far."""
        note("connections", "; ".join(check_connections(db, too_much.connections)))

    def test_no_transaction_is_long(self, db: Connection, too_much: Thresholds) -> None:
        """No session has had a transaction open for long, at work or idle."""
        check_long_transactions(db, too_much.long_transaction)

    def test_no_prepared_transaction_is_left(self, db: Connection) -> None:
        """None waits for a COMMIT PREPARED that nobody sends."""
        check_prepared(db)

    def test_transaction_ids_last(self, db: Connection, too_much: Thresholds, note: Note) -> None:
        """Vacuum keeps up with freezing, in every database of the server."""
        note("wraparound", f"{check_wraparound(db, too_much.wraparound):.1%}")

    def test_slots_let_go_of_wal(self, db: Connection, too_much: Thresholds, note: Note) -> None:
        """No replication slot fills the disk."""
        for line in check_slots(db, too_much.slot_bytes):
            note("slot", line)

    def test_indexes_are_valid(self, db: Connection) -> None:
        """Each serves queries; those being built now apart."""
        check_indexes(db)

    def test_constraints_are_validated(self, db: Connection) -> None:
        """None is NOT VALID."""
        check_constraints(db)

    def test_sequences_are_ahead(self, db: Connection, note: Note) -> None:
        """Each gives out a number that its column has not reached."""
        for line in check_sequences(db):
            note("not checked", line)

    def test_collations_are_those_of_the_indexes(self, db: Connection) -> None:
        """The operating system sorts as it did when the indexes were built."""
        check_collations(db)

    def test_tables_survive_a_crash(self, db: Connection) -> None:
        """None is UNLOGGED."""
        check_unlogged(db)
