"""The lock that keeps other runs off a database: who is told what, and how it ends."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.errors import DatabaseError
from opsproof.system.postgres.lock import hold_lock
from opsproof.target import DatabaseAddress
from tests.lab.live_database import as_owner, server
from tests.lab.postgres_server import PostgresServer

__all__ = ["server"]

REPOSITORY = Path(__file__).parents[2]


HOLDS_THE_LOCK = """
import sys, time
from opsproof.system.postgres.lock import hold_lock
from opsproof.target import DatabaseAddress, Secret
address = DatabaseAddress("shelf", "127.0.0.1", int(sys.argv[1]), "postgres", Secret(sys.stdin.readline().strip()))
with hold_lock(address):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def address(server: PostgresServer) -> DatabaseAddress:
    return server.address("shelf")


def test_a_second_run_is_kept_off(address: DatabaseAddress) -> None:
    with hold_lock(address):
        with pytest.raises(DatabaseError, match="Another run") as caught, hold_lock(address):
            pass
        assert "nothing was changed" in caught.value.kept
    with hold_lock(address), hold_lock(replace(address, name="another")):
        pass


def test_it_is_gone_after_an_error(address: DatabaseAddress) -> None:
    with pytest.raises(ValueError, match="mine"), hold_lock(address):
        raise ValueError("mine")
    with hold_lock(address):
        pass


def test_it_is_gone_after_kill_9(server: PostgresServer, address: DatabaseAddress) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDS_THE_LOCK, str(server.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    with holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdin.write(server.password + "\n")
        holder.stdin.flush()
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(DatabaseError, match="Another run"), hold_lock(address):
            pass
        holder.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while True:
        try:
            with hold_lock(address):
                break
        except DatabaseError:
            assert time.monotonic() < deadline, "the lock outlived its holder"
            time.sleep(0.05)


def test_whoever_is_kept_off_is_told_by_whom_and_since_when(address: DatabaseAddress) -> None:
    with hold_lock(address, "restore") as lock:
        lock.check()
        with (
            pytest.raises(DatabaseError, match="Another run of opsproof is at work on database 'shelf'") as caught,
            hold_lock(address),
        ):
            pass
    pattern = r"opsproof restore \S+@\S+ since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC \(role postgres, process \d+ .*"
    assert re.fullmatch(pattern, caught.value.found)


def test_another_role_is_told_too(server: PostgresServer, address: DatabaseAddress) -> None:
    with (
        hold_lock(address, "restore"),
        pytest.raises(DatabaseError, match="Another run") as caught,
        hold_lock(as_owner(server)),
    ):
        pass
    assert re.fullmatch(r"opsproof restore \S+@\S+ \(role postgres, process \d+ .*", caught.value.found)


def test_a_long_name_of_the_machine_leaves_the_purpose(
    server: PostgresServer, address: DatabaseAddress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "größe-" * 20)
    with hold_lock(address, "recover"), server.connect() as connection:
        row = connection.execute(
            "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'opsproof recover %@gr??e-%'"
        ).fetchone()
    assert row is not None
    assert len(row[0]) == 63


def test_a_connection_that_is_cut_takes_the_lock_with_it(server: PostgresServer, address: DatabaseAddress) -> None:
    with hold_lock(address, "restore") as lock:
        with server.connect() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                " WHERE application_name LIKE 'opsproof restore %'"
            )
        with pytest.raises(DatabaseError, match="The lock on database 'shelf' is lost"):
            lock.check()
        with hold_lock(address) as other:
            other.check()


def test_one_that_was_given_up_is_lost_too(address: DatabaseAddress) -> None:
    with hold_lock(address) as lock:
        lock._connection.execute("SELECT pg_advisory_unlock_all()")
        with pytest.raises(DatabaseError, match="is lost") as caught:
            lock.check()
    assert "no lock any more" in caught.value.found
