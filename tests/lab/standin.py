"""A stand-in for an application under supervisor: writes rows and attachments all the time, and answers /health.

`python standin.py CONFIG`, a JSON file with `conninfo`, `filestore` and `port`. It knows nothing of the engine, and
imports nothing of the tests, so that it is up at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psycopg

PAUSE_SECONDS = 0.02


def write(conninfo: str, filestore: Path) -> None:
    """Add messages and attachments for ever, as Odoo does: the file first; connect anew whenever that fails."""
    while True:
        try:
            with psycopg.connect(conninfo, autocommit=True) as connection:
                while True:
                    content = os.urandom(1500)
                    digest = hashlib.sha1(content, usedforsecurity=False).hexdigest()
                    path = filestore / digest[:2] / digest
                    path.parent.mkdir(exist_ok=True)
                    path.write_bytes(content)
                    with connection.transaction():
                        connection.execute(
                            "INSERT INTO public.ir_attachment (name, store_fname, checksum, file_size)"
                            " VALUES ('live', %s, %s, %s)",
                            (f"{digest[:2]}/{digest}", digest, len(content)),
                        )
                        connection.execute("INSERT INTO public.mail_message (partner_id, body) VALUES (1, 'live')")
                    time.sleep(PAUSE_SECONDS)
        except (psycopg.Error, OSError):
            time.sleep(PAUSE_SECONDS)


def serve(conninfo: str, port: int) -> None:
    """Answer /health: 200 where the database answers, else 503."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                with psycopg.connect(conninfo) as connection:
                    connection.execute("SELECT count(*) FROM public.res_partner")
                self.send_response(200)
            except psycopg.Error:
                self.send_response(503)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    config = json.loads(Path(sys.argv[1]).read_text())
    threading.Thread(target=write, args=(config["conninfo"], Path(config["filestore"])), daemon=True).start()
    serve(config["conninfo"], config["port"])
