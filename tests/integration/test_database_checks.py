"""How a check looks at a database; and each check of one database is shown failing, on a real server."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from psycopg import sql

from opsproof.errors import DatabaseError, PermissionDenied
from opsproof.inspection.databases import cluster, database, indexes, looking, sequences, transactions
from opsproof.inspection.databases.looking import Unanswered, ask, look_at
from opsproof.system.hosts.transport import close_connections
from opsproof.system.postgres.server import Connection
from tests.lab.examined import NUMBERED, Patient, either, message, nobody, patient
from tests.lab.postgres_server import PostgresServer
from tests.lab.ssh_server import SshServer, ssh_server

__all__ = ["either", "nobody", "patient", "ssh_server"]

LONG_AGO = timedelta(days=3650)
TAKEN = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)


def test_a_database_as_it_must_be_passes_every_check(either: Patient) -> None:
    db = either.db
    either.do(NUMBERED, "INSERT INTO numbered (word) VALUES ('a')", "CREATE INDEX ON numbered (word)")
    server = cluster.check_reachable(either.address)
    assert cluster.check_version(db, str(server.major)) == server.version
    assert cluster.check_connections(db, 0.9)[0].startswith("the server: ")
    assert 0 <= cluster.check_wraparound(db, 0.5) < 0.01
    assert cluster.check_slots(db, 0) == ()
    assert database.check_growth(db, database.measure_database(db), TAKEN, 0.5) == 0
    assert sequences.check_sequences(db) == ()
    for check in (
        database.check_constraints, database.check_unlogged, database.check_collations, indexes.check_indexes,
        transactions.check_prepared,
    ):  # fmt: skip
        check(db)
    transactions.check_long_transactions(db, LONG_AGO)


def test_a_check_cannot_write_nor_wait_nor_hold_a_snapshot(patient: Patient) -> None:
    patient.do(NUMBERED)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        patient.db.execute("INSERT INTO numbered (word) VALUES ('a')")
    with patient.root.transaction():
        patient.do("LOCK TABLE numbered")
        began = time.monotonic()
        told = message(ask, patient.db, "SELECT count(*) FROM numbered", error=DatabaseError)
        assert time.monotonic() - began < 10
    assert "did not answer a check in time" in told
    held = "SELECT state, backend_xmin FROM pg_stat_activity WHERE application_name = 'opsproof' AND datname = %s"
    assert patient.root.execute(held, (patient.address.name,)).fetchall() == [("idle", None)]


def test_a_session_that_could_write_is_refused(patient: Patient) -> None:
    """The application's own settings do not count; what drops ours is found out."""
    patient.do(f'ALTER DATABASE "{patient.address.name}" SET default_transaction_read_only = off')
    with look_at(patient.address) as db:
        assert ask(db, "SHOW default_transaction_read_only") == [("on",)]
    with pytest.MonkeyPatch.context() as dropping:
        dropping.setattr(looking, "READ_ONLY", "-c work_mem=1MB")
        with pytest.raises(DatabaseError, match="could write"), look_at(patient.address):
            pass


def test_a_statement_that_takes_too_long_is_ended(patient: Patient) -> None:
    with look_at(patient.address, seconds=0.1) as db:
        assert "statement timeout" in message(ask, db, "SELECT pg_sleep(60)", error=DatabaseError)
        assert ask(db, "SELECT 1") == [(1,)]


def test_a_server_behind_its_host_is_checked_over_ssh(patient: Patient, ssh_server: SshServer) -> None:
    far = replace(patient.address, via=ssh_server.connection)
    patient.do(NUMBERED, "CREATE UNLOGGED TABLE cache (n int)")
    try:
        assert cluster.check_reachable(far).major == 18
        with look_at(far) as db:
            assert "public.cache is UNLOGGED" in message(database.check_unlogged, db)
            with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
                db.execute("DELETE FROM numbered")
    finally:
        close_connections()


