"""A temporary folder on a host, for a file that a program there has to find on its disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from opsproof.errors import CommandFailed, HostError
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.pipe import READ_BYTES

HOURS = 3600.0
# It is there for as long as somebody holds this shell's input open; the end of the connection is the end of both.
_HOLD = (
    "folder=$(mktemp --directory --tmpdir opsproof-XXXXXXXX) || exit; trap 'rm -rf \"$folder\"' EXIT;"
    ' trap "exit 143" TERM HUP; printf "%s\\n" "$folder"; read -r line'
)


@contextmanager
def placed(host: Host, source: Path) -> Iterator[Path]:
    """Give a file of this machine a place on a host, for as long as the block lasts; on this machine it has one.

    Args:
        host: Where it is needed, as the account that will read it.
        source: The file.

    Raises:
        HostError: The host cannot be reached, or has no room.
    """
    if host.is_local:
        yield source
        return
    with host.pipe("sh", "-c", _HOLD, feed=True) as holder:
        folder = holder.read().decode().strip()
        if not folder:
            holder.finish()
            raise CommandFailed("the host made no temporary folder", found=holder.stderr)
        place = f"{folder}/{source.name}"
        try:
            _copy(host, source, place)
            yield Path(place)
        finally:
            # The shell removes the folder once it reads the end of its input.
            holder.end_input()
            while holder.read():
                pass


def _copy(host: Host, source: Path, place: str) -> None:
    try:
        with host.pipe("sh", "-c", 'cat >"$0"', place, feed=True) as pipe, source.open("rb") as file:
            while piece := file.read(READ_BYTES):
                pipe.write(piece)
            pipe.end_input()
            while pipe.read():
                pass
            pipe.finish(timeout=HOURS)
    except CommandFailed as error:
        raise HostError(
            f"{source.name} could not be written on {host.connection.host}",
            expected=f"{source.stat().st_size:,} bytes of room in {Path(place).parent.parent}, for the dump",
            found=error.found,
            kept="the live database and its files are as they were",
            hint=f"df -h {Path(place).parent.parent}   on the host; TMPDIR there is what the account has",
        ) from error
    size = int(host.run("stat", "--format=%s", place).stdout)
    if size != source.stat().st_size:
        raise HostError(
            f"{source.name} is not whole on {host.connection.host}",
            expected=f"{source.stat().st_size:,} bytes",
            found=f"{size:,} bytes",
            kept="the live database and its files are as they were",
            hint="run it again; see df and the journal of the host if it happens twice",
        )
