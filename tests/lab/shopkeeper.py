"""A service on the application of `tests.lab.migrated`: `python shopkeeper.py CONFIG`, as `tests.lab.standin` is run.

It answers /health with how often it was started. The file `mood` beside its configuration says what is the matter with
it. A schema is *old* where the index `customers_name` is missing, the last one of the lab's history.

    well            nothing
    writing         it adds orders all the time, and notes those that were committed in the file `written`
    refuses old     it ends at its start where the schema is old
    ill on old      it starts, and answers 500 where the schema is old
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

PAUSE_SECONDS = 0.02


def is_old(conninfo: str) -> bool:
    """Tell whether the last revision was undone."""
    with psycopg.connect(conninfo) as connection:
        return connection.execute("SELECT to_regclass('customers_name') IS NULL").fetchone() == (True,)


def write(conninfo: str, noted: Path, is_wanted: Callable[[], bool]) -> None:
    """Add orders for as long as that is wanted; connect anew whenever that fails."""
    query = "INSERT INTO orders (id, name) SELECT max(id) + 1, 'late' FROM orders RETURNING id"
    while True:
        try:
            with psycopg.connect(conninfo, autocommit=True) as connection, noted.open("a") as written:
                while is_wanted():
                    row = connection.execute(query).fetchone()
                    print(row[0] if row else "", file=written, flush=True)
                    time.sleep(PAUSE_SECONDS)
        except psycopg.Error:
            pass
        time.sleep(PAUSE_SECONDS)


def main(config: Path) -> None:
    """Answer requests until SIGTERM."""
    values = json.loads(config.read_text())
    conninfo, starts = values["conninfo"], config.parent / "starts"
    starts.write_text(str(int(starts.read_text()) + 1 if starts.exists() else 1))

    def mood() -> str:
        path = config.parent / "mood"
        return path.read_text() if path.exists() else "well"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status = 500 if mood() == "ill on old" and is_old(conninfo) else 200
            except psycopg.Error:
                status = 503
            text = starts.read_bytes()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    if mood() == "refuses old" and is_old(conninfo):
        sys.exit("this schema is not to my taste")
    writing = (conninfo, config.parent / "written", lambda: mood() == "writing")
    threading.Thread(target=write, args=writing, daemon=True).start()
    server = ThreadingHTTPServer(("127.0.0.1", values["port"]), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