def test_growth_is_told_with_the_biggest_tables(patient: Patient) -> None:
    then = database.measure_database(patient.db)
    patient.do("CREATE TABLE fat AS SELECT n, repeat(md5(n::text), 20) AS x FROM generate_series(1, 20000) n")
    told = message(database.check_growth, patient.db, then, TAKEN, 0.2)
    assert "has grown by" in told
    assert "of 2026-01-31 02:00:00 UTC" in told
    assert "biggest: public.fat" in told


def test_a_constraint_that_was_never_validated_is_told(either: Patient) -> None:
    either.do(
        "CREATE TABLE \"Odd t\" (n int)", 'INSERT INTO "Odd t" VALUES (-1)',
        'ALTER TABLE "Odd t" ADD CONSTRAINT positive CHECK (n > 0) NOT VALID',
        "CREATE DOMAIN small AS int", "ALTER DOMAIN small ADD CONSTRAINT below CHECK (VALUE < 9) NOT VALID",
    )  # fmt: skip
    told = message(database.check_constraints, either.db)
    assert 'public."Odd t" positive: CHECK ((n > 0)) NOT VALID' in told
    assert 'ALTER TABLE public."Odd t" VALIDATE CONSTRAINT positive;' in told
    either.do("ALTER DOMAIN public.small VALIDATE CONSTRAINT below;", 'DELETE FROM "Odd t"')
    either.do('ALTER TABLE public."Odd t" VALIDATE CONSTRAINT positive;')
    database.check_constraints(either.db)


def test_a_collation_of_another_version_is_told(either: Patient) -> None:
    either.do("CREATE COLLATION \"Odd\" (locale = 'C.UTF-8')", 'CREATE TABLE sorted (word text COLLATE "Odd")')
    either.do("UPDATE pg_collation SET collversion = '1.2.3' WHERE collname = 'Odd'")
    told = message(database.check_collations, either.db)
    assert 'collation public."Odd": built with version 1.2.3, now none' in told
    assert f'REINDEX DATABASE "{either.address.name}";' in told
    either.do("DROP TABLE sorted")  # nothing is sorted by it any more
    database.check_collations(either.db)


def test_a_database_of_another_collation_version_is_told(system_postgres: PostgresServer) -> None:
    """The system's server has ICU, whose collations have versions."""
    name = f"icu_{secrets.token_hex(3)}"
    with system_postgres.connect() as root:
        if root.info.server_version < 150000:
            pytest.skip("databases have had their own collation's version since PostgreSQL 15")
        root.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'de'").format(
                sql.Identifier(name)
            )
        )
        try:
            with look_at(system_postgres.address(name)) as db:
                database.check_collations(db)
                update = "UPDATE pg_database SET datcollversion = %s WHERE datname = %s"
                root.execute(update, (None, name))
                with pytest.raises(Unanswered) as caught:
                    database.check_collations(db)
                assert "no version was recorded" in caught.value.found
                root.execute(update, ("0.9", name))
                told = message(database.check_collations, db)
                assert f"database {name}, " in told
                assert "built with version 0.9, now " in told
                hint = f"ALTER DATABASE {name} REFRESH COLLATION VERSION;"
                assert hint in told
                root.execute(hint.encode())
                database.check_collations(db)
        finally:
            system_postgres.drop_database(name)


def test_an_unlogged_table_is_told(patient: Patient) -> None:
    patient.do('CREATE UNLOGGED TABLE "Cache" (n int)')
    told = message(database.check_unlogged, patient.db)
    assert 'public."Cache" is UNLOGGED' in told
    patient.do(told.partition("hint:")[2].strip())
    database.check_unlogged(patient.db)


def test_what_a_role_may_not_read_is_a_refusal_with_its_grant(either: Patient, nobody: Connection) -> None:
    either.do("CREATE TABLE secret (n int)")
    told = message(ask, nobody, "SELECT * FROM public.secret", error=PermissionDenied)
    assert f'GRANT "pg_read_all_data" TO "{nobody.info.user}";' in told
