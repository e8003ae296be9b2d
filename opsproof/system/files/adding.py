"""Giving an application its files back: missing ones added, wrong ones repaired, each by a rename.

A content-addressed filestore is only ever added to, so that whichever database is live finds all its files. Any other
folder is written anew beside the live one, and exchanged with it at the swap.
"""

from __future__ import annotations

import grp
import hashlib
import os
import pwd
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from opsproof.errors import FilestoreError
from opsproof.odoo import is_attachment_name
from opsproof.system.files.farfiles import WantedFile
from opsproof.system.files.filestore import FileHeader

READ_BYTES = 1 << 20
TEMPORARY = ".opsproof-adding"
EXECUTE = 0o111
KEPT = "the live files; those that were added already harm nobody"


@dataclass(frozen=True)
class Ownership:
    """Whose the files are, and the mode of folders; files get the same without the right to execute."""

    user: str
    group: str
    folder_mode: int

    @property
    def ids(self) -> tuple[int, int]:
        """Return the numbers of user and group.

        Raises:
            FilestoreError: There is no such user or group here.
        """
        try:
            uid = int(self.user) if self.user.isdigit() else pwd.getpwnam(self.user).pw_uid
            gid = int(self.group) if self.group.isdigit() else grp.getgrnam(self.group).gr_gid
        except KeyError as error:
            raise no_account(self, str(error.args[0])) from error
        return uid, gid


def no_account(ownership: Ownership, found: str) -> FilestoreError:
    """Say that files cannot be given to somebody whom the host does not know."""
    return FilestoreError(
        f"The files cannot be given to {ownership.user}:{ownership.group}",
        expected="a user and a group that exist on the host",
        found=found,
        kept="nothing was changed",
        hint="correct filestore_owner in the inventory, or make the account: adduser --system --group NAME",
    )


@dataclass(frozen=True)
class FilesAdded:
    """What became of the files: how many were there already, were added, were repaired; bytes written."""

    present: int
    added: int
    repaired: int
    bytes: int


class FileAdder:
    """Adds files below one folder.

    Args:
        root: The live filestore, or the folder that will take its place.
        ownership: Whose the files will be.
    """

    def __init__(self, root: PurePosixPath, ownership: Ownership) -> None:
        self.root = Path(root)
        self._ownership = ownership
        self._ids = ownership.ids

    def compare_all(self, files: Iterable[WantedFile]) -> Iterator[str]:
        """Yield for each file, in their order, how it is there; see `compare`."""
        for one in files:
            yield self.compare(one.path, one.sha256, one.size, one.link)

    def compare(self, path: str, sha256: str, size: int, link: str | None) -> str:
        """Tell whether a file is there as it must be: `present`, `missing` or `wrong`. It is read to its end.

        Args:
            path: Below the root.
            sha256: Of its content; empty where only its name tells what it must be.
            size: Its bytes.
            link: A symbolic link's target.

        Raises:
            FilestoreError: What is there cannot be read.
        """
        place = self._place(path)
        try:
            return self._compare(place, path, sha256, size, link)
        except OSError as error:
            raise FilestoreError(
                f"{place} could not be read: {error.strerror}",
                expected="a filestore that this account can read",
                found=str(error),
                kept=KEPT,
                hint=f"ls -l {shlex.quote(str(place.parent))}; where the disk fails, dmesg says so",
            ) from error

    def _compare(self, place: Path, path: str, sha256: str, size: int, link: str | None) -> str:
        if link is not None:
            return "present" if place.is_symlink() and os.readlink(place) == link else self._absent_or_wrong(place)  # noqa: PTH115
        if place.is_symlink() or not place.is_file():
            return self._absent_or_wrong(place)
        if place.stat().st_size == size and _is_content(place, path, sha256):
            return "present"
        # A backup may have been taken while the file was damaged: what is what its name says is not replaced by that.
        return "present" if is_attachment_name(path) and _is_content(place, path, "") else "wrong"

    def add(self, files: Iterable[tuple[FileHeader, Iterator[bytes]]], progress: Callable[[int], None]) -> int:
        """Write files, each under a temporary name first; return their bytes.

        Raises:
            FilestoreError: One cannot be written; those before it stay, which harms nobody.
        """
        written = 0
        try:
            for header, chunks in files:
                written += self._write(header, chunks)
                progress(written)
        except OSError as error:
            raise FilestoreError(
                f"The filestore {self.root} could not be written: {error.strerror}",
                expected="a folder that this account can write, with room",
                found=str(error),
                kept=KEPT,
                hint=f"df -h {shlex.quote(str(self.root))}; df -i {shlex.quote(str(self.root))};"
                f" ls -ld {shlex.quote(str(self.root))}",
            ) from error
        return written

    def _write(self, header: FileHeader, chunks: Iterator[bytes]) -> int:
        place = self._place(header.path)
        self._make_folders(place.parent)
        temporary = place.parent / f"{TEMPORARY}-{os.getpid()}"
        temporary.unlink(missing_ok=True)
        uid, gid = self._ids
        if header.link is not None:
            temporary.symlink_to(header.link)
            os.lchown(temporary, uid, gid)
            temporary.rename(place)
            return 0
        size = 0
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    size += file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), self._ownership.folder_mode & ~EXECUTE)
                os.fchown(file.fileno(), uid, gid)
                os.fsync(file.fileno())
            temporary.rename(place)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return size

    def _make_folders(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for one in reversed(missing):
            one.mkdir(mode=0o700)
            one.chmod(self._ownership.folder_mode)
            # Only what is the application's own: a folder above the filestore may be the system's.
            if one == self.root or self.root in one.parents:
                os.chown(one, *self._ids)

    def _place(self, path: str) -> Path:
        parts = PurePosixPath(path).parts
        if not parts or PurePosixPath(path).is_absolute() or ".." in parts:
            raise FilestoreError(
                f"{path!r} is no place in a filestore",
                expected="a relative name without '..'",
                found=repr(path),
                kept="nothing was written there",
                hint="do not restore this backup; choose another with --backup=ID",
            )
        folder = self.root
        for part in parts[:-1]:
            folder /= part
            if folder.is_symlink():
                raise FilestoreError(
                    f"{folder} is a link: what is written below it would be somewhere else",
                    expected="a folder",
                    found=f"a link to {folder.readlink()}",
                    kept="nothing was written there",
                    hint=f"ls -l {shlex.quote(str(folder))}; let the folder that it leads to take the link's place",
                )
        return self.root.joinpath(*parts)

    @staticmethod
    def _absent_or_wrong(place: Path) -> str:
        return "wrong" if place.is_symlink() or place.exists() else "missing"


def remove_unfinished(root: Path) -> list[Path]:
    """Remove the files that a killed run was writing; return which. Only where the target's lock is held.

    Raises:
        FilestoreError: One cannot be removed.
    """
    found: list[Path] = []
    try:
        found += root.rglob(f"{TEMPORARY}-*")
        for path in found:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise FilestoreError(
            f"What a killed run was writing in {root} could not be removed: {error.strerror}",
            expected="a filestore that this account can write",
            found=str(error),
            kept="the live files",
            hint=f"find {shlex.quote(str(root))} -name '{TEMPORARY}-*' -delete",
        ) from error
    return found


def _is_content(place: Path, path: str, sha256: str) -> bool:
    is_named_by_content = is_attachment_name(path)
    if not sha256 and not is_named_by_content:
        return True
    digest = hashlib.sha256() if sha256 else hashlib.sha1(usedforsecurity=False)
    with place.open("rb") as file:
        while chunk := file.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest() == (sha256 or path.rsplit("/", 1)[-1])
