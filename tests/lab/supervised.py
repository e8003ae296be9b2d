"""An application under a supervisord of its own, as a service that an inventory names."""

from __future__ import annotations

import json
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

from tests.lab import standin, supervisord
from tests.lab.application import Application
from tests.lab.moto_server import free_ports

SERVICE = "shop-web"


@dataclass(frozen=True)
class Supervised:
    """A supervisord with one program.

    Attributes:
        conf: supervisord.conf.
        url: Where the program tells its health.
        name: The program's.
    """

    conf: Path
    url: str
    name: str = SERVICE

    @property
    def variables(self) -> dict[str, object]:
        """Return what an inventory says of it."""
        return {
            "services": [self.name],
            "service_manager": "supervisor",
            "supervisor_conf": str(self.conf),
            "health_url": self.url,
            "health_timeout": 20,
        }

    @property
    def pid(self) -> int:
        """Its process; 0 while it is down."""
        return int(self.control("pid", self.name).strip())

    def control(self, *words: str) -> str:
        """Run supervisorctl, and return what it said."""
        return supervisord.control(self.conf, *words)

    def is_healthy(self) -> bool:
        """Tell whether the program answers with 200."""
        return self._ask() is not None

    def await_answer(self, seconds: float = 10.0) -> str:
        """Wait until the program answers with 200; return what it says."""
        deadline = time.monotonic() + seconds
        while (answer := self._ask()) is None:
            assert time.monotonic() < deadline, f"it does not answer: {self.control('tail', self.name, 'stderr')}"
            time.sleep(0.05)
        return answer

    def _ask(self) -> str | None:
        try:
            with urllib.request.urlopen(self.url, timeout=5) as response:
                return str(response.read().decode()) if response.status == 200 else None
        except (urllib.error.URLError, OSError):
            return None


# One that ends in its first second has not started, and supervisor says so, once.
SLOW_TO_TRUST = {"startsecs": "1", "startretries": "0"}


@contextmanager
def supervised(
    application: Application, program: str = standin.__file__, *, name: str = SERVICE, **options: str
) -> Iterator[Supervised]:
    """Run the stand-in, or another program, on an application, as its own role, for as long as the block lasts.

    Args:
        application: Whose.
        program: The file, which Python runs with the path of a JSON file: `conninfo`, `filestore` and `port`.
        name: The program's in supervisor.
        options: More of its section there; with `autostart="false"` it is not started yet.
    """
    (port,) = free_ports(1)
    address = application.address
    config = {
        "conninfo": make_conninfo(address.conninfo(), password=application.password),
        "filestore": str(application.filestore),
        "port": port,
    }
    with tempfile.TemporaryDirectory(prefix="opsproof-sv-") as path:
        folder = Path(path)
        # The password has every character that supervisor's format could trip over.
        (folder / "config.json").write_text(json.dumps(config))
        own = {
            "command": f"{sys.executable} {program} {folder}/config.json",
            "startsecs": "0",
            "autorestart": "false",
            "stopasgroup": "true",
            "killasgroup": "true",
            **options,
        }
        with supervisord.running_supervisord(folder, {name: own}) as conf:
            service = Supervised(conf, f"http://127.0.0.1:{port}/health", name)
            if options.get("autostart") != "false":
                service.await_answer(30)
            yield service
