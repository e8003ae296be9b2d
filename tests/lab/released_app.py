"""The application of a release: `python app.py CONFIG`, as `tests.lab.standin` is run; it is copied into each release.

`release.json` beside it says its `version`, a `wants` (`table.column` that it cannot do without, or nothing) and a
`mood`: `well`, `ill` (it answers 500), `dies` (it ends at its start). /health answers with the version.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

COLUMN = "SELECT FROM information_schema.columns WHERE table_name = %s AND column_name = %s"


def main(config: Path) -> None:
    """Answer requests until SIGTERM."""
    values = json.loads(config.read_text())
    # Of the release that it was started in, whatever `current` leads to later.
    own = json.loads((Path(__file__).resolve().parent / "release.json").read_text())
    if own["mood"] == "dies":
        sys.exit("this release does not start")

    def is_content() -> bool:
        with psycopg.connect(values["conninfo"]) as connection:
            return not own["wants"] or connection.execute(COLUMN, own["wants"].split(".")).fetchone() is not None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status = 200 if own["mood"] == "well" and is_content() else 500
            except psycopg.Error:
                status = 503
            text = own["version"].encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", values["port"]), Handler)
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    server.serve_forever(poll_interval=0.02)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
