"""The application's web server.

GET  /                    a page with counts and the latest messages
GET  /health              200 when the database answers and every addon can work on it, 503 when not
GET  /counts              the counts as JSON
POST /messages            {"subject": ..., "body": ...}
POST /messages/prune      {"keep": N}: delete all but the latest N notifications
POST /attachments?name=N  the body is the file
GET  /attachments/ID      the file

and what the release's addons have besides.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg

from . import filestore
from .addons import Answer, BadRequest, Page, find_addons
from .records import Records
from .settings import Settings, settings_from_arguments

_LARGEST = 32 * 1024 * 1024
_PACKAGE = Path(__file__).resolve().parent


class Application(ThreadingHTTPServer):
    """One database, one filestore, one port; and the release that it was started in, whatever is deployed later."""

    daemon_threads = True

    def __init__(self, settings: Settings) -> None:
        super().__init__((settings.http_interface, settings.http_port), Handler)
        self.settings = settings
        self.records = Records(settings)
        self.addons = find_addons(str(_PACKAGE))
        self.version = _read_version()


class Handler(BaseHTTPRequestHandler):
    """One connection of a client."""

    server: Application
    server_version = "shop"
    protocol_version = "HTTP/1.1"
    timeout = 60
    # Headers and body are two writes: unless the first is sent at once, the client's delayed ACK costs 40 ms.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer a GET."""
        own = {"": self._page, "health": self._health, "counts": self._counts, "attachments": self._download}
        self._route({**self._of_addons([one.get for one in self.server.addons]), **own})

    def do_POST(self) -> None:
        """Answer a POST."""
        own = {"messages": self._message, "attachments": self._attachment}
        self._route({**self._of_addons([one.post for one in self.server.addons]), **own})

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the parameter's name in http.server
        """Log what went wrong, and not the five requests a second that went well."""
        if len(args) < 2 or str(args[1]) >= "400":
            super().log_message(format, *args)

    def _route(self, handlers: dict[str, Any]) -> None:
        address = urlsplit(self.path)
        first, _, rest = address.path.strip("/").partition("/")
        try:
            # Read in any case: what is left of a body would be taken for the connection's next request.
            body = self._body()
            if first not in handlers:
                self._send_json(404, {"error": "no such page"})
                return
            handlers[first](rest, {key: values[0] for key, values in parse_qs(address.query).items()}, body)
        except BadRequest as error:
            self._send_json(400, {"error": str(error)})
        except psycopg.Error as error:
            self.log_error("the database does not answer, or not as it should: %s", str(error).strip())
            self._send_json(503, {"status": "fail", "error": str(error).strip()})
        except OSError as error:
            self.log_error("%s", error)
            self.close_connection = True

    def _health(self, _rest: str, _query: dict[str, str], _body: bytes) -> None:
        database = self.server.records.database()
        for addon in self.server.addons:
            addon.check(self.server.records)
        self._send_json(200, {"status": "pass", "database": database, "version": self.server.version})

    def _counts(self, _rest: str, _query: dict[str, str], _body: bytes) -> None:
        self._send_json(200, self.server.records.counts())

    def _page(self, _rest: str, _query: dict[str, str], _body: bytes) -> None:
        counts = "".join(f"<li>{number} {what}</li>" for what, number in self.server.records.counts().items())
        messages = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.server.records.recent_messages(10)
        )
        links = "".join(f'<a href="/{name}">{name}</a> ' for one in self.server.addons for name in one.get)
        title = f"<title>Shop</title><h1>Shop {html.escape(self.server.version)}</h1>"
        page = f"<!doctype html>{title}<p>{links}</p><ul>{counts}</ul><table>{messages}</table>"
        self._send(200, "text/html; charset=utf-8", page.encode())

    def _message(self, rest: str, _query: dict[str, str], body: bytes) -> None:
        fields = _json_object(body)
        try:
            if rest == "prune":
                self._send_json(200, {"deleted": self.server.records.prune_notifications(int(fields["keep"]))})
                return
            number = self.server.records.add_message(str(fields["subject"]), str(fields["body"]))
        except (KeyError, ValueError, TypeError) as error:
            raise BadRequest(f"a field is missing or wrong: {error}") from error
        self._send_json(201, {"id": number})

    def _attachment(self, _rest: str, query: dict[str, str], body: bytes) -> None:
        stored = filestore.write_file(self.server.settings, body)
        mimetype = self.headers.get("Content-Type") or "application/octet-stream"
        # The file first: a row must never name a file that is not there.
        number = self.server.records.add_attachment(query.get("name", "unnamed"), mimetype, stored, len(body))
        self._send_json(201, {"id": number, "store_fname": stored})

    def _download(self, rest: str, _query: dict[str, str], _body: bytes) -> None:
        row = self.server.records.attachment(int(rest)) if rest.isdecimal() and len(rest) < 10 else None
        if row is None:
            self._send_json(404, {"error": "no such attachment"})
            return
        try:
            content = filestore.read_file(self.server.settings, row.stored)
        except FileNotFoundError:
            self._send_json(404, {"error": f"{row.stored} is not in the filestore"})
            return
        self._send(200, row.mimetype, content)

    def _of_addons(self, pages: list[Mapping[str, Page]]) -> dict[str, Any]:
        return {name: self._of_addon(page) for one in pages for name, page in one.items()}

    def _of_addon(self, page: Page) -> Callable[[str, dict[str, str], bytes], None]:
        def answer(_rest: str, _query: dict[str, str], body: bytes) -> None:
            told: Answer = page(self.server.records, body)
            if told.is_html:
                self._send(told.status, "text/html; charset=utf-8", str(told.content).encode())
            else:
                self._send_json(told.status, told.content)

        return answer

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length") or "0"
        if not length.isdecimal() or int(length) > _LARGEST:
            self.close_connection = True  # what comes next on it is the body, and not a request
            raise BadRequest(f"Content-Length must be a number up to {_LARGEST}")
        body = self.rfile.read(int(length))
        if len(body) != int(length):
            self.close_connection = True
            raise BadRequest("the body ended early")
        return body

    def _send_json(self, status: int, value: object) -> None:
        self._send(status, "application/json", json.dumps(value).encode() + b"\n")

    def _send(self, status: int, mimetype: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", mimetype.replace("\r", "").replace("\n", ""))
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def main() -> None:
    """Serve until killed."""
    with Application(settings_from_arguments("The demo's web application.")) as application:
        application.serve_forever()


def _read_version() -> str:
    """Return what the release's file REVISION says; empty where the package is in no release."""
    path = _PACKAGE.parent / "REVISION"
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadRequest("the body is not a JSON object")
    return value


if __name__ == "__main__":
    main()
