"""The application's files: frozen around the snapshot, then streamed.

A content-addressed filestore (Odoo's: every file is named by the SHA-1 of its content, written once, never changed) is
frozen with hard links before the snapshot and again once it is open: every file that the snapshot names is then there,
in no time and no space, whatever the application's clean-up unlinks later. Any other folder is copied, and what changed
meanwhile is copied again after the dump.
"""

from __future__ import annotations

import hashlib
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from urllib.parse import quote

from opsproof.errors import CommandFailed, FilestoreError
from opsproof.system.files.farfiles import stream_files
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.pipe import READ_BYTES
from opsproof.target import FilestoreSettings

HOURS = 3600.0
VANISHED = ": No such file or directory"
UNKNOWN = "UNKNOWN"
FROZEN = ".{name}.opsproof-frozen"
SETTLING_ROUNDS = 5


@dataclass(frozen=True)
class FilestoreFacts:
    """The live folder: whose it is, and how much it holds when one looks."""

    path: str
    owner: str
    group: str
    mode: str
    files: int
    bytes: int


@dataclass(frozen=True)
class FileHeader:
    """A file of the filestore, before its content. `link` is a symbolic link's target."""

    path: str
    size: int
    link: str | None


class Filestore:
    """The folder of an application's files on its host.

    Args:
        host: The machine.
        settings: Where it is there.
        database: Whose backup freezes it: several may have one folder, and each freezes it for itself; None where
            nobody else has it.
    """

    def __init__(self, host: Host, settings: FilestoreSettings, database: str | None = None) -> None:
        self.host = host
        self.settings = settings
        self.path = settings.path
        name = self.path.name if database is None else quote(database, safe="")
        self.frozen = self.path.parent / FROZEN.format(name=name)

    def describe(self) -> FilestoreFacts:
        """Look at the live folder.

        Raises:
            FilestoreError: It is not there, is no folder, or cannot be read.
        """
        try:
            found = self.host.run("stat", "--format=%F|%U|%G|%a|%u|%g", "--", str(self.path)).stdout.strip().split("|")
        except CommandFailed as error:
            raise FilestoreError(
                f"Filestore not found: check {self.settings.origin}",
                expected=f"a folder {self.path}",
                found=error.found,
                kept="nothing was changed",
                hint="correct the path, or say `filestore: none` in the inventory if this application keeps no files",
            ) from error
        if found[0] != "directory":
            raise FilestoreError(
                f"The filestore {self.path} is a {found[0]}: check {self.settings.origin}",
                expected=f"a folder {self.path}",
                found=found[0],
                kept="nothing was changed",
                hint=f"name the folder itself: readlink -f {shlex.quote(str(self.path))}",
            )
        owner, group, mode, uid, gid = found[1:]
        # A file of an account that is gone has only its number.
        owner, group = uid if owner == UNKNOWN else owner, gid if group == UNKNOWN else group
        return FilestoreFacts(str(self.path), owner, group, mode, *self._measure(self.path))

    def exists(self) -> bool:
        """Tell whether there is anything at all where the live folder should be."""
        return self.host.run("test", "-e", str(self.path), accept=(0, 1)).status == 0

    def remove_leftover(self) -> bool:
        """Remove what a killed run left frozen; only where the target's lock is held. Tells whether there was any."""
        if self.host.run("test", "-e", str(self.frozen), accept=(0, 1)).status != 0:
            return False
        self.thaw()
        return True

    def freeze(self) -> None:
        """Link (or copy) every file into a folder beside the live one, before the snapshot is taken.

        Raises:
            FilestoreError: The folder cannot be written, or a file cannot be read.
        """
        try:
            self.host.run("mkdir", "--mode=0700", str(self.frozen))
            self._gather()
        except CommandFailed as error:
            raise self._explain(error, "freeze") from error

    def complete(self) -> None:
        """Gather what has come, or changed, since the last pass.

        Raises:
            FilestoreError: A file that is not content-addressed keeps changing.
        """
        try:
            self._gather()
            if not self.settings.content_addressed:
                self._settle()
        except CommandFailed as error:
            raise self._explain(error, "freeze") from error

    def thaw(self) -> None:
        """Remove the frozen folder. The live files are other links to the same content, and stay."""
        self.host.run("rm", "--recursive", "--force", "--", str(self.frozen), timeout=HOURS)

    def is_frozen(self) -> bool:
        """Tell whether the frozen folder is there."""
        return self.host.run("test", "-e", str(self.frozen), accept=(0, 1)).status == 0

    def measure(self) -> tuple[int, int]:
        """Return the number of frozen files and their bytes."""
        return self._measure(self.frozen)

    def stream(self) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
        """Yield every frozen file and its content, which must be read before the next; sorted by name.

        Raises:
            FilestoreError: A file cannot be read.
        """
        try:
            if self.host.is_local:
                yield from _files_in(str(self.frozen), "")
            else:
                for one, content in stream_files(self.host, str(self.frozen)):
                    yield FileHeader(one.path, one.size, one.link), content
        except OSError as error:
            raise self._explain(CommandFailed("a file cannot be read", found=str(error)), "read") from error
        except CommandFailed as error:
            raise self._explain(error, "read") from error

    def _gather(self) -> None:
        # --force: a file that was removed and came again since the first pass is another one of the same name.
        how = ("--link", "--force") if self.settings.content_addressed else ("--update", "--reflink=auto")
        self._copy("--no-target-directory", *how, "--", str(self.path), str(self.frozen))

    def _copy(self, *arguments: str) -> None:
        done = self.host.run("cp", "--archive", *arguments, timeout=HOURS, accept=(0, 1))
        lines = done.stderr.strip().splitlines()
        if done.status == 1 and not (lines and all(line.endswith(VANISHED) for line in lines)):
            raise CommandFailed("cp ended with exit status 1", found="\n".join(lines[-20:]))

    def _settle(self) -> None:
        """Copy again what changed while it was copied, until nothing did."""
        for _ in range(SETTLING_ROUNDS):
            live, copy = self._stamps(self.path), self._stamps(self.frozen)
            changing = [path for path, stamp in live.items() if path in copy and copy[path] != stamp]
            if not changing:
                return
            for path in changing:
                self._copy("--reflink=auto", "--", str(self.path / path), str(self.frozen / path))
        raise FilestoreError(
            f"A file of {self.path} keeps changing while it is copied",
            expected="a moment in which no file is being written",
            found=", ".join(path.encode(errors="replace").decode() for path in changing[:10]),
            kept="no backup was written",
            hint="stop what writes it during the backup, or leave it out of the filestore",
        )

    def _stamps(self, folder: PurePosixPath) -> dict[str, str]:
        stamps = (line.split(" ", 2) for line in self._find(folder, "%s %T@ %P\\0").split("\0") if line)
        return {path: f"{size} {changed}" for size, changed, path in stamps}

    def _measure(self, folder: PurePosixPath) -> tuple[int, int]:
        sizes = [int(size) for size in self._find(folder, "%s\\n").split()]
        return len(sizes), sum(sizes)

    def _find(self, folder: PurePosixPath, form: str) -> str:
        argv = ("find", str(folder), "-type", "f", "-printf", form)
        done = self.host.run(*argv, timeout=HOURS, accept=(0, 1))
        # A file that vanishes while one looks is no fault; a folder that may not be read is.
        faults = [line for line in done.stderr.splitlines() if not line.endswith(VANISHED)]
        if faults:
            raise self._explain(CommandFailed("find failed", found="\n".join(faults[:20])), "read")
        return done.stdout

    def _explain(self, error: CommandFailed, verb: str) -> FilestoreError:
        hints = {
            "Operation not permitted": "run as the owner of the files: the kernel lets nobody else link them"
            " (fs.protected_hardlinks)",
            "Permission denied": f"run as the owner of {self.path}, who can write in {self.path.parent}",
            "cross-device link": f"{self.path} must not be the root of a disk: mount that one folder higher",
            "No space left": f"free some room on the disk of {self.path}",
            "Read-only file system": f"{self.path.parent} must be writable for the moment of the backup",
        }
        hint = next((text for words, text in hints.items() if words in error.found), f"ls -ld {self.path}")
        return FilestoreError(
            f"The filestore {self.path} could not be {'read' if verb == 'read' else 'frozen'}",
            expected="every file readable, and a folder beside it writable",
            found=error.found,
            kept="no backup was written; the files are as they were",
            hint=hint,
        )


class Digest:
    """SHA-1, which content-addressed names are made of, and SHA-256 of one file."""

    def __init__(self) -> None:
        self._sha1 = hashlib.sha1(usedforsecurity=False)
        self._sha256 = hashlib.sha256()

    def through(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        """Pass chunks on, hashing them."""
        for chunk in chunks:
            self._sha1.update(chunk)
            self._sha256.update(chunk)
            yield chunk

    @property
    def sha1(self) -> str:
        """Hex SHA-1 of what has passed."""
        return self._sha1.hexdigest()

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of what has passed."""
        return self._sha256.hexdigest()


def _files_in(folder: str, prefix: str) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
    with os.scandir(folder) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        path = prefix + entry.name
        if entry.is_symlink():
            link = os.readlink(entry.path)  # noqa: PTH115 - a Path would tidy up what it says
            yield FileHeader(path, 0, link), iter(())
        elif entry.is_dir():
            yield from _files_in(entry.path, path + "/")
        elif entry.is_file():
            # A Path would intern each name, and half a million names make a big table.
            with open(entry.path, "rb", buffering=0) as file:  # noqa: PTH123
                yield FileHeader(path, os.fstat(file.fileno()).st_size, None), iter(partial(file.read, READ_BYTES), b"")
