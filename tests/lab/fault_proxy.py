"""An HTTP proxy between a client and an S3 server that fails where it is told to.

It passes the Host header on as it came, so signatures stay valid.
"""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, cast
from urllib.parse import urlsplit

BLOCK = 1 << 16
UPSTREAM_SECONDS = 120

Kind = Literal["answer", "answer-after", "cut-request", "cut-response", "stall", "flip"]


@dataclass
class Fault:
    """What goes wrong, and with which requests.

    Attributes:
        kind: `answer`: the server never sees the request. `answer-after`: it does its work, and its reply is lost.
            `cut-request`: the connection is reset while the client sends. `cut-response`: while it reads. `stall`: no
            byte of a reply for `seconds`. `flip`: one byte of the reply's body is another.
        method: Of the requests that are meant; empty for all.
        path: A regular expression that is searched in the path.
        query: A regular expression that is searched in the query string.
        nth: The first of the matching requests that fails, from 1.
        times: How many fail from there on; None for all.
        status: What is answered, by `answer` and `answer-after`.
        code: S3's error code in that answer.
        location: Where that answer redirects to.
        at: Byte of the body at which to cut or to flip.
        seconds: How long to stall.
    """

    kind: Kind
    method: str = ""
    path: str = ""
    query: str = ""
    nth: int = 1
    times: int | None = None
    status: int = 500
    code: str = "InternalError"
    location: str = ""
    at: int = 0
    seconds: float = 0.0
    seen: int = field(default=0, init=False)
    struck: int = field(default=0, init=False)

    def strikes(self, method: str, path: str, query: str) -> bool:
        """Count the request if it matches, and tell whether it is to fail."""
        if self.method not in ("", method) or not re.search(self.path, path) or not re.search(self.query, query):
            return False
        self.seen += 1
        last = None if self.times is None else self.nth + self.times - 1
        if self.seen < self.nth or (last is not None and self.seen > last):
            return False
        self.struck += 1
        return True


@dataclass(frozen=True)
class Request:
    """One request that came by; `status` is what the client got, 0 for nothing."""

    method: str
    path: str
    query: str
    status: int
    headers: dict[str, str]


class FaultProxy:
    """The proxy's controls.

    Attributes:
        url: What a client takes for the server.
        requests: All requests so far, in the order of their ends.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self.upstream = (parts.hostname or "", parts.port or 80)
        self.requests: list[Request] = []
        self.stopping = threading.Event()
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self.server = _Server(("127.0.0.1", 0), _Handler)
        self.server.proxy = self
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def inject(self, fault: Fault) -> Fault:
        """Let requests fail from now on; returns the fault, whose `struck` tells how many did."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let all requests pass again."""
        with self._lock:
            self._faults.clear()

    def fault_for(self, method: str, path: str, query: str) -> Fault | None:
        """Return the fault that this request meets; every fault counts it."""
        with self._lock:
            return next((each for each in list(self._faults) if each.strikes(method, path, query)), None)

    def record(self, request: Request) -> None:
        """Keep what came by."""
        with self._lock:
            self.requests.append(request)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    proxy: FaultProxy

    def handle_error(self, request: object, client_address: object) -> None:
        """Stay silent: broken connections are this server's purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class names it so
        """Stay silent."""

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline(1 << 16)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        self._pass_on()

    def _pass_on(self) -> None:
        proxy = cast(_Server, self.server).proxy
        path, _, query = self.path.partition("?")
        fault = proxy.fault_for(self.command, path, query)
        status = 0
        try:
            status = self._serve(proxy, fault)
        except OSError:
            self.close_connection = True
        finally:
            proxy.record(Request(self.command, path, query, status, dict(self.headers)))

    def _serve(self, proxy: FaultProxy, fault: Fault | None) -> int:
        length = int(self.headers.get("Content-Length", 0))
        if fault and fault.kind == "cut-request":
            self.rfile.read(min(fault.at, length))
            self._reset()
            return 0
        if fault and fault.kind == "answer":
            self._drain(length)
            return self._answer(fault)
        if fault and fault.kind == "stall":
            proxy.stopping.wait(fault.seconds)
            self._reset()
            return 0
        upstream = http.client.HTTPConnection(*proxy.upstream, timeout=UPSTREAM_SECONDS)
        try:
            self._forward(upstream, length)
            reply = upstream.getresponse()
            if fault and fault.kind == "answer-after":
                reply.read()
                return self._answer(fault)
            return self._reply(reply, fault)
        finally:
            upstream.close()

    def _forward(self, upstream: http.client.HTTPConnection, length: int) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            # "100 Continue" was answered here already.
            if name.lower() not in ("expect", "connection"):
                upstream.putheader(name, value)
        upstream.endheaders()
        while length > 0 and (block := self.rfile.read(min(BLOCK, length))):
            upstream.send(block)
            length -= len(block)

    def _reply(self, reply: http.client.HTTPResponse, fault: Fault | None) -> int:
        self.send_response_only(reply.status, reply.reason)
        bodyless = self.command == "HEAD" or reply.status in (204, 304)
        sized = reply.getheader("Content-Length") is not None
        for name, value in reply.getheaders():
            if name.lower() not in ("connection", "transfer-encoding"):
                self.send_header(name, value)
        if not sized and not bodyless:
            # The end of the connection is then the end of the body.
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        position = 0
        while not bodyless and (block := reply.read(BLOCK)):
            end = position + len(block)
            if fault and position <= fault.at < end:
                offset = fault.at - position
                if fault.kind == "cut-response":
                    self.wfile.write(block[:offset])
                    self.wfile.flush()
                    # A reset makes the other side drop what it has not read yet.
                    time.sleep(0.05)
                    self._reset()
                    return reply.status
                if fault.kind == "flip":
                    block = block[:offset] + bytes([block[offset] ^ 0x20]) + block[offset + 1 :]
            self.wfile.write(block)
            position = end
        return reply.status

    def _answer(self, fault: Fault) -> int:
        body = (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Error><Code>{fault.code}</Code><Message>injected by the test</Message></Error>"
        ).encode()
        self.send_response_only(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        if fault.location:
            self.send_header("Location", fault.location)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
        return fault.status

    def _drain(self, length: int) -> None:
        while length > 0 and (block := self.rfile.read(min(BLOCK, length))):
            length -= len(block)

    def _reset(self) -> None:
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


@contextmanager
def running_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy before the server at `upstream`, an http URL."""
    proxy = FaultProxy(upstream)
    thread = threading.Thread(target=proxy.server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.stopping.set()
        proxy.server.shutdown()
        proxy.server.server_close()
        thread.join(10)
