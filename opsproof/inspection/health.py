"""Whether an application answers: a 2xx over HTTP, from itself and from nowhere else."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO
from urllib.parse import urlsplit

from opsproof.errors import ProofError

# The first request to an Odoo loads its registry, which takes this long on a slow host.
_REQUEST_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE = 1.0
_SHOWN_CHARACTERS = 300


@dataclass(frozen=True)
class _Answer:
    """What came back: the HTTP status, or none where nobody answered, and what an error shows of it."""

    status: int | None
    shown: str

    @property
    def is_healthy(self) -> bool:
        return self.status is not None and 200 <= self.status < 300


class _OwnRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect to another page of the same server (Odoo's `/` to `/web`), and to nowhere else."""

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        if urlsplit(newurl)[:2] != urlsplit(req.full_url)[:2]:
            return None  # the redirect itself is then the answer
        return super().redirect_request(req, fp, code, msg, headers, newurl)


# No proxy of the environment's: it would answer in the application's place.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}), _OwnRedirects())


def wait_until_healthy(url: str, timeout: float, meanwhile: Callable[[], None] = lambda: None) -> float:
    """Ask until the first 2xx, and return the seconds until then.

    A refused connection, silence and every other HTTP status are tried again: an application that starts gives them
    all.

    Args:
        url: `http://` or `https://`.
        timeout: Seconds until it has to be healthy.
        meanwhile: Called after each answer that is not healthy; what it raises ends the wait.

    Raises:
        ProofError: It was not in time; carries the last answer.
    """
    began = time.monotonic()
    deadline = began + timeout
    pause = _PAUSE_SECONDS
    while True:
        answer = _ask(url, min(_REQUEST_SECONDS, max(deadline - time.monotonic(), _PAUSE_SECONDS)))
        now = time.monotonic()
        if answer.is_healthy:
            return now - began
        if now + pause >= deadline:
            raise _unhealthy(url, f"{url} is not healthy after {timeout:.0f} s", answer)
        meanwhile()
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def check_health(url: str) -> None:
    """Ask once.

    Raises:
        ProofError: The answer is not a 2xx, or there is none; carries the answer.
    """
    answer = _ask(url, _REQUEST_SECONDS)
    if not answer.is_healthy:
        raise _unhealthy(url, f"{url} is not healthy", answer)


def _ask(url: str, timeout: float) -> _Answer:
    request = urllib.request.Request(url, headers={"User-Agent": "opsproof", "Connection": "close"})  # noqa: S310 - the inventory's, held to http and https
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            return _Answer(response.status, "")
    except urllib.error.HTTPError as error:
        with error:
            return _Answer(error.code, _shown(error))
    except urllib.error.URLError as error:
        return _Answer(None, f"no answer: {error.reason}")
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        return _Answer(None, f"no answer: {error or type(error).__name__}")


def _shown(error: urllib.error.HTTPError) -> str:
    try:
        # Up to four bytes a character; what has come of it, for the rest may never come.
        body = error.fp.read1(_SHOWN_CHARACTERS * 4) if isinstance(error.fp, http.client.HTTPResponse) else b""
    except (OSError, http.client.HTTPException):
        body = b""
    text = "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in body.decode(errors="replace"))
    place = error.headers.get("Location") if 300 <= error.code < 400 else None
    head = f"HTTP {error.code} {error.reason}" + (f" to {place}" if place else "")
    return f"{head}\n{text.strip()[:_SHOWN_CHARACTERS]}".strip()


def _unhealthy(url: str, summary: str, answer: _Answer) -> ProofError:
    return ProofError(
        summary,
        expected="an answer with an HTTP status of 200 to 299",
        found=answer.shown,
        hint=f"curl -i '{url}', and the log of the service",
    )
