"""How many answers a deploy costs that changes no database, against a bare restart of the service.

    python benchmarks/deploy.py                  ten runs of each
    python benchmarks/deploy.py --runs=3

A client asks /health every 10 ms, each time anew, while `pytest actions/test_deploy.py` deploys a release that has no
migration; and while `supervisorctl restart` restarts the service. Counted are the answers that were none, or not 200.
"""

from __future__ import annotations

import argparse
import http.client
import os
import sys
import threading
import time
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.lab.deployable import Deployable, deployable
from tests.lab.postgres_server import KINDS, running_postgres

PAUSE_SECONDS = 0.01
ANSWER_SECONDS = 1.0
# After the end of what is measured: nobody may say that it was over while the service was still down.
LINGER_SECONDS = 1.0


class Client:
    """Asks every 10 ms for as long as the block lasts; `failed` counts the answers that were none."""

    def __init__(self, url: str) -> None:
        self.asked = self.failed = 0
        self._place = urlsplit(url)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask_on)

    def __enter__(self) -> Client:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(LINGER_SECONDS)
        self._over.set()
        self._thread.join()

    def _ask_on(self) -> None:
        while not self._over.wait(PAUSE_SECONDS):
            self.asked += 1
            self.failed += not self._is_answered()

    def _is_answered(self) -> bool:
        connection = http.client.HTTPConnection(self._place.hostname or "", self._place.port, timeout=ANSWER_SECONDS)
        try:
            connection.request("GET", self._place.path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


def main() -> None:
    """Run the benchmark, print what was counted, and fail where a deploy costs more than a restart."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="how often each is done")
    parser.add_argument("--server", choices=KINDS, default="wheel", help="whose PostgreSQL")
    options = parser.parse_args()
    with running_postgres(options.server) as server, deployable(server) as shop:
        shop.must_deploy(shop.write_release("0"))
        restarts, deploys = [], []
        # In turns, so that whatever else the machine does meets both.
        for number in range(options.runs):
            restarts.append(restart(shop))
            deploys.append(deploy(shop, f"{number + 1}"))
            load = os.getloadavg()[0]
            print(f"failed answers: restart {restarts[-1]}, deploy {deploys[-1]}; load {load:.1f}", flush=True)
    bare, ours = median(restarts), median(deploys)
    print(f"\nmedians of {options.runs}: a bare restart {bare:g}, a deploy {ours:g} failed answers", flush=True)
    if ours > bare:
        raise SystemExit("a deploy without a change of the database costs more answers than a bare restart")


def restart(shop: Deployable) -> int:
    """Restart the service by hand; return how many answers failed."""
    with Client(shop.service.url) as client:
        shop.service.control("restart", shop.service.name)
        shop.service.await_answer()
    return client.failed


def deploy(shop: Deployable, version: str) -> int:
    """Deploy; return how many answers failed."""
    release = shop.write_release(version)
    with Client(shop.service.url) as client:
        shop.must_deploy(release)
        shop.service.await_answer()
    return client.failed


if __name__ == "__main__":
    main()
