"""Giving an application its files back on another machine: what `adding.py` does on this one."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath

from opsproof.errors import FilestoreError
from opsproof.system.files.adding import KEPT, TEMPORARY, FileAdder, Ownership, no_account
from opsproof.system.files.farfiles import FarFile, FarRefusal, WantedFile, add_files, compare_files
from opsproof.system.files.filestore import FileHeader
from opsproof.system.hosts.host import Host


class FarFileAdder:
    """Adds files below one folder of a host.

    Args:
        host: Where the folder is, as an account that may write in it, and give files away.
        root: The live filestore, or the folder that will take its place.
        ownership: Whose the files will be.

    Raises:
        FilestoreError: There is no such user or group there.
    """

    def __init__(self, host: Host, root: PurePosixPath, ownership: Ownership) -> None:
        self._host = host
        self._root = root
        self._ownership = ownership
        for kind, name in (("passwd", ownership.user), ("group", ownership.group)):
            if not name.isdigit() and host.run("getent", kind, name, accept=(0, 2)).status != 0:
                raise no_account(ownership, f"no {name} in {kind}")

    def compare_all(self, files: Iterable[WantedFile]) -> Iterator[str]:
        """Yield for each file, in their order, how it is there: `present`, `missing` or `wrong`.

        Raises:
            FilestoreError: What is there cannot be read.
        """
        with self._explained("read"):
            yield from compare_files(self._host, str(self._root), files)

    def add(self, files: Iterable[tuple[FileHeader, Iterator[bytes]]], progress: Callable[[int], None]) -> int:
        """Write files, each under a temporary name first; return their bytes.

        Raises:
            FilestoreError: One cannot be written; those before it stay, which harms nobody.
        """
        one = self._ownership
        far = ((FarFile(header.path, header.size, header.link), content) for header, content in files)
        with self._explained("written"):
            return add_files(self._host, str(self._root), (one.user, one.group, one.folder_mode), far, progress)

    @contextmanager
    def _explained(self, verb: str) -> Iterator[None]:
        try:
            yield
        except FarRefusal as error:
            place = shlex.quote(str(self._root))
            if error.kind in ("place", "link"):
                raise FilestoreError(
                    f"{error.found!r} is no place in a filestore",
                    expected="a relative name without '..', and no link on the way there",
                    found=error.found,
                    kept="nothing was written there",
                    hint="where it is a link, let the folder that it leads to take its place; else choose another"
                    " backup with --backup=ID",
                ) from error
            raise FilestoreError(
                f"The filestore {self._root} could not be {verb}" + (f": {error.strerror}" if error.strerror else ""),
                expected="a folder that this account can read and write, with room",
                found=error.found,
                kept=KEPT,
                hint=f"df -h {place}; df -i {place}; ls -ld {place}",
            ) from error


def adder_of(host: Host, root: PurePosixPath, ownership: Ownership) -> FileAdder | FarFileAdder:
    """Return what adds files below a folder, wherever that is.

    Raises:
        FilestoreError: There is no such user or group.
    """
    return FileAdder(root, ownership) if host.is_local else FarFileAdder(host, root, ownership)


def remove_unfinished_there(host: Host, root: PurePosixPath) -> list[str]:
    """Remove the files that a killed run was writing; return which. Only where the target's lock is held.

    Raises:
        HostError: One cannot be removed.
    """
    script = '[ ! -e "$0" ] || exec find "$0" -name "$1" -print0 -delete'
    found = host.run("sh", "-c", script, str(root), f"{TEMPORARY}-*", timeout=3600.0).stdout
    return [one for one in found.split("\0") if one]
