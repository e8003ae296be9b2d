"""Whether an application answers: a 2xx over HTTP, from itself and from nowhere else."""

from __future__ import annotations

import time
from collections.abc import Callable

from opsproof.errors import ProofError
from opsproof.system.hosts.web import Answer, Ask, ask_here

# The first request to an Odoo loads its registry, which takes this long on a slow host.
_REQUEST_SECONDS = 30.0
_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE = 1.0


def wait_until_healthy(
    url: str, timeout: float, meanwhile: Callable[[], None] = lambda: None, *, ask: Ask = ask_here
) -> float:
    """Ask until the first 2xx, and return the seconds until then.

    A refused connection, silence and every other HTTP status are tried again: an application that starts gives them
    all.

    Args:
        url: `http://` or `https://`.
        timeout: Seconds until it has to be healthy.
        meanwhile: Called after each answer that is not healthy; what it raises ends the wait.
        ask: Asks once, see `opsproof.system.hosts.web.asker_of`.

    Raises:
        ProofError: It was not in time; carries the last answer.
        HostError: The host that has to ask cannot be reached, or has no python3.
    """
    began = time.monotonic()
    deadline = began + timeout
    pause = _PAUSE_SECONDS
    while True:
        answer = ask(url, min(_REQUEST_SECONDS, max(deadline - time.monotonic(), _PAUSE_SECONDS)))
        now = time.monotonic()
        if answer.is_healthy:
            return now - began
        if now + pause >= deadline:
            raise _unhealthy(url, f"{url} is not healthy after {timeout:.0f} s", answer)
        meanwhile()
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE)


def check_health(url: str, *, ask: Ask = ask_here) -> None:
    """Ask once.

    Args:
        url: `http://` or `https://`.
        ask: Asks, see `opsproof.system.hosts.web.asker_of`.

    Raises:
        ProofError: The answer is not a 2xx, or there is none; carries the answer.
        HostError: The host that has to ask cannot be reached, or has no python3.
    """
    answer = ask(url, _REQUEST_SECONDS)
    if not answer.is_healthy:
        raise _unhealthy(url, f"{url} is not healthy", answer)


def _unhealthy(url: str, summary: str, answer: Answer) -> ProofError:
    return ProofError(
        summary,
        expected="an answer with an HTTP status of 200 to 299",
        found=answer.shown,
        hint=f"curl -i '{url}', and the log of the service",
    )
