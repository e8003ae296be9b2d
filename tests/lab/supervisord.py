"""A supervisord of a test's own, with the programs that it names."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

START_SECONDS = 30


@contextmanager
def running_supervisord(folder: Path, programs: Mapping[str, Mapping[str, str]]) -> Iterator[Path]:
    """Run supervisord for as long as the block lasts; yield its configuration.

    Args:
        folder: Where its files go, with a short path: not pytest's tmp_path, as a socket's path ends at 107 bytes.
        programs: Name -> options of its section.
    """
    sections: dict[str, Mapping[str, str]] = {
        "unix_http_server": {"file": f"{folder}/s", "chmod": "0700"},
        "supervisord": {"logfile": f"{folder}/log", "pidfile": f"{folder}/pid", "childlogdir": str(folder)},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{folder}/s"},
        **{f"program:{name}": options for name, options in programs.items()},
    }
    conf = folder / "supervisord.conf"
    conf.write_text(
        "".join(
            f"[{name}]\n" + "".join(f"{key} = {value}\n" for key, value in options.items())
            for name, options in sections.items()
        )
    )
    command = [sys.executable, "-m", "supervisor.supervisord", "--nodaemon", "-c", str(conf)]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as daemon:
        try:
            deadline = time.monotonic() + START_SECONDS
            while not (folder / "s").exists():
                assert daemon.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
            yield conf
        finally:
            daemon.terminate()
            daemon.wait(timeout=30)


def control(conf: Path, *words: str) -> str:
    """Run supervisorctl, and return what it said."""
    command = [sys.executable, "-m", "supervisor.supervisorctl", "-c", str(conf), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout
