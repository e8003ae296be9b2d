"""An application that is ill with one of its two databases, as the runs of a ground see it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.lab.ground import ENVIRONMENT, Ground

HEALTH_SECONDS = 2


@contextmanager
def offended(ground: Ground, live: str) -> Iterator[None]:
    """Answer the question for its health with 500 for as long as the `old` or the `new` database is live."""
    data = ground.new if live == "new" else ground.old
    offence = str(data.tables["public.ir_attachment"][0])

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            try:
                status = 500 if ground.service.await_answer(1.0) == offence else 200
            except AssertionError:
                status = 503
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    inventory = ground.project.inventory
    written = inventory.read_text()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        groups = json.loads(written)
        variables = groups[ENVIRONMENT]["hosts"]["shop"]
        variables.update(health_url=f"http://127.0.0.1:{server.server_port}/", health_timeout=HEALTH_SECONDS)
        inventory.write_text(json.dumps(groups))
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield
        finally:
            inventory.write_text(written)
            server.shutdown()
            thread.join(10)
