"""What asks for a web page once; run on a host by its own python3 too, so it imports nothing of opsproof.

    URL SECONDS

Prints one line of JSON: `status`, null where nobody answered, and `shown`, what an error shows of the answer.
"""

from __future__ import annotations

import http.client
import json
import sys
import urllib.error
import urllib.request
from typing import IO
from urllib.parse import urlsplit

SHOWN_CHARACTERS = 300


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


def ask(url: str, timeout: float) -> tuple[int | None, str]:
    """Return the HTTP status, None where nobody answered, and what an error shows of the answer."""
    request = urllib.request.Request(url, headers={"User-Agent": "opsproof", "Connection": "close"})  # noqa: S310 - the inventory's, held to http and https
    try:
        with _OPENER.open(request, timeout=timeout) as response:
            return response.status, ""
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _shown(error)
    except urllib.error.URLError as error:
        return None, f"no answer: {error.reason}"
    except (OSError, http.client.HTTPException, ValueError, OverflowError) as error:
        return None, f"no answer: {error or type(error).__name__}"


def _shown(error: urllib.error.HTTPError) -> str:
    try:
        # Up to four bytes a character; what has come of it, for the rest may never come.
        body = error.fp.read1(SHOWN_CHARACTERS * 4) if isinstance(error.fp, http.client.HTTPResponse) else b""
    except (OSError, http.client.HTTPException):
        body = b""
    text = "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in body.decode(errors="replace"))
    place = error.headers.get("Location") if 300 <= error.code < 400 else None
    head = f"HTTP {error.code} {error.reason}" + (f" to {place}" if place else "")
    return f"{head}\n{text.strip()[:SHOWN_CHARACTERS]}".strip()


if __name__ == "__main__":
    _status, _said = ask(sys.argv[1], float(sys.argv[2]))
    print(json.dumps({"status": _status, "shown": _said}))
