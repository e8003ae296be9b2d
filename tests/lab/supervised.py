"""The stand-in application under a supervisord of its own, as a service that an inventory names."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from psycopg.conninfo import make_conninfo

from tests.lab import standin
from tests.lab.application import Application
from tests.lab.moto_server import free_ports

SERVICE = "shop-web"


@dataclass(frozen=True)
class Supervised:
    """A supervisord with one program, which runs.

    Attributes:
        conf: supervisord.conf.
        url: Where the program tells its health.
    """

    conf: Path
    url: str

    @property
    def variables(self) -> dict[str, object]:
        """Return what an inventory says of it."""
        return {
            "services": [SERVICE],
            "service_manager": "supervisor",
            "supervisor_conf": str(self.conf),
            "health_url": self.url,
            "health_timeout": 20,
        }

    def control(self, *words: str) -> str:
        """Run supervisorctl, and return what it said."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(self.conf), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout

    def is_healthy(self) -> bool:
        """Tell whether the program answers with 200."""
        try:
            with urllib.request.urlopen(self.url, timeout=5) as response:
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def supervised(application: Application, program: str = standin.__file__) -> Iterator[Supervised]:
    """Run the stand-in, or another program, on an application, as its own role, for as long as the block lasts."""
    # Not pytest's tmp_path: a socket's path ends at 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="opsproof-sv-"))
    (port,) = free_ports(1)
    address = application.address
    config = {
        "conninfo": make_conninfo(address.conninfo(), password=application.password),
        "filestore": str(application.filestore),
        "port": port,
    }
    (folder / "config.json").write_text(json.dumps(config))
    conf = folder / "supervisord.conf"
    sections = {
        "unix_http_server": {"file": f"{folder}/s", "chmod": "0700"},
        "supervisord": {"logfile": f"{folder}/log", "pidfile": f"{folder}/pid", "childlogdir": str(folder)},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{folder}/s"},
        f"program:{SERVICE}": {
            "command": f"{sys.executable} {program} {folder}/config.json",
            "startsecs": "0",
            "autorestart": "false",
            "stopasgroup": "true",
            "killasgroup": "true",
        },
    }
    conf.write_text(
        "".join(
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
            for name, options in sections.items()
        )
    )
    command = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(conf)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            service = Supervised(conf, f"http://127.0.0.1:{port}/health")
            deadline = time.monotonic() + 30
            while not service.is_healthy():
                assert daemon.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            yield service
        finally:
            daemon.terminate()
            daemon.wait(timeout=30)
            shutil.rmtree(folder)
