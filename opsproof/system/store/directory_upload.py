"""One file on its way into a directory store, under a temporary name that nobody takes for a backup."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from opsproof.errors import StoreDenied, StoreError
from opsproof.system.store.contract import name_taken
from opsproof.system.store.entries import StoredObject

_log = logging.getLogger(__name__)

TEMPORARY = re.compile(r"\.(?P<name>.+)\.part-(?P<pid>\d+)-[0-9a-f]{8}", re.DOTALL)
"""How the name of an unfinished file looks."""

_NO_HARD_LINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}


def identity(status: os.stat_result) -> str:
    """Return what tells this very file from another of the same name."""
    return f"{status.st_ino:x}-{status.st_size:x}-{status.st_mtime_ns:x}"


def stored_file(name: str, path: Path, status: os.stat_result, sha256: str = "") -> StoredObject:
    """Return a file's entry."""
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return StoredObject(name, str(path), status.st_size, sha256, modified, etag=identity(status))


def temporary_path(final: Path) -> Path:
    """Return a name in the same folder that no listing shows; it never passes the file system's 255 bytes."""
    stem = final.name.encode()[:180].decode(errors="ignore")
    return final.with_name(f".{stem}.part-{os.getpid()}-{secrets.token_hex(4)}")


def make_private_folders(folder: Path) -> None:
    """Make a folder and its missing parents, each 0700; those that exist keep their mode."""
    missing = []
    while not folder.exists():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        with suppress(FileExistsError):
            each.mkdir(mode=0o700)
            sync_folder(each.parent)


def sync_folder(folder: Path) -> None:
    """Make the folder's names durable, as far as its file system can."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have no fsync for folders; the file itself was synced.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.EBADF):
            raise
    finally:
        os.close(descriptor)


@contextmanager
def translated(doing: str, path: Path, needed: int = 0) -> Iterator[None]:
    """Turn the operating system's errors into ours.

    Args:
        doing: What was attempted, as in `write`.
        path: On what.
        needed: Bytes that the file was expected to take, for the message of a full disk.
    """
    try:
        yield
    except OSError as error:
        raise _explain(error, doing, path, needed) from error


def _explain(error: OSError, doing: str, path: Path, needed: int) -> StoreError:
    found = f"{error.strerror} ({errno.errorcode.get(error.errno or 0, error.errno)}) at {path}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return StoreError(
            f"no room left in the directory store for {path.name}",
            expected=f"room for about {needed:,} bytes" if needed else "room for the file",
            found=found,
            kept="what was written of it was removed; every other file is as it was",
            hint=f"df -h {path.parent}",
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StoreDenied(
            f"this user may not {doing} {path}",
            expected=f"a folder that user id {os.geteuid()} may {doing} in",
            found=found,
            kept="nothing was changed",
            hint=f"namei -l {path.parent}",
        )
    return StoreError(
        f"the directory store failed to {doing} {path.name}",
        expected=f"{path} on a working file system",
        found=found,
        kept="every other file is as it was",
        hint=f"ls -la {path.parent}",
    )


class DirectoryUpload:
    """See `Upload`. The file is locked while it is written, so that its killed leftovers can be told from it."""

    def __init__(self, name: str, final: Path, expected_bytes: int) -> None:
        self._name, self._final, self._expected = name, final, expected_bytes
        self._hash = hashlib.sha256()
        self._written = 0
        self._open = False
        self._temporary = temporary_path(final)
        with translated("write", final):
            make_private_folders(final.parent)
            try:
                self._file = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                self._open = True
                # Where the file system has no locks, the process id in the name must do.
                with suppress(OSError):
                    fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BaseException:
                self._temporary.unlink(missing_ok=True)
                raise

    @property
    def bytes_written(self) -> int:
        """Return how many bytes `write` has taken."""
        return self._written

    def write(self, data: bytes | memoryview) -> None:
        """Append to the temporary file."""
        self._must_be_open()
        view = memoryview(data).cast("B")
        try:
            with translated("write", self._final, max(self._expected, self._written + len(view))):
                done = 0
                while done < len(view):
                    done += os.write(self._file, view[done:])
        except BaseException:
            self._give_up()
            raise
        self._hash.update(view)
        self._written += len(view)

    def commit(self) -> StoredObject:
        """Make the file durable, then give it its name, unless that is taken."""
        self._must_be_open()
        try:
            with translated("write", self._final, max(self._expected, self._written)):
                os.fsync(self._file)
                status = os.fstat(self._file)
                self._publish()
        except BaseException:
            self._withdraw()
            self._give_up()
            raise
        self._close()
        return stored_file(self._name, self._final, status, self._hash.hexdigest())

    def _publish(self) -> None:
        try:
            os.link(self._temporary, self._final)
        except FileExistsError as error:
            raise name_taken(self._name, str(self._final)) from error
        except OSError as error:
            if error.errno not in _NO_HARD_LINKS:
                raise
            self._publish_without_links()
        self._temporary.unlink(missing_ok=True)
        sync_folder(self._final.parent)

    def _publish_without_links(self) -> None:
        """Take the name with an empty file, which only one can make, and rename over that one."""
        try:
            os.close(os.open(self._final, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError as error:
            raise name_taken(self._name, str(self._final)) from error
        try:
            self._temporary.rename(self._final)
        except BaseException:
            self._final.unlink(missing_ok=True)
            raise

    def _withdraw(self) -> None:
        """Take the name back if it is this very file that has it."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(self._file), self._final.lstat()):
                self._final.unlink()

    def stop(self) -> None:
        """Do nothing: a write to a disk does not wait for anybody."""

    def abort(self) -> None:
        """Remove the temporary file."""
        if self._open:
            self._close()
            with translated("remove", self._temporary):
                self._temporary.unlink(missing_ok=True)

    def _give_up(self) -> None:
        try:
            self.abort()
        except StoreError as error:
            # The failure in flight says more than this one.
            _log.warning("an unfinished file stays behind: %s", error)

    def _close(self) -> None:
        self._open = False
        os.close(self._file)

    def _must_be_open(self) -> None:
        if not self._open:
            raise StoreError(f"the upload of {self._name} was finished or given up before")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.abort()
        else:
            self._give_up()
