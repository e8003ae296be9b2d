"""The demo's bucket: looked for and made by plain HTTP, for boto3 takes longer to import than the demo to be found."""

from __future__ import annotations

import http.client

from opsproof.demo.state import State
from opsproof.errors import StoreError

BUCKET = "opsproof-demo"

_SECONDS = 10.0


def answers(state: State) -> bool:
    """Tell whether S3 answers, with or without the bucket in it."""
    return _request(state, "HEAD") in {200, 404}


def make_bucket(state: State) -> bool:
    """Make the bucket unless it is there; return whether it had to be made.

    Raises:
        StoreError: S3 did not make it.
    """
    if _request(state, "HEAD") == 200:
        return False
    status = _request(state, "PUT")
    if status != 200:
        raise StoreError(
            f"the demo's bucket {BUCKET} cannot be made",
            expected="HTTP 200",
            found=f"HTTP {status} from {state.endpoint_url}" if status else f"no answer from {state.endpoint_url}",
            hint="python -m opsproof.demo stop && python -m opsproof.demo start",
        )
    return True


def _request(state: State, method: str) -> int:
    """Return the HTTP status, 0 where nobody answers. moto checks no signature."""
    connection = http.client.HTTPConnection("127.0.0.1", state.s3_port, timeout=_SECONDS)
    try:
        connection.request(method, f"/{BUCKET}", headers={"Content-Length": "0"})
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
