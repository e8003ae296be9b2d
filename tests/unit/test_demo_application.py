"""The demo's application and its writer, without a database."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import threading
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from opsproof.demo.application import filestore
from opsproof.demo.application.documents import draw_documents
from opsproof.demo.application.sample import ATTACHMENTS, CONTACTS, MESSAGES, ORDERS, draw_sample
from opsproof.demo.application.server import Application
from opsproof.demo.application.settings import Settings, read_settings
from opsproof.demo.state import free_ports
from opsproof.demo.writer import ATTACHMENTS_KEPT, MESSAGES_KEPT, Writer


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings("127.0.0.1", free_ports(1)[0], "odoo", "demo", tmp_path, "127.0.0.1", 0, "no secret")
    made.filestore.mkdir(parents=True)
    return made


@pytest.fixture
def application(settings: Settings) -> Iterator[http.client.HTTPConnection]:
    with Application(settings) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
        yield connection
        connection.close()
        server.shutdown()
        thread.join()


def test_the_sample_is_the_same_every_time_and_as_big_as_said() -> None:
    first, second = draw_sample(), draw_sample()
    assert first == second
    sizes = [len(rows) for rows in (first.contacts, first.orders, first.messages, first.documents)]
    assert sizes == [CONTACTS, ORDERS, MESSAGES, ATTACHMENTS]
    assert 8_000_000 < sum(len(document.content) for document in first.documents) < 13_000_000
    rows = repr([first.contacts, first.orders, first.lines, first.messages]).encode()
    assert hashlib.sha256(rows).hexdigest() == "dbed7347c371db832897bd5561dee235c35588b282aa2b52d1da511d74811d30"


def test_an_order_costs_what_its_lines_cost() -> None:
    sample = draw_sample()
    lines: dict[object, object] = {}
    for _, order, _, _, quantity, price in sample.lines:
        lines[order] = lines.get(order, 0) + quantity * price  # type: ignore[operator]
    assert {row[0]: row[6] for row in sample.orders} == lines


def test_a_scan_is_a_png_whose_checksums_are_right() -> None:
    scan = next(one for one in draw_documents(random.Random(1), 4, orders=9) if one.mimetype == "image/png").content
    assert scan.startswith(b"\x89PNG\r\n\x1a\n")
    position, kinds = 8, []
    while position < len(scan):
        length = int.from_bytes(scan[position : position + 4], "big")
        chunk = scan[position + 4 : position + 8 + length]
        assert zlib.crc32(chunk) == int.from_bytes(scan[position + 8 + length : position + 12 + length], "big")
        kinds.append(chunk[:4])
        position += length + 12
    assert kinds == [b"IHDR", b"IDAT", b"IEND"]


def test_odoo_conf_false_means_not_set(tmp_path: Path) -> None:
    path = tmp_path / "odoo.conf"
    path.write_text(
        "[options]\ndb_host = False\ndb_user = odoo\ndb_password = 50%off\ndb_name = shop\ndata_dir = /srv/shop\n"
    )
    found = read_settings(path)
    assert (found.host, found.port, found.password) == ("", 5432, "50%off")
    assert found.filestore == Path("/srv/shop/filestore/shop")
    assert "50%off" not in repr(found)


def test_a_file_is_named_by_its_content_written_once_and_marked(settings: Settings) -> None:
    digest = hashlib.sha1(b"paper").hexdigest()
    name = filestore.write_file(settings, b"paper")
    assert name == f"{digest[:2]}/{digest}"
    before = (settings.filestore / name).stat()
    assert filestore.write_file(settings, b"paper") == name
    after = (settings.filestore / name).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert filestore.read_file(settings, name) == b"paper"
    assert (settings.filestore / "checklist" / name).read_bytes() == b""
    assert list((settings.data_dir / "incoming").iterdir()) == []


def test_a_filestore_that_was_moved_away_is_not_begun_anew(settings: Settings) -> None:
    settings.filestore.rename(settings.data_dir / "away")
    with pytest.raises(FileNotFoundError):
        filestore.write_file(settings, b"paper")
    assert not settings.filestore.exists()


def test_without_its_database_the_application_is_not_healthy(application: http.client.HTTPConnection) -> None:
    application.request("GET", "/health")
    response = application.getresponse()
    assert response.status == 503
    told = response.read()
    assert json.loads(told)["status"] == "fail"
    assert b"no secret" not in told


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/nothing-here", b"", 404),
        ("GET", "/attachments/one", b"", 404),
        ("GET", "/attachments/../../etc/passwd", b"", 404),
        ("POST", "/messages", b"not json", 400),
        ("POST", "/messages", b"[1]", 400),
        ("POST", "/messages", b'{"subject": "no body"}', 400),
        ("POST", "/messages/prune", b'{"keep": "many"}', 400),
        ("POST", "/reviews", b"not json", 400),
        ("POST", "/reviews", b'{"order": "S00042", "stars": 5}', 400),
        ("POST", "/reviews", b'{"order": "S00042", "stars": 6, "text": "more than good"}', 400),
    ],
)
def test_a_wrong_request_is_refused_and_the_connection_goes_on(
    application: http.client.HTTPConnection, method: str, path: str, body: bytes, status: int
) -> None:
    for _ in range(2):
        application.request(method, path, body=body)
        response = application.getresponse()
        response.read()
        assert response.status == status


@pytest.mark.parametrize(
    ("notifications", "notes", "expected"),
    [
        (0, 0, ["GET /counts", "POST /messages", "POST /attachments"]),
        (0, ATTACHMENTS_KEPT, ["GET /counts", "POST /messages"]),
        (MESSAGES_KEPT + 1, 0, ["GET /counts", "POST /messages/prune", "POST /messages", "POST /attachments"]),
    ],
)
def test_the_writer_stays_within_its_bounds(notifications: int, notes: int, expected: list[str]) -> None:
    asked: list[str] = []

    class Recorder(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            asked.append(f"{self.command} {self.path.partition('?')[0]}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            told = json.dumps({"notifications": notifications, "notes": notes}).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(told)))
            self.end_headers()
            self.wfile.write(told)

        do_GET = do_POST = answer  # noqa: N815 - the names that http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the parameter's name there
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Recorder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        writer = Writer(f"http://127.0.0.1:{server.server_address[1]}")
        writer.beat(0)
        writer.close()
        server.shutdown()
        thread.join()
    assert asked == expected
