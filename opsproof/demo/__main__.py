"""The demo's command: `python -m opsproof.demo start|stop|reset|status|release`."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from opsproof.demo.folder import find_folder
from opsproof.demo.lifecycle import reset, start, status, stop
from opsproof.demo.releases import RELEASES, write_release
from opsproof.errors import OpsproofError


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit status: 0 done, 1 failed, 3 (`status` only) not everything answers."""
    options = _parser().parse_args(arguments)
    command = options.command
    try:
        if command == "start":
            inventory = start(_say)
            print(f"the demo runs; its inventory is {inventory}")
        elif command == "stop":
            print("the demo is stopped" if stop(_say) else "the demo was not running")
        elif command == "release":
            write_release(options.name, options.folder)
            print(f"release {options.name} of the demo's application is in {options.folder}; deploy it:")
            print(f"./bootstrap demo pytest actions/test_deploy.py --release={shlex.quote(str(options.folder))}")
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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m opsproof.demo",
        description="The embedded environment: PostgreSQL, S3 and a supervised application.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("start", help="start what is not running of it")
    commands.add_parser("stop", help="stop it; database and files stay, what is in the bucket goes")
    commands.add_parser("reset", help="stop it and remove all of it")
    commands.add_parser("status", help="how each program does, and where it listens")
    release = commands.add_parser(
        "release",
        help="write a release of its application, for actions/test_deploy.py --release=FOLDER",
        epilog="; ".join(f"{one.name}: {one.says}" for one in RELEASES),
    )
    release.add_argument("name", choices=[one.name for one in RELEASES])
    release.add_argument("folder", type=Path, help="a new or an empty one")
    return parser


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
