"""The checks of transactions are shown failing: one that is open for long, and one that was prepared and left."""

from __future__ import annotations

import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest

from opsproof.inspection.databases import transactions
from opsproof.inspection.databases.looking import Unanswered
from opsproof.system.postgres.server import Connection
from tests.lab.examined import Patient, either, message, nobody, patient, patient_of, run_anyway
from tests.lab.postgres_server import WHEEL, restarted_postgres
from tests.lab.waiting import await_true

__all__ = ["either", "nobody", "patient"]

LONG_AGO = timedelta(days=3650)
NOTHING = timedelta(0)


@pytest.mark.parametrize("state", ["idle in transaction", "active"])
def test_a_long_transaction_is_told_with_its_query(patient: Patient, state: str) -> None:
    transactions.check_long_transactions(patient.db, NOTHING)
    other = patient.server.connect(patient.address.name)
    other.execute("SET application_name = 'reports'")
    working = threading.Thread(target=run_anyway, args=(other, "SELECT 'secret' FROM pg_sleep(60)"))
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
