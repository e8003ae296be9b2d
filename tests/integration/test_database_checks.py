"""Each check of a database is shown failing: exactly what it looks for is broken on a real server."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from psycopg import sql

from opsproof.errors import ConfigurationError, DatabaseError, DatabaseMissing, PermissionDenied, ProofError
from opsproof.inspection.databases import cluster, database, indexes, looking, sequences, transactions
from opsproof.inspection.databases.looking import Unanswered, ask, look_at
from opsproof.system.hosts.transport import close_connections
from opsproof.system.postgres.server import Connection
from opsproof.target import DatabaseAddress
from tests.lab.postgres_server import WHEEL, PostgresServer, Session, restarted_postgres
from tests.lab.ssh_server import SshServer, ssh_server
from tests.lab.waiting import await_true

__all__ = ["ssh_server"]

LONG_AGO = timedelta(days=3650)
NOTHING = timedelta(0)
TAKEN = datetime(2026, 1, 31, 2, 0, tzinfo=UTC)
NUMBERED = "CREATE TABLE numbered (id serial PRIMARY KEY, word text)"


class Patient:
    """A database of a test's own: `db` is a check's connection, `root` the superuser's."""

    def __init__(self, server: PostgresServer, address: DatabaseAddress, root: Session, db: Connection) -> None:
        self.server, self.address, self.root, self.db = server, address, root, db

    def do(self, *statements: str) -> None:
        for statement in statements:
            self.root.execute(statement.encode())


@contextmanager
def patient_of(server: PostgresServer) -> Iterator[Patient]:
    address = server.create_database(f"Check {secrets.token_hex(3)}")
    try:
        with server.connect(address.name) as root, look_at(address) as db:
            yield Patient(server, address, root, db)
    finally:
        server.drop_database(address.name)


@pytest.fixture
def patient(wheel_postgres: PostgresServer) -> Iterator[Patient]:
    with patient_of(wheel_postgres) as made:
        yield made


@pytest.fixture
def either(postgres: PostgresServer) -> Iterator[Patient]:
    """On each server: for what asks another question of another version."""
    with patient_of(postgres) as made:
        yield made


@pytest.fixture
def nobody(either: Patient) -> Iterator[Connection]:
    """A check's connection as a role without any rights."""
    role = f"nobody_{secrets.token_hex(3)}"
    either.do(f"CREATE ROLE {role} LOGIN PASSWORD 'nothing'")
    try:
        with look_at(either.server.address(either.address.name, role, "nothing")) as db:
            yield db
    finally:
        either.do(f"DROP OWNED BY {role}", f"DROP ROLE {role}")


def message(check: Any, *arguments: Any, error: type[DatabaseError] | type[ProofError] = ProofError) -> str:
    """Return what a check says that fails; it says what to type."""
    with pytest.raises(error) as caught:
        check(*arguments)
    assert caught.value.hint
    assert caught.value.found
    return str(caught.value)


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


def test_a_database_that_is_not_there_is_named(patient: Patient) -> None:
    told = message(cluster.check_reachable, patient.server.address("chekc"), error=DatabaseMissing)
    assert "'chekc' does not exist" in told


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


def test_an_old_minor_version_is_told(patient: Patient) -> None:
    told = message(cluster.check_version, patient.db, "18.999")
    assert "is older than what the inventory asks for" in told
    assert "18.999 or newer" in told
    with pytest.raises(ConfigurationError, match="no version of PostgreSQL"):
        cluster.check_version(patient.db, "newest")


def test_growth_is_told_with_the_biggest_tables(patient: Patient) -> None:
    then = database.measure_database(patient.db)
    patient.do("CREATE TABLE fat AS SELECT n, repeat(md5(n::text), 20) AS x FROM generate_series(1, 20000) n")
    told = message(database.check_growth, patient.db, then, TAKEN, 0.2)
    assert "has grown by" in told
    assert "of 2026-01-31 02:00:00 UTC" in told
    assert "biggest: public.fat" in told


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


