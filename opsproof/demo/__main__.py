"""The demo's command: `python -m opsproof.demo start|stop|reset|status`."""

from __future__ import annotations

import argparse
import sys

from opsproof.demo.folder import find_folder
from opsproof.demo.lifecycle import reset, start, status, stop
from opsproof.errors import OpsproofError


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 3 (`status` only) not everything answers."""
    parser = argparse.ArgumentParser(
        prog="python -m opsproof.demo",
        description="The embedded environment: PostgreSQL, S3 and a supervised application.",
    )
    parser.add_argument("command", choices=["start", "stop", "reset", "status"])
    command = parser.parse_args(arguments).command
    try:
        if command == "start":
            inventory = start(_say)
            print(f"the demo runs; its inventory is {inventory}")
        elif command == "stop":
            print("the demo is stopped" if stop(_say) else "the demo was not running")
        elif command == "reset":
            print("the demo is wiped" if reset(_say) else "there was no demo")
        else:
            return _show_status()
    except OpsproofError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; `python -m opsproof.demo start` takes it up again", file=sys.stderr)
        return 130
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _show_status() -> int:
    found = status()
    print(f"folder: {find_folder().path}")
    for one in found:
        print(f"{one.name:<12} {one.state:<9} {'answers' if one.answers else 'silent':<8} {one.address}".rstrip())
    return 0 if all(one.answers for one in found) else 3


if __name__ == "__main__":
    sys.exit(main())
