"""An application for drills: `python trialserver.py MOOD DATABASE FILESTORE PORT`, which finds its server by PG*.

    well            answers 200, keeps a session, and writes into the database and the filestore that it was given
    forgetful       answers 200 without a session
    never starts    says why, and ends
    dies            ends after its first answer, which is a 503
    hangs           takes connections, and never answers
    stubborn        as well, but in a session of its own, deaf to SIGTERM, while its parent waits
    lurks           as stubborn, and never answers

It imports nothing of the tests, so that it is up at once.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

TRACE = "trial-application-was-here"


def use(database: str, filestore: str) -> object:
    """Write into both, and return the session."""
    import psycopg

    connection = psycopg.connect(dbname=database, autocommit=True)
    connection.execute("INSERT INTO public.mail_message (partner_id, body) VALUES (1, %s)", (TRACE,))
    (Path(filestore) / TRACE).touch()
    return connection


def main(mood: str, database: str, filestore: str, port: int) -> None:
    """Answer requests until somebody ends it."""
    if mood == "never starts":
        sys.exit("this copy is not to my taste")
    if mood in ("stubborn", "lurks"):
        child = os.fork()
        if child:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            os.waitpid(child, 0)
            return
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    session = use(database, filestore) if mood in ("well", "stubborn", "lurks") else None

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if mood in ("hangs", "lurks"):
                time.sleep(600)
            self.send_response(503 if mood == "dies" else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()
            if mood == "dies":
                threading.Thread(target=self.server.shutdown).start()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.serve_forever(poll_interval=0.05)
    sys.exit(f"ended, with {session}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
