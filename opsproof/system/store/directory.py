"""A folder as a store: a temporary name, fsync, and a link that refuses to overwrite."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from opsproof.errors import StoreError
from opsproof.system.store.contract import PROBE, READ_SIZE, checked_customer, checked_name, name_taken
from opsproof.system.store.directory_upload import (
    TEMPORARY,
    DirectoryUpload,
    identity,
    make_private_folders,
    stored_file,
    sync_folder,
    temporary_path,
    translated,
)
from opsproof.system.store.entries import BucketSettings, Leftover, Listing, Lock, OldVersion, Refusal, StoredObject
from opsproof.target import DirectoryStoreSettings


def open_directory_store(settings: DirectoryStoreSettings, customer: str) -> DirectoryStore:
    """Return the store of a customer in a folder; nothing is made yet."""
    root = Path(os.path.abspath(settings.path.expanduser()))  # noqa: PTH100  a symbolic link stays as it was named
    if checked_customer(customer):
        root = root / customer / "backups"
    return DirectoryStore(root)


class DirectoryStore:
    """See `Store`. Folders that it makes are 0700, files 0600."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @property
    def location(self) -> str:
        """Return the folder, ending in a slash."""
        return f"{self._root}/"

    def secrets(self) -> tuple[str, ...]:
        """Return nothing: a folder has none."""
        return ()

    def check_writable(self) -> None:
        """Write, sync and remove a temporary file; the folder is made where it is missing."""
        probe = temporary_path(self._root / PROBE)
        with translated("write", probe):
            make_private_folders(self._root)
            try:
                descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    os.write(descriptor, b"opsproof\n")
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
            finally:
                probe.unlink(missing_ok=True)

    def check_readable(self) -> None:
        """List the folder. One that is not there yet is an empty store, if it could be made in a folder."""
        with translated("read", self._root):
            existing = self._nearest_existing()
            with os.scandir(existing) as entries:
                next(entries, None)

    def upload(self, name: str, expected_bytes: int) -> DirectoryUpload:
        """Begin a temporary file beside the name."""
        final = self._path(name)
        if os.path.lexists(final):
            raise name_taken(name, str(final))
        return DirectoryUpload(name, final, expected_bytes)

    def read(self, name: str) -> Iterator[bytes]:
        """Yield the file; one that is cut short while it is read is an error."""
        path = self._path(name)
        self._must_exist(name, path)
        with translated("read", path), path.open("rb", buffering=0) as file:
            left = os.fstat(file.fileno()).st_size
            while chunk := file.read(READ_SIZE):
                left -= len(chunk)
                yield chunk
        if left:
            raise StoreError(
                f"{name} changed while it was read",
                expected=f"{path} to stay as it is",
                found=f"{abs(left):,} bytes {'fewer' if left > 0 else 'more'} than when it was opened",
                kept="nothing was changed",
                hint=f"ls -la {path.parent}",
            )

    def put_small(self, name: str, data: bytes, *, locked: bool = True) -> StoredObject:  # noqa: ARG002  the contract's
        """Write a small file in one go; a folder knows no locks."""
        with self.upload(name, len(data)) as upload:
            upload.write(data)
            return upload.commit()

    def get_small(self, name: str) -> bytes:
        """Return a small file."""
        return b"".join(self.read(name))

    def list(self, prefix: str = "") -> Iterator[Listing]:
        """Yield the files whose relative path begins with `prefix`; temporary ones are not among them."""
        for path in sorted(self._files(), key=lambda each: each.relative_to(self._root).as_posix().encode()):
            name = path.relative_to(self._root).as_posix()
            if name.startswith(prefix) and not TEMPORARY.fullmatch(path.name):
                with suppress(FileNotFoundError):
                    status = path.lstat()
                    modified = datetime.fromtimestamp(status.st_mtime, UTC)
                    yield Listing(name, status.st_size, modified, identity(status))

    def find(self, name: str) -> StoredObject | None:
        """Return the file's entry, or None."""
        path = self._path(name)
        with translated("read", path):
            try:
                return stored_file(name, path, path.lstat())
            except (FileNotFoundError, NotADirectoryError):
                return None

    def exists(self, name: str) -> bool:
        """Tell whether there is something of that name."""
        return self.find(name) is not None

    def delete(self, stored: StoredObject) -> None:
        """Remove the file if it is still the same one."""
        path = self._path(stored.name)
        with translated("remove", path):
            try:
                status = path.lstat()
            except FileNotFoundError:
                return
            if stored.etag is not None and identity(status) != stored.etag:
                raise StoreError(
                    f"{stored.name} is not the file that was to be removed",
                    expected=f"{path} as it was written",
                    found="another file, or changed content, under that name",
                    kept="it was left as it is",
                    hint=f"ls -la {path}",
                )
            path.unlink()
            sync_folder(path.parent)

    def delete_all(self, objects: Sequence[StoredObject]) -> tuple[Refusal, ...]:
        """Remove the files one by one."""
        refusals = []
        for each in objects:
            try:
                self.delete(each)
            except StoreError as error:
                refusals.append(Refusal(each.name, f"{error.summary}: {error.found}"))
        return tuple(refusals)

    def lock_of(self, name: str) -> Lock | None:
        """Return None: a folder knows no locks."""
        checked_name(name)
        return None

    def old_versions(self, prefix: str = "") -> Iterator[OldVersion]:  # noqa: ARG002  the contract's
        """Yield nothing: a folder keeps no versions."""
        return iter(())

    def delete_version(self, version: OldVersion) -> None:
        """Refuse: a folder keeps no versions.

        Raises:
            StoreError: Always.
        """
        raise StoreError(
            f"{self.location} keeps no old versions",
            expected="a bucket with versioning",
            found="a folder",
            kept="nothing was removed",
            hint=f"ls -la {self._path(version.name)}",
        )

    def settings(self) -> BucketSettings | None:
        """Return None: a folder is no bucket."""
        return None

    def free_bytes(self) -> int | None:
        """Return what the file system still has for this user, in bytes."""
        with translated("read", self._root):
            status = os.statvfs(self._nearest_existing())
        return status.f_bavail * status.f_frsize

    def leftovers(self) -> tuple[Leftover, ...]:
        """Return temporary files that no process holds."""
        found = []
        for path in sorted(self._files()):
            shape = TEMPORARY.fullmatch(path.name)
            if shape and not _is_held(path):
                with suppress(FileNotFoundError):
                    started = datetime.fromtimestamp(path.lstat().st_mtime, UTC)
                    handle = path.relative_to(self._root).as_posix()
                    name = path.with_name(shape["name"]).relative_to(self._root).as_posix()
                    # The lock of a folder that another machine shares may be invisible here.
                    in_doubt = _is_running(int(shape["pid"]))
                    found.append(Leftover(name, str(path), started, handle, in_doubt))
        return tuple(found)

    def abort_leftover(self, leftover: Leftover) -> None:
        """Remove a temporary file."""
        path = self._path(leftover.handle)
        if not TEMPORARY.fullmatch(path.name):
            raise StoreError(f"{leftover.handle} is not the name of an unfinished file", kept="it was left")
        with translated("remove", path):
            path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._root / checked_name(name)

    def _must_exist(self, name: str, path: Path) -> None:
        if not self.exists(name):
            raise StoreError(
                f"{name} is not in the store",
                expected=f"a file {path}",
                found="no such file",
                kept="nothing was changed",
                hint=f"ls -la {path.parent}",
            )

    def _nearest_existing(self) -> Path:
        folder = self._root
        while not os.path.lexists(folder):
            folder = folder.parent
        return folder

    def _files(self) -> Iterator[Path]:
        with translated("list", self._root):
            if not self._root.exists():
                return
            for folder, _, names in os.walk(self._root, onerror=_raise):
                for name in names:
                    path = Path(folder, name)
                    if not path.is_symlink() and path.is_file():
                        yield path


def _raise(error: OSError) -> None:
    # os.walk's default is to leave out in silence what it may not list.
    raise error


def _is_held(path: Path) -> bool:
    """Tell whether the process that writes this file is alive, by the lock that dies with it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
