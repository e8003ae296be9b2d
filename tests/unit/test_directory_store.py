"""The directory store, on a real file system."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path

import pytest

from opsproof.errors import ConfigurationError, StoreError
from opsproof.system.store import Store, open_store
from opsproof.target import DirectoryStoreSettings
from tests.lab.disk_store import everything_in, folder, run_python, store
from tests.lab.taken_names import require_faster_one_kept, require_taken_name_refused

__all__ = ["folder", "store"]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_committed_upload_is_what_was_written(store: Store, folder: Path) -> None:
    data = os.urandom(3_000_001)
    with store.upload("app.zip", len(data)) as upload:
        upload.write(data[:1_000_000])
        upload.write(memoryview(data)[1_000_000:])
        assert everything_in(folder) != ["acme/backups/app.zip"]
        assert not store.exists("app.zip")
        stored = upload.commit()
    assert b"".join(store.read("app.zip")) == data
    assert stored.sha256 == hashlib.sha256(data).hexdigest()
    assert (stored.bytes, upload.bytes_written) == (len(data), len(data))
    assert stored.location == str(folder / "acme/backups/app.zip")
    assert stored.modified is not None
    assert abs(stored.modified.timestamp() - time.time()) < 60
    assert everything_in(folder) == ["acme/backups/app.zip"]


def test_the_buffer_may_be_reused_after_a_write(store: Store) -> None:
    buffer = bytearray(b"first ")
    with store.upload("app.sql", 12) as upload:
        upload.write(memoryview(buffer))
        buffer[:] = b"second"
        upload.write(memoryview(buffer))
        upload.commit()
    assert store.get_small("app.sql") == b"first second"


def test_files_and_folders_are_private_whatever_the_umask(store: Store, folder: Path) -> None:
    before = os.umask(0)
    try:
        store.put_small("2026/app.json", b"{}")
    finally:
        os.umask(before)
    assert mode_of(folder / "acme/backups/2026/app.json") == 0o600
    for made in (folder, folder / "acme", folder / "acme/backups", folder / "acme/backups/2026"):
        assert mode_of(made) == 0o700


def test_without_a_customer_the_folder_itself_is_the_store(folder: Path) -> None:
    open_store(DirectoryStoreSettings(folder), "").put_small("backup_staging_20260131_020000.sql", b"x")
    assert everything_in(folder) == ["backup_staging_20260131_020000.sql"]


def test_leaving_without_a_commit_leaves_nothing(store: Store, folder: Path) -> None:
    with store.upload("app.zip", 10) as upload:
        upload.write(b"half")
    assert everything_in(folder) == []
    with pytest.raises(KeyboardInterrupt), store.upload("app.zip", 10) as upload:
        upload.write(b"half")
        raise KeyboardInterrupt
    assert everything_in(folder) == []


def test_a_taken_name_is_refused_before_anything_is_written(store: Store, folder: Path) -> None:
    require_taken_name_refused(store)
    assert everything_in(folder) == ["acme/backups/app.zip"]


@pytest.mark.parametrize("links", [True, False], ids=["by-link", "without-hard-links"])
def test_a_name_taken_meanwhile_is_not_overwritten(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", _no_links)
    require_faster_one_kept(store, b"the slower")
    assert everything_in(folder) == ["acme/backups/app.zip"]


def _no_links(source: object, target: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


def test_the_listing_is_sorted_relative_and_without_unfinished_files(store: Store) -> None:
    assert list(store.list()) == []
    for name in ("b.zip", "a.zip", "a.manifest.json", "old/a.zip"):
        store.put_small(name, name.encode())
    with store.upload("c.zip", 1) as upload:
        upload.write(b"c")
        assert [each.name for each in store.list()] == ["a.manifest.json", "a.zip", "b.zip", "old/a.zip"]
        assert [(each.name, each.bytes) for each in store.list("a.")] == [
            ("a.manifest.json", 15),
            ("a.zip", 5),
        ]


def test_what_is_missing_is_said_by_name(store: Store) -> None:
    assert store.find("app.zip") is None
    with pytest.raises(StoreError, match=r"app\.zip is not in the store"):
        store.get_small("app.zip")


def test_delete_removes_its_own_file_only(store: Store, folder: Path) -> None:
    stored = store.put_small("app.zip", b"mine")
    store.delete(stored)
    assert everything_in(folder) == []
    store.delete(stored)
    store.put_small("app.zip", b"not mine")
    with pytest.raises(StoreError, match="is not the file that was to be removed"):
        store.delete(stored)
    assert store.get_small("app.zip") == b"not mine"


@pytest.mark.parametrize("name", ["", "/etc/app", "../app.zip", "a/../../b", "a//b", "a\n.zip", ".", "a\\b"])
def test_a_name_that_leaves_the_folder_is_refused(store: Store, folder: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be the name"):
        store.put_small(name, b"x")
    assert not folder.exists()


def test_a_customer_that_leaves_the_folder_is_refused(folder: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be a folder of the store"):
        open_store(DirectoryStoreSettings(folder), "../other")


def test_the_longest_name_a_file_system_takes_can_be_stored(store: Store) -> None:
    name = "é" * 127
    assert store.put_small(name, b"x").name == name
    assert [each.name for each in store.list()] == [name]


def test_checks_pass_on_a_new_folder_and_leave_no_file(store: Store, folder: Path) -> None:
    store.check_readable()
    assert not folder.exists()
    store.check_writable()
    store.check_readable()
    assert everything_in(folder) == []


def test_free_bytes_are_those_of_the_file_system(store: Store, tmp_path: Path) -> None:
    free = store.free_bytes()
    status = os.statvfs(tmp_path)
    assert free is not None
    assert abs(free - status.f_bavail * status.f_frsize) < 1 << 30


def test_a_gigabyte_takes_no_memory(store: Store) -> None:
    """256 MiB stand for it; the growth must not depend on the size."""
    program = (
        "import resource, sys, pathlib\n"
        "from opsproof.system.store import open_store\n"
        "from opsproof.target import DirectoryStoreSettings\n"
        "store = open_store(DirectoryStoreSettings(pathlib.Path(sys.argv[1])), '')\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "store.put_small('small', b'x' * (1 << 20)); before = peak()\n"
        "with store.upload('big', 1 << 28) as upload:\n"
        "    for _ in range(256): upload.write(bytes(1 << 20))\n"
        "    upload.commit()\n"
        "read = sum(len(piece) for piece in store.read('big'))\n"
        "print(read, peak() - before)\n"
    )
    done = run_python(program, store.location)
    read, grown_kib = map(int, done.stdout.split())
    assert read == 1 << 28
    assert grown_kib < 20 << 10