@pytest.mark.parametrize("state", ["idle in transaction", "active"])
def test_a_long_transaction_is_told_with_its_query(patient: Patient, state: str) -> None:
    transactions.check_long_transactions(patient.db, NOTHING)
    other = patient.server.connect(patient.address.name)
    other.execute("SET application_name = 'reports'")
    working = threading.Thread(target=_run, args=(other, "SELECT 'secret' FROM pg_sleep(60)"))
    if state == "active":
        working.start()
    else:
        other.execute("BEGIN")
        other.execute("SELECT 'secret' FROM pg_class")
    try:
        query = "SELECT state FROM pg_stat_activity WHERE pid = %s"
        pid = other.info.backend_pid
        await_true(lambda: patient.root.execute(query, (pid,)).fetchone() == (state,), "it is in another state")
        told = message(transactions.check_long_transactions, patient.db, NOTHING)
    finally:
        patient.root.execute("SELECT pg_terminate_backend(%s)", (pid,))
        if state == "active":
            working.join()
        other.close()
    for word in (f"pid {pid}, postgres (reports)", state, "SELECT 'secret' FROM", f"pg_terminate_backend({pid});"):
        assert word in told


def _run(connection: Session, query: str) -> None:
    with suppress(psycopg.Error):
        connection.execute(query.encode())


def test_a_role_that_sees_no_sessions_says_so_and_passes_nothing(either: Patient, nobody: Connection) -> None:
    with pytest.raises(Unanswered) as caught:
        transactions.check_long_transactions(nobody, LONG_AGO)
    assert "sessions of postgres are hidden" in caught.value.found
    grant = f'GRANT "pg_monitor" TO "{nobody.info.user}";'
    assert caught.value.hint.startswith(grant)
    either.do(grant)
    transactions.check_long_transactions(nobody, LONG_AGO)
    # Nobody sees the transactions of a session that does not report them.
    either.do("SET track_activities = off")
    with pytest.raises(Unanswered):
        transactions.check_long_transactions(either.db, LONG_AGO)


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


def test_a_failed_concurrent_index_is_told(either: Patient) -> None:
    either.do("CREATE TABLE twice AS SELECT 1 AS n FROM generate_series(1, 2)")
    with pytest.raises(psycopg.errors.UniqueViolation):
        either.do('CREATE UNIQUE INDEX CONCURRENTLY "Twice!" ON twice (n)')
    told = message(indexes.check_indexes, either.db)
    assert 'public."Twice!" of public.twice: not kept up to date: CREATE UNIQUE INDEX' in told
    hint = 'remove the duplicates, then REINDEX INDEX CONCURRENTLY public."Twice!";'
    assert hint in told
    either.do("DELETE FROM twice", hint.partition("then ")[2])
    indexes.check_indexes(either.db)


def test_an_index_that_is_being_built_is_no_fault(either: Patient, nobody: Connection) -> None:
    """It waits for a transaction that is open; a role that does not see what builds it cannot tell."""
    either.do("CREATE TABLE busy (n int)", "INSERT INTO busy VALUES (1)", "CREATE INDEX old ON busy (n)")
    query = "SELECT count(*) FROM pg_index WHERE NOT indisvalid"
    for building, is_shown in (
        ("CREATE INDEX CONCURRENTLY new ON busy (n)", False),
        ("REINDEX TABLE CONCURRENTLY busy", True),  # by its lock on the new index itself
    ):
        with either.server.connect(either.address.name) as builder:
            work = threading.Thread(target=_run, args=(builder, building))
            with either.server.connect(either.address.name) as holder:
                holder.execute("BEGIN")
                holder.execute("INSERT INTO busy VALUES (2)")
                work.start()
                await_true(lambda: either.root.execute(query).fetchone() != (0,), "nothing is being built")
                indexes.check_indexes(either.db)
                expected = nullcontext() if is_shown else pytest.raises(Unanswered, match="being built cannot be told")
                with expected:
                    indexes.check_indexes(nobody)
            work.join()
    assert either.root.execute(query).fetchone() == (0,)
    indexes.check_indexes(nobody)


def test_what_a_reindex_that_was_cut_short_leaves_is_to_be_dropped(patient: Patient) -> None:
    patient.do("CREATE TABLE busy (n int)", "CREATE INDEX old ON busy (n)")
    with patient.server.connect(patient.address.name) as builder, patient.server.connect(patient.address.name) as other:
        other.execute("BEGIN")
        other.execute("INSERT INTO busy VALUES (1)")
        work = threading.Thread(target=_run, args=(builder, "REINDEX INDEX CONCURRENTLY old"))
        work.start()
        await_true(lambda: patient.root.execute("SELECT to_regclass('old_ccnew')").fetchone() != (None,), "not begun")
        patient.root.execute("SELECT pg_cancel_backend(%s)", (builder.info.backend_pid,))
        work.join()
    told = message(indexes.check_indexes, patient.db)
    assert "DROP INDEX CONCURRENTLY public.old_ccnew;" in told
    patient.do("DROP INDEX CONCURRENTLY public.old_ccnew;")
    indexes.check_indexes(patient.db)


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


