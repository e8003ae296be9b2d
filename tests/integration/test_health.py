"""Health over HTTP, against a server whose answers a test decides."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from opsproof.errors import ProofError
from opsproof.inspection.health import check_health, wait_until_healthy
from opsproof.system.hosts import web_agent
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.transport import close_connections
from opsproof.system.hosts.web import ask_here, asker_of
from opsproof.target import Connection
from tests.lab.ssh_server import SshServer, ssh_server

__all__ = ["ssh_server"]


@dataclass(frozen=True)
class Answer:
    """One answer; `length` is the Content-Length that it claims, its own where that is None."""

    status: int
    body: bytes = b""
    location: str = ""
    length: int | None = None


@dataclass
class Page:
    """A server's one address, and the paths that it was asked for."""

    url: str
    asked: list[str] = field(default_factory=list)


@contextmanager
def serving(answer: Callable[[str, int], Answer], port: int = 0) -> Iterator[Page]:
    """Serve on 127.0.0.1; `answer` gets the path and how many requests there have been before."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            given = answer(self.path, len(page.asked))
            page.asked.append(self.path)
            self.send_response(given.status)
            self.send_header("Content-Length", str(len(given.body) if given.length is None else given.length))
            if given.location:
                self.send_header("Location", given.location)
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(given.body)
                self.wfile.flush()
                if given.length is not None:
                    closing.wait(20)  # the rest never comes

        def log_message(self, *_: object) -> None:
            pass

    closing = threading.Event()
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        page = Page(f"http://127.0.0.1:{server.server_address[1]}/health")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield page
        finally:
            closing.set()
            server.shutdown()
            thread.join()


@contextmanager
def reserved() -> Iterator[tuple[str, int]]:
    """Hold a port on which nobody listens."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
        yield f"http://127.0.0.1:{port}/health", port


def refusal(url: str, timeout: float) -> tuple[ProofError, float]:
    """Return the error and the seconds that it took."""
    began = time.monotonic()
    with pytest.raises(ProofError) as caught:
        wait_until_healthy(url, timeout)
    assert caught.value.hint
    return caught.value, time.monotonic() - began


@pytest.mark.parametrize("status", [200, 204, 299])
def test_the_first_answer_that_is_well_ends_the_wait(status: int) -> None:
    with serving(lambda path, before: Answer(status)) as page:
        assert wait_until_healthy(page.url, 10) < 5
        check_health(page.url)
        assert page.asked == ["/health", "/health"]


def test_errors_are_tried_again_until_it_is_well() -> None:
    with serving(lambda path, before: Answer((503, 404, 500, 200)[before])) as page:
        took = wait_until_healthy(page.url, 30)
    assert len(page.asked) == 4
    # The pauses between the four: 0.1, 0.15 and 0.225 s.
    assert 0.47 < took < 10


def test_a_refused_connection_is_tried_again() -> None:
    took: list[float] = []
    with reserved() as (url, port):
        waiting = threading.Thread(target=lambda: took.append(wait_until_healthy(url, 30)))
        waiting.start()
        time.sleep(0.5)
        assert waiting.is_alive()
    with serving(lambda path, before: Answer(200), port):
        waiting.join(30)
    assert len(took) == 1
    assert 0.5 <= took[0] < 20


def test_an_error_has_the_last_answers_status_and_its_first_300_characters() -> None:
    body = ("KeyError: \x1b[31mé" + "x" * 500).encode()
    with serving(lambda path, before: Answer(500, body if before else b"the first")) as page:
        error, took = refusal(page.url, 0.6)
    assert 0.3 < took < 5
    assert error.summary == f"{page.url} is not healthy after 1 s"
    assert error.expected == "an answer with an HTTP status of 200 to 299"
    head, _, shown = error.found.partition("\n")
    assert head == "HTTP 500 Internal Server Error"
    assert shown == "KeyError:  [31mé" + "x" * (300 - 16)


def test_a_check_asks_once() -> None:
    with (
        serving(lambda path, before: Answer((503, 200)[before], b"not yet")) as page,
        pytest.raises(ProofError, match=r"/health is not healthy\n") as caught,
    ):
        check_health(page.url)
    assert caught.value.found == "HTTP 503 Service Unavailable\nnot yet"
    assert page.asked == ["/health"]


