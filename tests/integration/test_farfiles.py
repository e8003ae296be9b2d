"""A filestore of another machine, over a real sshd: the same files as one sees there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsproof.errors import FilestoreError, HostError
from opsproof.system.host import Host
from opsproof.system.transport import close_connections
from tests.lab.filestores import ODD_NAMES, add, filestore_of, freeze_and_read, live
from tests.lab.ssh_server import SshServer, ssh_server

__all__ = ["live", "ssh_server"]


@pytest.fixture
def host(ssh_server: SshServer) -> Iterator[Host]:
    yield Host(ssh_server.connection)
    close_connections()


@pytest.mark.parametrize("addressed", [True, False], ids=["linked", "copied"])
def test_odd_names_sizes_and_links_are_what_they_are(live: Path, host: Host, addressed: bool) -> None:
    for name in ODD_NAMES:
        (live / os.fsdecode(name)).write_bytes(name)
    for size in (0, 1, (1 << 18) - 1, 1 << 18, (1 << 18) + 1, 3_000_000):
        (live / f"size {size}").write_bytes(os.urandom(size))
    (live / "folder" / "below").mkdir(parents=True)
    (live / "folder" / "below" / "file").write_bytes(b"deep")
    (live / "link").symlink_to("folder/below/file")
    assert freeze_and_read(filestore_of(live, addressed=addressed, host=host)) == freeze_and_read(
        filestore_of(live, addressed=addressed)
    )


def test_it_is_described_as_it_is_there(live: Path, host: Host) -> None:
    add(live, b"one")
    shutil.chown(live, "nobody", "nogroup")
    live.chmod(0o750)
    assert filestore_of(live, host=host).describe() == filestore_of(live).describe()


def test_a_file_that_is_skipped_unread_harms_no_other(live: Path, host: Host) -> None:
    for name in "abc":
        (live / name).write_bytes(name.encode() * 700_000)
    filestore = filestore_of(live, host=host)
    filestore.freeze()
    found = [(header.path, b"" if header.path == "b" else b"".join(data)) for header, data in filestore.stream()]
    filestore.thaw()
    assert found == [("a", b"a" * 700_000), ("b", b""), ("c", b"c" * 700_000)]


def test_a_folder_that_is_gone_is_no_empty_one(live: Path, host: Host) -> None:
    filestore = filestore_of(live, host=host)
    with pytest.raises(FilestoreError, match="could not be read") as caught:
        list(filestore.stream())
    assert "No such file or directory" in caught.value.found


def test_a_stream_that_is_cut_is_no_whole_one(live: Path, host: Host) -> None:
    (live / "big").write_bytes(os.urandom(8_000_000))
    filestore = filestore_of(live, host=host)
    filestore.freeze()

    def read_and_cut() -> None:
        for _, chunks in filestore.stream():
            next(chunks)
            close_connections()
            b"".join(chunks)

    with pytest.raises((HostError, FilestoreError)):
        read_and_cut()
    filestore.thaw()
    assert not filestore.is_frozen()
