"""A swap that is killed, interrupted or cut off at any moment: the live database is whole, and open."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from opsproof.errors import ConnectionFailed, Interrupted
from opsproof.system.postgres import renaming
from opsproof.system.postgres.databases import clear_intent, read_intent
from opsproof.system.postgres.maintenance import maintenance
from opsproof.system.postgres.server import Connection
from opsproof.system.postgres.swap import swap_back
from tests.lab.databases import (
    Pair,
    act_at,
    assert_swapped,
    assert_untouched,
    clients,
    owner,
    pair,
    sessions_of_opsproof,
    stubborn_session,
)
from tests.lab.postgres_server import Session
from tests.lab.waiting import await_true

pytestmark = pytest.mark.slow

__all__ = ["owner", "pair"]

REPOSITORY = Path(__file__).parents[2]
KILLS = 12


# Forks a process for each line that it is sent, which says its id, swaps, and says how long that took. Statements come
# a little apart, so that moments are spread over all of them.
SWAPS = """
import json, os, sys, time
import psycopg
from opsproof.intent import Intent
from opsproof.system.postgres.swap import swap
from opsproof.target import DatabaseAddress, Secret

said = json.loads(sys.stdin.readline())
address = DatabaseAddress(said["live"], "127.0.0.1", said["port"], "postgres", Secret(said["password"]))
execute = psycopg.Connection.execute
def dawdle(*arguments, **options):
    time.sleep(0.005)
    return execute(*arguments, **options)
psycopg.Connection.execute = dawdle
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if child == 0:
        print(os.getpid(), flush=True)
        result = swap(address, said["live"], said["side"], said["parked"], Intent.from_json(said["intent"]))
        print(result.seconds, flush=True)
        os._exit(0)
    sys.stdin.readline()  # until then its id is nobody else's
    os.waitpid(child, 0)
    print("over", flush=True)
