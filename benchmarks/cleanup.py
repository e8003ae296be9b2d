"""Plan a cleanup of ten thousand backups in a bucket: seconds and requests, without an index and with one.

    python benchmarks/cleanup.py                       ten thousand backups, twenty thousand objects
    python benchmarks/cleanup.py --server=swift        the same in OpenStack Swift, which takes minutes to fill
    python benchmarks/cleanup.py --backups=1000

The bucket is moto's or Swift's, in processes of their own on this machine. With the index, planning may take one
request per thousand objects, one for the index, and five for the bucket's settings; and five seconds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from opsproof.archive.catalogue.index import write_index
from opsproof.archive.catalogue.retention import Rules
from opsproof.policies import Retention
from opsproof.procedures.cleanup.stocktaking import Stock, take_stock
from tests.lab.full_bucket import FullBucket, counted_requests, full_bucket, full_swift

RULES = Rules(Retention(daily=7, weekly=4, monthly=12, yearly=5))
MOST_SECONDS = 5.0
SETTINGS = 5
SERVERS = {"moto": full_bucket, "swift": full_swift}


def main() -> None:
    """Run the benchmark, print what was measured, and fail where it is more than it may be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backups", type=int, default=10_000, help="how many")
    parser.add_argument("--server", choices=SERVERS, default="moto", help="whose bucket")
    parser.add_argument("--runs", type=int, default=3, help="how often it is planned with the index")
    options = parser.parse_args()
    with SERVERS[options.server](options.backups) as full:
        stock, _, _ = measured("without an index", full)
        write_index(full.store, stock.contents.lines.values(), datetime.now(UTC))
        runs = [measured("with the index", full)[1:] for _ in range(options.runs)]
    most = -(-(2 * options.backups + 1) // 1000) + 1 + SETTINGS
    seconds, requests = min(runs)
    if seconds > MOST_SECONDS or requests > most:
        raise SystemExit(f"more than {MOST_SECONDS} s or {most} requests")


def measured(how: str, full: FullBucket) -> tuple[Stock, float, int]:
    """Take stock once, print and return what it took."""
    started, worked, served = time.monotonic(), time.process_time(), full.processor_seconds()
    with counted_requests() as sent:
        stock = take_stock(full.target, full.store, RULES, {}, datetime.now(UTC))
        lines = list(stock.plan())
    seconds, worked = time.monotonic() - started, time.process_time() - worked
    served = full.processor_seconds() - served
    there = f", {served:.2f} s in the server" if full.process else ""
    print(
        f"{how}: {len(stock.holdings):,} backups, {len(stock.going):,} to go, a plan of {len(lines):,} lines:"
        f" {seconds:.2f} s (of a processor {worked:.2f} s here{there}), {len(sent):,} requests,"
        f" {stock.contents.read:,} manifests read, load {os.getloadavg()[0]:.1f}",
        flush=True,
    )
    return stock, seconds, len(sent)


if __name__ == "__main__":
    main()
