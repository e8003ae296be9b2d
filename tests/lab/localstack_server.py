"""LocalStack's S3 side: a server that verifies every checksum, and knows conditions and Object Lock.

Its virtual environment is made once, in the user's cache folder (some forty seconds); the data are temporary.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.moto_server import S3Server, free_ports, stop, wait_for_answer
from tests.lab.swift_server import installed

REQUIREMENTS = (
    "localstack-core[base-runtime]==4.9.2",
    # Releases after these no longer fit what 4.9.2 imports.
    "cbor2<5.8",
    "cryptography<46",
    "pyopenssl<26",
    "service_identity<24.2",
    "setuptools<81",
)
# Objects would else go to one folder of the whole machine, and stay there.
PROGRAM = """
import os
from localstack.runtime.main import main
from localstack.services.s3 import provider
provider.DEFAULT_S3_TMP_DIR = os.path.join(os.environ["TMPDIR"], "objects")
main()
"""


@contextmanager
def running_localstack() -> Iterator[S3Server]:
    """Run LocalStack with nothing but S3 on a free port; it is kept from asking the internet for anything."""
    binaries = installed(*REQUIREMENTS)
    with tempfile.TemporaryDirectory(prefix="localstack-", ignore_cleanup_errors=True) as folder:
        (port,) = free_ports(1)
        address = f"127.0.0.1:{port}"
        variables = {
            "HOME": folder,
            "TMPDIR": folder,
            "FILESYSTEM_ROOT": f"{folder}/fs",
            "SERVICES": "s3",
            "EAGER_SERVICE_LOADING": "1",
            "GATEWAY_LISTEN": address,
            "LOCALSTACK_HOST": address,
            "DISABLE_EVENTS": "1",
            "SKIP_SSL_CERT_DOWNLOAD": "1",
            "DNS_ADDRESS": "0",
            "S3_SKIP_SIGNATURE_VALIDATION": "0",
        }
        log = Path(folder, "localstack.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [str(binaries / "python"), "-c", PROGRAM],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env={"PATH": os.environ["PATH"], **variables},
            )
        try:
            wait_for_answer(f"http://{address}/_localstack/health", process, log)
            yield S3Server(f"http://{address}", "test", "test")
        finally:
            stop(process)


@pytest.fixture(scope="module")
def localstack_server() -> Iterator[S3Server]:
    """A server for the fidelity of checksums, conditions and locks. What uses it is marked slow."""
    with running_localstack() as server:
        yield server
