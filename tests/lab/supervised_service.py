"""A service that a restore stops and starts: a page that reads its database, under a supervisor of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from tests.lab.application import Application

# It begins only where it can read its database, and answers with the number of its attachments.
SERVICE = """
import http.server, pathlib, psycopg, sys

CONNINFO = pathlib.Path(sys.argv[1]).read_text()

def count():
    with psycopg.connect(CONNINFO, connect_timeout=5) as connection:
        return connection.execute("SELECT count(*) FROM public.ir_attachment").fetchone()[0]

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        try:
            status, text = 200, str(count())
        except psycopg.Error as error:
            status, text = 500, str(error)
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *words):
        pass

count()
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""


@dataclass(frozen=True)
class SupervisedService:
    """The service `application`.

    Attributes:
        conf: Its supervisor's configuration.
        url: Where it answers.
    """

    conf: Path
    url: str

    @property
    def pid(self) -> int:
        """Its process; 0 while it is down."""
        return int(self.control("pid", "application").strip())

    def control(self, *words: str) -> str:
        """Ask supervisor; return its answer."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self.conf), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout

    def await_answer(self, seconds: float = 10.0) -> str:
        """Wait until the service answers; return what it says."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                with urllib.request.urlopen(self.url, timeout=5) as response:
                    return str(response.read().decode())
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline, "the service does not answer"
                time.sleep(0.05)


@contextmanager
def supervised_service(folder: Path, application: Application) -> Iterator[SupervisedService]:
    """Run a supervisor with the service `application`, which is not started yet; its files go to the folder."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script, conf = folder / "service.py", folder / "supervisord.conf"
    script.write_text(SERVICE)
    address = application.address
    conninfo = make_conninfo(address.conninfo(), password=application.password, application_name="the service")
    # The password has every character that supervisor's format could trip over.
    (folder / "conninfo").write_text(conninfo)
    conf.write_text(
        f"[unix_http_server]\nfile = {folder}/s\nchmod = 0700\n"
        f"[supervisord]\nlogfile = {folder}/supervisor.log\npidfile = {folder}/pid\nchildlogdir = {folder}\n"
        "[rpcinterface:supervisor]\n"
        "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n"
        f"[supervisorctl]\nserverurl = unix://{folder}/s\n"
        f"[program:application]\ncommand = {sys.executable} {script} {folder}/conninfo {port}\n"
        "autostart = false\nautorestart = true\nstartsecs = 1\nstartretries = 20\nredirect_stderr = true\n"
    )
    command = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(conf)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            await_true((folder / "s").exists, "supervisor does not start", 20)
            yield SupervisedService(conf, f"http://127.0.0.1:{port}/")
        finally:
            daemon.terminate()
            daemon.wait(30)


def await_true(happened: Callable[[], bool], otherwise: str, seconds: float = 10.0) -> None:
    """Wait until something is so.

    Raises:
        AssertionError: It is not, in its time.
    """
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.02)
