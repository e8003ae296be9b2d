"""The directory store where the disk is full, closed or in the way, and where a run was killed or interrupted."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

from opsproof.errors import StoreDenied, StoreError
from opsproof.system.store import Store, open_store
from opsproof.system.store.directory import DirectoryStore
from opsproof.target import DirectoryStoreSettings
from tests.lab.disk_store import everything_in, folder, run_python, store

__all__ = ["folder", "store"]


def test_an_interrupt_right_after_the_name_was_given_takes_it_back(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def link_then_interrupt(source: Path, target: Path) -> None:
        link(source, target)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", link_then_interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.put_small("app.zip", b"x")
    assert everything_in(folder) == []


def test_a_full_disk_says_how_much_was_needed_and_leaves_nothing(
    store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write

    def write_until_full(descriptor: int, data: memoryview) -> int:
        if os.fstat(descriptor).st_size >= 1 << 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, data[: 1 << 16])

    with store.upload("app.zip", 5_000_000) as upload:
        monkeypatch.setattr(os, "write", write_until_full)
        with pytest.raises(StoreError, match="no room left") as caught:
            upload.write(bytes(4 << 20))
    assert "5,000,000 bytes" in caught.value.expected
    assert caught.value.hint == f"df -h {folder / 'acme/backups'}"
    assert everything_in(folder) == []


def test_the_real_kernel_running_out_of_room_is_such_an_error(tmp_path: Path) -> None:
    """RLIMIT_FSIZE is the one limit on a file's size that needs no mount."""
    program = (
        "import resource, signal, sys, pathlib\n"
        "from opsproof.system.store import open_store\n"
        "from opsproof.target import DirectoryStoreSettings\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "store = open_store(DirectoryStoreSettings(pathlib.Path(sys.argv[1])), '')\n"
        "store.put_small('app.zip', bytes(2 << 20))\n"
    )
    done = run_python(program, str(tmp_path / "disk"))
    assert done.returncode == 1
    assert "no room left in the directory store for app.zip" in done.stderr
    assert everything_in(tmp_path / "disk") == []


def test_checks_fail_where_a_file_is_in_the_way(store: Store, folder: Path) -> None:
    folder.write_text("not a folder")
    for check in (store.check_readable, store.check_writable):
        with pytest.raises(StoreError, match="directory store failed to"):
            check()


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    """Root may write anywhere but on a file system that is read-only, so /proc stands for one."""
    store = DirectoryStore(Path("/proc/opsproof"))
    with pytest.raises(StoreError) as caught:
        store.check_writable()
    assert "/proc" in str(caught.value)


def test_a_folder_of_somebody_else_is_denied(tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir(mode=0o500)
    store = open_store(DirectoryStoreSettings(tmp_path / "theirs"), "acme")
    user = os.geteuid()
    # Root may write anywhere, so it stops being root meanwhile.
    os.seteuid(user or 65534)
    try:
        with pytest.raises(StoreDenied, match="may not write"):
            store.check_writable()
    finally:
        os.seteuid(user)


def test_a_running_upload_is_no_leftover(store: Store) -> None:
    with store.upload("app.zip", 1) as upload:
        upload.write(b"x")
        assert store.leftovers() == ()


def test_what_a_killed_run_left_is_found_and_removed(store: Store, folder: Path) -> None:
    program = (
        "import os, signal, sys, pathlib\n"
        "from opsproof.system.store import open_store\n"
        "from opsproof.target import DirectoryStoreSettings\n"
        "store = open_store(DirectoryStoreSettings(pathlib.Path(sys.argv[1])), 'acme')\n"
        "upload = store.upload('app.zip', 10)\n"
        "upload.write(b'half')\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    assert run_python(program, str(folder)).returncode == -signal.SIGKILL
    (leftover,) = store.leftovers()
    assert leftover.name == "app.zip"
    assert not leftover.in_doubt
    assert list(store.list()) == []
    store.abort_leftover(leftover)
    store.abort_leftover(leftover)
    assert everything_in(folder) == []


def test_a_file_cut_while_it_is_read_is_an_error(store: Store, folder: Path) -> None:
    store.put_small("app.zip", bytes(3 << 20))
    pieces = store.read("app.zip")
    next(pieces)
    os.truncate(folder / "acme/backups/app.zip", 2 << 20)
    with pytest.raises(StoreError, match="changed while it was read"):
        list(pieces)
