"""An application under supervisor that takes offence: `python moody.py CONFIG`, as `tests.lab.standin` is run.

The file `mood` beside its configuration says at what. Data is *new* where the parameter `generation` is missing from
it, which a test sets once the backup has been taken.

    well            it answers 200 where the database does
    refuses new     it ends at its start where the data is new
    ill on new      it starts, and answers 500 where the data is new
    never starts    it ends at its start, whatever the data is
    deaf            it does not end on SIGTERM, but three seconds later
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

GENERATION = "SELECT count(*) FROM public.ir_config_parameter WHERE key = 'generation'"
DEAF_SECONDS = 3.0


def is_new(conninfo: str) -> bool:
    """Tell whether the data is that of the backup."""
    with psycopg.connect(conninfo) as connection:
        return connection.execute(GENERATION).fetchone() == (0,)


def main(config: Path) -> None:
    """Answer requests until SIGTERM."""
    values = json.loads(config.read_text())
    conninfo = values["conninfo"]

    def mood() -> str:
        path = config.parent / "mood"
        return path.read_text() if path.exists() else "well"

    def end(*_: object) -> None:
        if mood() == "deaf":
            time.sleep(DEAF_SECONDS)
        threading.Thread(target=server.shutdown).start()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status = 500 if is_new(conninfo) and mood() == "ill on new" else 200
            except psycopg.Error:
                status = 503
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    if mood() == "never starts" or (mood() == "refuses new" and is_new(conninfo)):
        sys.exit("this data is not to my taste")
    server = ThreadingHTTPServer(("127.0.0.1", values["port"]), Handler)
    signal.signal(signal.SIGTERM, end)
    server.serve_forever(poll_interval=0.05)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
