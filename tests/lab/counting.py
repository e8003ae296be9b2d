"""An application under supervisor that only reads: `python counting.py CONFIG`, as `tests.lab.standin` is run.

It begins only where it can read its database, and answers with the number of its attachments.
"""

from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg


def count(conninfo: str) -> int:
    """Return how many attachments there are."""
    with psycopg.connect(conninfo, connect_timeout=5, application_name="the service") as connection:
        row = connection.execute("SELECT count(*) FROM public.ir_attachment").fetchone()
    return int(row[0]) if row else 0


def main(config: Path) -> None:
    """Answer requests for ever."""
    values = json.loads(config.read_text())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status, text = 200, str(count(values["conninfo"]))
            except psycopg.Error as error:
                status, text = 500, str(error)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            pass

    count(values["conninfo"])
    ThreadingHTTPServer(("127.0.0.1", values["port"]), Handler).serve_forever()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
