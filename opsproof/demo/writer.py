"""A client of the application that never rests: a message every 0.2 s, an attachment every second.

It stays within bounds, so that a demo forgotten for a month fills no disk: beyond 20,000 of its messages the oldest of
them are deleted (so rows keep coming and going), beyond 2,000 of its attachments it writes no more of those.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import random
import time
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

MESSAGES_KEPT = 20_000
ATTACHMENTS_KEPT = 2_000

_BEAT_SECONDS = 0.2
_BEATS_PER_ATTACHMENT = 5
_BEATS_PER_LOOK = 100
_LONGEST_PAUSE = 5.0
_WORDS = ("order", "delivered", "paid", "packed", "invoice", "reminder", "returned", "quote", "confirmed", "stock")


class Writer:
    """Writes through the application's HTTP interface, one beat at a time."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname or "127.0.0.1", address.port, timeout=10)
        self._random = random.Random()  # noqa: S311 - words of sample messages, nothing secret
        self._may_attach = False

    def beat(self, number: int) -> None:
        """Write what is due at this beat.

        Raises:
            OSError, http.client.HTTPException: The application does not answer, or not as it should.
        """
        if number % _BEATS_PER_LOOK == 0:
            self._keep_bounds()
        self._post("/messages", "application/json", json.dumps(self._message(number)).encode())
        if number % _BEATS_PER_ATTACHMENT == 0 and self._may_attach:
            name = f"note-{datetime.now(UTC):%Y%m%dT%H%M%S}.txt"
            self._post(f"/attachments?name={quote(name)}", "text/plain", self._note())

    def close(self) -> None:
        """Forget the connection: the next beat makes a new one."""
        self._connection.close()

    def _keep_bounds(self) -> None:
        counts = self._request("GET", "/counts", {}, b"")
        self._may_attach = counts["notes"] < ATTACHMENTS_KEPT
        if counts["notifications"] > MESSAGES_KEPT:
            self._post("/messages/prune", "application/json", json.dumps({"keep": MESSAGES_KEPT}).encode())

    def _message(self, number: int) -> dict[str, str]:
        return {
            "subject": f"S{self._random.randrange(1, 5_001):05d} {self._random.choice(_WORDS)}",
            "body": f"<p>{number}: {' '.join(self._random.choices(_WORDS, k=20))}</p>",
        }

    def _note(self) -> bytes:
        """Return a text of 1 to 20 kB."""
        lines = self._random.randrange(15, 300)
        return "".join(" ".join(self._random.choices(_WORDS, k=9)) + "\n" for _ in range(lines)).encode()

    def _post(self, path: str, mimetype: str, body: bytes) -> None:
        self._request("POST", path, {"Content-Type": mimetype}, body)

    def _request(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        self._connection.request(method, path, body=body, headers=headers)
        response = self._connection.getresponse()
        told = response.read()
        if response.status >= 300:
            raise http.client.HTTPException(f"{method} {path}: HTTP {response.status} {told[:200]!r}")
        try:
            return json.loads(told)
        except ValueError as error:
            raise http.client.HTTPException(f"{method} {path}: {told[:200]!r} is not JSON") from error


def main() -> None:
    """Write until killed; wait while the application is down."""
    parser = argparse.ArgumentParser(description="A client of the demo's application that keeps writing.")
    parser.add_argument("--url", required=True, help="where the application answers")
    writer = Writer(parser.parse_args().url)
    pause = _BEAT_SECONDS
    for number in itertools.count():
        try:
            writer.beat(number)
        except (OSError, http.client.HTTPException) as error:
            if pause == _BEAT_SECONDS:
                print(f"waiting for the application: {error}", flush=True)
            writer.close()
            pause = min(pause * 2, _LONGEST_PAUSE)
        else:
            pause = _BEAT_SECONDS
        time.sleep(pause)


if __name__ == "__main__":
    main()
