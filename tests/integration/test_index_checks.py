"""The check of indexes is shown failing: what was built or rebuilt only half, and what is being built at the moment."""

from __future__ import annotations

import threading
from contextlib import nullcontext

import psycopg
import pytest

from opsproof.inspection.databases import indexes
from opsproof.inspection.databases.looking import Unanswered
from opsproof.system.postgres.server import Connection
from tests.lab.examined import Patient, either, message, nobody, patient, run_anyway
from tests.lab.waiting import await_true

__all__ = ["either", "nobody", "patient"]


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
            work = threading.Thread(target=run_anyway, args=(builder, building))
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
        work = threading.Thread(target=run_anyway, args=(builder, "REINDEX INDEX CONCURRENTLY old"))
        work.start()
        await_true(lambda: patient.root.execute("SELECT to_regclass('old_ccnew')").fetchone() != (None,), "not begun")
        patient.root.execute("SELECT pg_cancel_backend(%s)", (builder.info.backend_pid,))
        work.join()
    told = message(indexes.check_indexes, patient.db)
    assert "DROP INDEX CONCURRENTLY public.old_ccnew;" in told
    patient.do("DROP INDEX CONCURRENTLY public.old_ccnew;")
    indexes.check_indexes(patient.db)
