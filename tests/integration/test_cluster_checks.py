"""The checks of a whole server are shown failing: version, connections, wraparound and slots, on a real one."""

from __future__ import annotations

import secrets

import pytest
from psycopg import sql

from opsproof.errors import ConfigurationError, DatabaseMissing
from opsproof.inspection.databases import cluster
from opsproof.inspection.databases.looking import ask
from opsproof.system.postgres.server import Connection
from tests.lab.examined import Patient, either, message, nobody, patient

__all__ = ["either", "nobody", "patient"]


def test_a_database_that_is_not_there_is_named(patient: Patient) -> None:
    told = message(cluster.check_reachable, patient.server.address("chekc"), error=DatabaseMissing)
    assert "'chekc' does not exist" in told


def test_an_old_minor_version_is_told(patient: Patient) -> None:
    told = message(cluster.check_version, patient.db, "18.999")
    assert "is older than what the inventory asks for" in told
    assert "18.999 or newer" in told
    with pytest.raises(ConfigurationError, match="no version of PostgreSQL"):
        cluster.check_version(patient.db, "newest")


def test_connections_near_the_limit_of_the_database_are_told(patient: Patient) -> None:
    name = sql.Identifier(patient.address.name)
    patient.root.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT 10").format(name))
    assert "1 of 10 connections (10%)" in cluster.check_connections(patient.db, 0.8)[1]
    others = [patient.server.connect(patient.address.name) for _ in range(7)]
    try:
        told = message(cluster.check_connections, patient.db, 0.8)
    finally:
        for other in others:
            other.close()
    assert "8 of 10 connections (80%)" in told
    assert "sessions of postgres from" in told
    assert 'ALTER DATABASE "Check' in told


def test_connections_near_the_limit_of_a_role_and_of_the_server_are_told(either: Patient, nobody: Connection) -> None:
    role = nobody.info.user
    either.do(f"ALTER ROLE {role} CONNECTION LIMIT 1")
    told = message(cluster.check_connections, either.db, 0.8)
    assert f"role {role}: 1 of 1 connections" in told
    assert f"ALTER ROLE {role} CONNECTION LIMIT" in told
    # A role that sees nothing of others' sessions counts them all the same.
    told = message(cluster.check_connections, nobody, 0.01)
    assert "the server: " in told
    assert "of 57 connections" in told


def test_wraparound_is_told_with_the_oldest_tables(patient: Patient) -> None:
    patient.do("CREATE TABLE locked (n int)", "INSERT INTO locked VALUES (1)", *["SELECT pg_current_xact_id()"] * 20)
    with patient.server.connect(patient.address.name) as other, other.transaction(), patient.root.transaction():
        # Two that lock one row make a multixact.
        for one in (other, patient.root):
            one.execute("SELECT FROM locked FOR SHARE")
    told = message(cluster.check_wraparound, patient.db, 1e-10)
    assert "Transaction ids are running out" in told
    assert f"database '{patient.address.name}': " in told
    assert f"vacuumdb --freeze --dbname='{patient.address.name}'" in told
    assert "oldest here: " in told
    assert "VACUUM (FREEZE, VERBOSE) " in told
    multixacts = ask(patient.db, "SELECT mxid_age(datminmxid) FROM pg_database WHERE datname = current_database()")
    assert f"{multixacts[0][0]:,} multixacts" in told
    assert multixacts[0][0] > 0


def test_a_slot_that_holds_wal_is_told(patient: Patient) -> None:
    name = f"left_{secrets.token_hex(3)}"
    patient.root.execute("SELECT pg_create_physical_replication_slot(%s, true)", (name,))
    try:
        patient.do("CREATE TABLE wal AS SELECT n FROM generate_series(1, 20000) n")
        assert any(name in line for line in cluster.check_slots(patient.db, 10**9))
        told = message(cluster.check_slots, patient.db, 100_000)
    finally:
        patient.root.execute("SELECT pg_drop_replication_slot(%s)", (name,))
    assert f"physical slot {name}, inactive: " in told
    assert f"SELECT pg_drop_replication_slot('{name}');" in told
