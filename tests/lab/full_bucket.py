"""A bucket that is full from the start: `python -m tests.lab.full_bucket PORT BUCKET BACKUPS` serves it by moto.

Filled from inside, ten thousand backups take seconds; through the door, as with Swift, they take minutes. The backups
are of one target, one an hour, the newest of this hour; every tenth is another environment's.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import patch

from botocore.awsrequest import AWSPreparedRequest, AWSRequest, AWSResponse
from botocore.httpsession import URLLib3Session

from opsproof.archive import manifest as records
from opsproof.archive.names import sidecar_name
from opsproof.system.store import Store, open_store
from opsproof.target import DatabaseAddress, S3StoreSettings, Target
from tests.lab.bucket import make_bucket
from tests.lab.manifests import database_record, manifest_of, sidecar_of
from tests.lab.moto_server import S3Server, free_ports, stop, wait_for_answer
from tests.lab.swift_server import running_swift

CUSTOMER = "acme"
OTHER = 10


def make_objects(backups: int) -> Iterator[tuple[str, bytes]]:
    """Yield the key and the content of each object of so many backups."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    for number in range(backups):
        taken = now - timedelta(hours=number)
        environment = "staging" if number % OTHER == OTHER - 1 else "prod"
        backup = records.backup_id("shop", taken)
        data = f"the backup {backup}".encode()
        manifest = manifest_of(
            id=backup, environment=environment, target="shop", customer=CUSTOMER, taken=taken,
            database=database_record(name="shop"),
        )  # fmt: skip
        sidecar = sidecar_of(manifest, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        yield f"{CUSTOMER}/backups/{sidecar.name}", data
        yield f"{CUSTOMER}/backups/{sidecar_name(backup)}", records.to_json(sidecar)


def fill(bucket: str, backups: int) -> None:
    """Put backups into a bucket of the moto of this process."""
    from moto.core.models import DEFAULT_ACCOUNT_ID
    from moto.s3.models import s3_backends

    backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
    backend.create_bucket(bucket, "us-east-1")
    for key, data in make_objects(backups):
        backend.put_object(bucket, key, data)


@dataclass(frozen=True)
class FullBucket:
    """The target whose the backups are, its store, and the process of the server where it is one that tells."""

    target: Target
    store: Store
    process: int | None = None

    def processor_seconds(self) -> float:
        """Return how long the server has worked so far; 0 where nobody can tell."""
        if self.process is None:
            return 0.0
        fields = Path(f"/proc/{self.process}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def full_bucket(backups: int) -> Iterator[FullBucket]:
    """Serve a bucket with so many backups."""
    (port,) = free_ports(1)
    server, bucket = S3Server(f"http://127.0.0.1:{port}", "testing", "testing"), "full-of-backups"
    with tempfile.TemporaryDirectory(prefix="moto-") as folder:
        log = Path(folder, "moto.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.lab.full_bucket", str(port), bucket, str(backups)],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_for_answer(f"{server.url}/moto-api/", process, log, 120)
            with patch.dict(os.environ, server.variables):
                yield _in(server, bucket, process.pid)
        finally:
            stop(process)


@contextmanager
def full_swift(backups: int) -> Iterator[FullBucket]:
    """Serve a bucket with so many backups by OpenStack Swift, filled through the door."""
    with running_swift() as server:
        bucket = make_bucket(server)

        def put(each: tuple[str, bytes]) -> None:
            bucket.client.put_object(Bucket=bucket.name, Key=each[0], Body=each[1])

        with ThreadPoolExecutor(16) as pool:
            for _ in pool.map(put, make_objects(backups)):
                pass
        with patch.dict(os.environ, server.variables):
            yield _in(server, bucket.name)


def _in(server: S3Server, bucket: str, process: int | None = None) -> FullBucket:
    settings = S3StoreSettings(bucket=bucket, region=server.region, endpoint_url=server.url)
    target = Target("shop", "prod", DatabaseAddress("shop"), settings, CUSTOMER)
    return FullBucket(target, open_store(settings, CUSTOMER), process)


@contextmanager
def counted_requests() -> Iterator[list[str]]:
    """Note method and address of every request that botocore sends in this process while the block lasts."""
    sent: list[str] = []
    send = URLLib3Session.send

    def count(session: URLLib3Session, request: AWSRequest | AWSPreparedRequest) -> AWSResponse:
        sent.append(f"{request.method} {request.url}")
        return send(session, request)

    with patch.object(URLLib3Session, "send", count):
        yield sent


def main() -> None:
    """Fill a bucket and serve it until this process is ended."""
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    port, bucket, backups = sys.argv[1:]
    fill(bucket, int(backups))
    run_simple("127.0.0.1", int(port), DomainDispatcherApplication(create_backend_app), threaded=True)


if __name__ == "__main__":
    main()