def test_nobody_there_is_said() -> None:
    with reserved() as (url, _):
        error, took = refusal(url, 0.3)
    assert took < 5
    assert "Connection refused" in error.found


def test_silence_ends_with_the_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error, took = refusal(f"http://127.0.0.1:{silent.getsockname()[1]}/", 0.7)
    assert 0.5 < took < 5
    assert "timed out" in error.found


def test_an_answer_whose_end_never_comes_ends_with_the_time() -> None:
    with serving(lambda path, before: Answer(503, b"half", length=1000)) as page:
        error, took = refusal(page.url, 0.5)
    assert took < 5
    assert error.found == "HTTP 503 Service Unavailable\nhalf"


def test_what_is_not_http_is_no_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def greet() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.sendall(b"SSH-2.0-OpenSSH\r\n")

        threading.Thread(target=greet, daemon=True).start()
        error, _ = refusal(f"http://127.0.0.1:{server.getsockname()[1]}/", 0.3)
        server.shutdown(socket.SHUT_RDWR)
    assert error.found.startswith("no answer: ")


def test_a_redirect_is_followed_on_the_same_server_only() -> None:
    with serving(lambda path, before: Answer(200)) as elsewhere:

        def answer(path: str, before: int) -> Answer:
            if path == "/away":
                return Answer(302, b"go", elsewhere.url)
            return Answer(303, location="/web") if path == "/health" else Answer(200)

        with serving(answer) as page:
            check_health(page.url)
            assert page.asked == ["/health", "/web"]
            with pytest.raises(ProofError) as caught:
                check_health(page.url.replace("/health", "/away"))
    assert caught.value.found == f"HTTP 302 Found to {elsewhere.url}\ngo"
    assert elsewhere.asked == []


def test_a_redirect_in_a_circle_is_an_answer_that_is_not_well() -> None:
    with serving(lambda path, before: Answer(302, location="/health")) as page, pytest.raises(ProofError) as caught:
        check_health(page.url)
    assert caught.value.found.startswith("HTTP 302 ")


def test_no_proxy_answers_in_the_applications_place(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda path, before: Answer(200)) as proxy, reserved() as (url, _):
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        with pytest.raises(ProofError, match="not healthy"):
            check_health(url)
    assert proxy.asked == []


class TestWhoAsks:
    """A page of the host itself is asked for on the host, by its own python3."""

    @pytest.fixture
    def asked(self, ssh_server: SshServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
        def must_not(*_: object) -> Answer:
            raise AssertionError("this machine asked")

        monkeypatch.setattr(web_agent, "ask", must_not)
        yield Host(ssh_server.connection)
        close_connections()

    def test_a_page_of_a_remote_host_s_own(self, asked: Host) -> None:
        with serving(lambda path, before: Answer(200 if before else 503, b"starts")) as page:
            ask = asker_of(asked, page.url)
            with pytest.raises(ProofError, match="is not healthy") as caught:
                check_health(page.url, ask=ask)
            assert caught.value.found == "HTTP 503 Service Unavailable\nstarts"
            assert wait_until_healthy(page.url, 10, ask=ask) < 5

    def test_nobody_listens_there(self, asked: Host) -> None:
        with reserved() as (url, _), pytest.raises(ProofError, match="is not healthy") as caught:
            check_health(url, ask=asker_of(asked, url))
        assert "no answer: [Errno 111] Connection refused" in caught.value.found

    @pytest.mark.parametrize("url", ["https://shop.example.com/web", "http://198.51.100.7:8069/"])
    def test_a_page_of_everybody_s_is_asked_for_from_here(self, ssh_server: SshServer, url: str) -> None:
        assert asker_of(Host(ssh_server.connection), url) is ask_here

    @pytest.mark.parametrize("kind", ["local", "docker"])
    def test_a_port_of_this_machine_s(self, kind: str) -> None:
        assert asker_of(Host(Connection(kind=kind, host="web")), "http://127.0.0.1:8069/") is ask_here