"""


class Swapper:
    """A process beside this one that swaps when it is told to, and can be killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def begin(self) -> int:
        """Begin to swap; return the id of the process that does."""
        self.say("")
        return int(self.hear())

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def hear(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        self.finish()

    def finish(self) -> None:
        self.say("")
        while self.hear() != "over":
            pass


@contextmanager
def swapper(pair: Pair) -> Iterator[Swapper]:
    words = {
        "port": pair.server.port,
        "password": pair.server.password,
        "intent": pair.intent.to_json(),
        **{name: getattr(pair, name) for name in ("live", "side", "parked")},
    }
    argv = [sys.executable, "-c", SWAPS]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as process:
        made = Swapper(process)
        try:
            made.say(json.dumps(words))
            assert made.hear() == "ready"
            yield made
        finally:
            process.kill()


class TestKilled:
    def test_at_any_moment_live_is_whole_and_open(self, pair: Pair) -> None:
        """SIGKILL at moments all over the transaction; whichever database is live, clients are let in."""
        seed = random.randrange(1 << 30)
        moments = random.Random(seed)
        within = 0
        with swapper(pair) as other, pair.server.connect() as watching:
            other.begin()
            length = float(other.hear())
            other.finish()
            put_back(pair)
            for turn in range(KILLS):
                with clients(pair, 3):
                    pid = other.begin()
                    await_true(lambda: is_under_way(watching), "the swap never began", 20)
                    time.sleep(length * (turn + moments.random()) / KILLS)
                    within += is_under_way(watching)
                    other.kill(pid)
                    await_true(lambda: lets_in(pair), f"locked out after a kill (seed {seed}, turn {turn})", 4)
                await_true(lambda: not sessions_of_opsproof(pair), "the server kept a dead session", 20)
                if pair.which() == "new":
                    put_back(pair)
                assert_untouched(pair)
        assert within, f"no kill was within the transaction (seed {seed})"

    def test_while_it_waits_for_a_session(self, pair: Pair) -> None:
        """The server notices within a moment that nobody waits any more, although the rename itself waits 5 seconds."""
        with stubborn_session(pair), swapper(pair) as other:
            pid = other.begin()
            await_true(lambda: sessions_of_opsproof(pair, "RENAME") > 0, "the rename never began", 20)
            other.kill(pid)
            killed = time.monotonic()
            assert pair.which() == "old"
            assert time.monotonic() - killed < 4
        await_true(lambda: not sessions_of_opsproof(pair), "the server kept a dead session", 20)
        assert_untouched(pair)

    def test_a_signal_while_it_waits(self, pair: Pair) -> None:
        def interrupt(number: int, frame: object) -> None:
            raise Interrupted("SIGALRM arrived")

        before = signal.signal(signal.SIGALRM, interrupt)
        try:
            with stubborn_session(pair):
                signal.setitimer(signal.ITIMER_REAL, 0.5)
                started = time.monotonic()
                with pytest.raises(Interrupted):
                    pair.swap()
                assert pair.which() == "old"
                assert time.monotonic() - started < 3
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert_untouched(pair)

    def test_a_machine_that_falls_silent_in_the_midst_of_it(self, pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
        """The server waits for the next statement only so long, and then lets everybody in again."""
        monkeypatch.setattr(renaming, "PATIENCE_SECONDS", 1.0)
        waited = []

        def fall_silent(connection: Connection) -> None:
            started = time.monotonic()
            assert pair.which() == "old"
            waited.append(time.monotonic() - started)

        act_at(monkeypatch, pair, "ALLOW_CONNECTIONS false", fall_silent)
        with pytest.raises(ConnectionFailed, match="Renaming 'app'") as caught:
            pair.swap()
        monkeypatch.undo()
        assert caught.value.kept == "nothing was changed"
        assert 0.5 < waited[0] < 4.5
        assert_untouched(pair)


def lets_in(pair: Pair) -> bool:
    """Tell whether a client that comes gets in; one that waited for the commit is told to come again."""
    try:
        return pair.which() != ""
    except psycopg.OperationalError:
        return False


def is_under_way(connection: Session) -> bool:
    """Tell whether a transaction of opsproof's that changes something is open."""
    query = "SELECT FROM pg_stat_activity WHERE application_name = 'opsproof' AND backend_xid IS NOT NULL"
    return connection.execute(query).fetchone() is not None


def put_back(pair: Pair) -> None:
    """Swap back, and make the side database what it was."""
    swap_back(pair.address, pair.live, pair.parked, pair.side)
    with maintenance(pair.address) as connection:
        clear_intent(connection, pair.side)
        connection.execute(sql.SQL("ALTER DATABASE {} CONNECTION LIMIT -1").format(sql.Identifier(pair.side)))


STEPS = ("pg_current_xact_id", "RENAME TO", "ALLOW_CONNECTIONS false", "IS_TEMPLATE false", "COMMENT ON DATABASE")


class TestCut:
    @pytest.mark.parametrize("step", STEPS)
    @pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
    def test_a_connection_that_the_server_ends_between_two_statements(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch, step: str, after: bool
    ) -> None:
        end_session_at(monkeypatch, pair, step, after=after)
        with pytest.raises(ConnectionFailed, match="'app") as caught:
            pair.swap()
        monkeypatch.undo()
        assert caught.value.kept == "nothing was changed"
        assert_untouched(pair)

    def test_a_connection_that_ends_while_the_commit_is_under_way_is_asked_about(
        self, pair: Pair, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The commit took place and its answer was lost: another connection tells, and the swap has succeeded."""
        commit = psycopg.Transaction._commit_gen

        def lose_the_answer(transaction: psycopg.Transaction) -> Iterator[object]:
            yield from commit(transaction)
            transaction.connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")

        monkeypatch.setattr(psycopg.Transaction, "_commit_gen", lose_the_answer)
        monkeypatch.setattr(psycopg.Connection, "broken", property(lambda connection: connection.closed))
        result = pair.swap()
        monkeypatch.undo()
        assert_swapped(pair)
        with maintenance(pair.address) as connection:
            intent = read_intent(connection, pair.live)
        assert intent is not None
        assert intent.swap_xid == result.xid


def end_session_at(monkeypatch: pytest.MonkeyPatch, pair: Pair, step: str, *, after: bool) -> None:
    """Have the server end the session that says a statement, just before or after it."""

    def end(connection: Connection) -> None:
        with pair.server.connect() as other, other.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 5000)", (connection.info.backend_pid,))

    act_at(monkeypatch, pair, step, end, after=after)