def test_sequences_behind_their_columns_are_told(either: Patient) -> None:
    either.do(
        NUMBERED, "INSERT INTO numbered (word) SELECT 'x' FROM generate_series(1, 9)",
        'CREATE TABLE "Down" ("No" int GENERATED BY DEFAULT AS IDENTITY (INCREMENT -1 MAXVALUE 99) PRIMARY KEY)',
        'INSERT INTO "Down" DEFAULT VALUES',
        "CREATE TABLE parts (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE part PARTITION OF parts DEFAULT", "INSERT INTO parts DEFAULT VALUES",
    )  # fmt: skip
    assert sequences.check_sequences(either.db) == ()
    either.do(
        "SELECT setval('numbered_id_seq', 9, false)", "SELECT setval('\"Down_No_seq\"', 99, false)",
        "ALTER TABLE parts ALTER id RESTART WITH 1",
    )  # fmt: skip
    told = message(sequences.check_sequences, either.db)
    numbered = '"public"."numbered_id_seq" of "public"."numbered"."id"'
    assert f"{numbered}: 9 comes next, the column has up to 9" in told
    assert '"public"."Down_No_seq" of "public"."Down"."No": 99 comes next, the column has down to 99' in told
    assert '"public"."parts_id_seq"' in told
    for line in told.partition("hint:")[2].splitlines():
        either.do(line.strip())
    assert sequences.check_sequences(either.db) == ()
    either.do(
        'INSERT INTO "Down" DEFAULT VALUES', "INSERT INTO numbered DEFAULT VALUES", "INSERT INTO parts DEFAULT VALUES"
    )


def test_a_sequence_that_cannot_be_looked_at_is_said(either: Patient, nobody: Connection) -> None:
    either.do(
        NUMBERED, "CREATE TABLE bare (n serial, word text)", "INSERT INTO bare (word) VALUES ('a')",
        "SELECT setval('bare_n_seq', 1, false)",
    )  # fmt: skip
    assert sequences.check_sequences(either.db) == (
        '"public"."bare_n_seq" of "public"."bare"."n": no index begins with the column',
    )
    with pytest.raises(Unanswered) as caught:
        sequences.check_sequences(nobody)
    assert "the role may not read it" in caught.value.found


def test_a_table_that_is_locked_costs_no_other_sequence_its_look(
    patient: Patient, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient.do(NUMBERED, "CREATE TABLE locked (id serial PRIMARY KEY)", "INSERT INTO numbered (word) VALUES ('a')")
    patient.do("SELECT setval('numbered_id_seq', 1, false)")
    patient.db.execute("SET lock_timeout = '100ms'")
    with patient.root.transaction():
        patient.do("LOCK TABLE locked")
        told = message(sequences.check_sequences, patient.db)
        assert "numbered_id_seq" in told
        assert "1 others were not looked at" in told
    patient.do("SELECT nextval('numbered_id_seq')")
    monkeypatch.setattr(sequences, "SECONDS_OF_ALL", -1.0)
    with pytest.raises(Unanswered) as caught:
        sequences.check_sequences(patient.db)
    assert caught.value.found.count("no time was left") == 2


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


def test_a_prepared_transaction_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with restarted_postgres(WHEEL, "-c max_prepared_transactions=2") as server, patient_of(server) as patient:
        patient.do("CREATE TABLE t (n int)", "BEGIN", "INSERT INTO t VALUES (1)", "PREPARE TRANSACTION 'left''over'")
        told = message(transactions.check_prepared, patient.db)
        assert '"left\'over" of postgres, prepared 20' in told
        assert "ROLLBACK PREPARED 'left''over';" in told

        # One that is ended between the two looks is no fault.
        def end(seconds: float) -> None:
            patient.do("ROLLBACK PREPARED 'left''over'")

        monkeypatch.setattr(transactions, "time", SimpleNamespace(sleep=end))
        transactions.check_prepared(patient.db)


def test_what_a_role_may_not_read_is_a_refusal_with_its_grant(either: Patient, nobody: Connection) -> None:
    either.do("CREATE TABLE secret (n int)")
    told = message(ask, nobody, "SELECT * FROM public.secret", error=PermissionDenied)
    assert f'GRANT "pg_read_all_data" TO "{nobody.info.user}";' in told
