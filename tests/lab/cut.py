"""A plugin for runs of actions (`-p tests.lab.cut`): the run kills itself at one of its changes, as kill -9 does.

A change is a statement or a commit that changes databases, a folder that is renamed or removed, a service that is
stopped or started. The file CUT_LIST gets a line for each that begins; CUT_AT is the number of the one at which the run
ends, counted from 0, and CUT_SECONDS how much later: 0 is before it. CUT_SIGNAL is another signal than SIGKILL.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

CHANGES = re.compile(r"\s*(CREATE|ALTER|DROP|COMMENT|GRANT|REVOKE)\b")
VERBS = {"start", "stop"}
IDLE = TransactionStatus.IDLE

_lock = threading.Lock()
_begun = 0


def pytest_configure() -> None:
    """Watch what changes something."""
    execute, commit = psycopg.Connection.execute, psycopg.Transaction.__exit__

    def watched_execute(connection: Any, query: Any, *words: Any, **how: Any) -> Any:
        text = query.as_string(connection) if isinstance(query, sql.Composable) else query
        text = text.decode() if isinstance(text, bytes) else text
        # Of a transaction only the commit counts: whatever comes before it is rolled back.
        if CHANGES.match(text) and connection.info.transaction_status == IDLE:
            _begin(text)
        return execute(connection, query, *words, **how)

    def watched_commit(transaction: Any, failure: Any, *words: Any) -> Any:
        if failure is None:
            _begin("COMMIT")
        return commit(transaction, failure, *words)

    psycopg.Connection.execute = watched_execute  # type: ignore[method-assign, assignment]
    psycopg.Transaction.__exit__ = watched_commit  # type: ignore[method-assign]
    sys.addaudithook(_watch)


def _watch(event: str, values: tuple[Any, ...]) -> None:
    if event == "subprocess.Popen":
        words = [str(word) for word in values[1]]
        if VERBS.intersection(words) and any("supervisorctl" in word for word in words):
            _begin(" ".join(words))
    elif (event == "os.rename" and Path(values[0]).is_dir()) or (
        event == "shutil.rmtree" and "opsproof" in str(values[0])
    ):
        _begin(f"{event} {values[0]}")


def _begin(change: str) -> None:
    global _begun
    with _lock:
        number, _begun = _begun, _begun + 1
        with Path(os.environ["CUT_LIST"]).open("a") as file:
            file.write(change.replace("\n", " ") + "\n")
    if str(number) != os.environ.get("CUT_AT"):
        return
    seconds = float(os.environ["CUT_SECONDS"])
    if seconds:
        threading.Thread(target=_end, args=(seconds,), daemon=True).start()
    else:
        _end(0.0)


def _end(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.Signals[os.environ.get("CUT_SIGNAL", "SIGKILL")])
