"""moto's S3 as a process of its own on a free port.

A test module, or a conftest, takes the fixture in by `from tests.lab.moto_server import moto_server`.
"""

from __future__ import annotations

import os
import socket
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

import pytest

START_SECONDS = 60.0


@dataclass(frozen=True)
class S3Server:
    """A running S3 server and credentials that it accepts."""

    url: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment variables by which boto3's chain finds the credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback that nobody listened on just now, each another."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def wait_for_answer(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = START_SECONDS) -> None:
    """Wait until the server answers; if it ends or stays silent, raise with the last lines of its log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"no answer at {url}; its log ends:\n{log.read_text(errors='replace')[-2000:]}")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process that was started here, and wait for it."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(10)


@contextmanager
def running_moto(**variables: str) -> Iterator[S3Server]:
    """Run moto's server; `variables` go into its environment."""
    with tempfile.TemporaryDirectory(prefix="moto-") as folder:
        for attempt in range(3):
            (port,) = free_ports(1)
            log = Path(folder, f"moto-{attempt}.log")
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **variables},
                )
            try:
                wait_for_answer(f"http://127.0.0.1:{port}/moto-api/", process, log)
            except RuntimeError:
                stop(process)
                # Somebody else took the port between the choice and the start.
                if attempt < 2 and b"in use" in log.read_bytes():
                    continue
                raise
            break
        try:
            yield S3Server(f"http://127.0.0.1:{port}", "testing", "testing")
        finally:
            stop(process)


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """An S3 server that knows every request, but checks neither signatures nor checksums."""
    with running_moto() as server:
        yield server
