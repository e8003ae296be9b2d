"""A small web application under supervisor, and a visitor who notes for how long it does not answer.

python benchmarks/service.py PORT FILE     the application; FILE holds what it connects to
"""

from __future__ import annotations

import http.client
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg

NAME = "application"
VISIT_SECONDS = 0.02
START_SECONDS = 30.0


@dataclass(frozen=True)
class Supervised:
    """A running supervisor with the application; `settings` are what a target's inventory says of it."""

    conf: Path
    port: int

    @property
    def settings(self) -> dict[str, Any]:
        """Return the target's settings."""
        return {
            "services": [NAME],
            "service_manager": "supervisor",
            "supervisor_conf": str(self.conf),
            "health_url": f"http://127.0.0.1:{self.port}/",
        }

    def restart(self) -> float:
        """Stop and start the application by hand; return the seconds until it answers again."""
        began = time.monotonic()
        for verb in ("stop", "start"):
            argv = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self.conf), verb, NAME]
            subprocess.run(argv, check=True, capture_output=True, timeout=60)
        self.wait()
        return time.monotonic() - began

    def wait(self) -> None:
        """Wait until it answers."""
        deadline = time.monotonic() + START_SECONDS
        while not answers(self.port):
            if time.monotonic() > deadline:
                raise SystemExit(f"the application does not answer: see {self.conf.parent}")
            time.sleep(VISIT_SECONDS)


class Visitor:
    """Asks the application again and again for as long as the block lasts; `longest` is the longest time in vain."""

    def __init__(self, port: int) -> None:
        self.longest = 0.0
        self._port = port
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._visit)

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _visit(self) -> None:
        last = time.monotonic()
        while not self._over.wait(VISIT_SECONDS):
            if answers(self._port):
                now = time.monotonic()
                self.longest, last = max(self.longest, now - last), now


class Page(BaseHTTPRequestHandler):
    """Answers 200 with the first contact of the database, 503 where there is none to be had."""

    conninfo = ""

    def do_GET(self) -> None:
        """Answer."""
        try:
            with psycopg.connect(self.conninfo, connect_timeout=10) as connection:
                row = connection.execute("SELECT name FROM contacts WHERE id = 1").fetchone()
            status, text = 200, str(row)
        except psycopg.Error as error:
            status, text = 503, str(error)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def supervised(folder: Path, conninfo: str) -> Iterator[Supervised]:
    """Run a supervisor with the application for as long as the block lasts.

    Args:
        folder: For its files; its path must be short enough for a socket.
        conninfo: What the application connects to, with the password, which the supervisor's file keeps to itself.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    conf = folder / "supervisord.conf"
    conf.touch(0o600)
    (folder / "conninfo").touch(0o600)
    (folder / "conninfo").write_text(conninfo)
    conf.write_text(
        f"[supervisord]\nlogfile={folder}/supervisord.log\npidfile={folder}/pid\nchildlogdir={folder}\n"
        f"[unix_http_server]\nfile={folder}/s\n[supervisorctl]\nserverurl=unix://{folder}/s\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[program:{NAME}]\ncommand={sys.executable} {Path(__file__).resolve()} {port} {folder}/conninfo\n"
        "autostart=true\n"
    )
    argv = [sys.executable, "-W", "ignore", "-m", "supervisor.supervisord", "--nodaemon", "-c", str(conf)]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield Supervised(conf, port)
        finally:
            process.terminate()


def answers(port: int) -> bool:
    """Tell whether the application answers with 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def main() -> None:
    """Serve."""
    port, conninfo = sys.argv[1:]
    Page.conninfo = Path(conninfo).read_text(encoding="utf-8")
    ThreadingHTTPServer(("127.0.0.1", int(port)), Page).serve_forever()


if __name__ == "__main__":
    main()
