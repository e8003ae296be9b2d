"""A filestore of another machine, over a real sshd: the same files as one sees there."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from opsproof.errors import FilestoreError, HostError
from opsproof.system.files.adding import FileAdder, Ownership
from opsproof.system.files.faradding import FarFileAdder
from opsproof.system.files.farfiles import WantedFile
from opsproof.system.files.filestore import FileHeader
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.transport import close_connections
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


def test_files_and_links_are_added_there_as_they_are_here(tmp_path: Path, host: Host) -> None:
    ownership = Ownership("nobody", "nogroup", 0o750)
    files = {os.fsdecode(name): name for name in ODD_NAMES} | {
        "a/b/c": b"deep",
        "empty": b"",
        "big": os.urandom(700_000),
    }
    links = {"one": "a/b/c", "z last": "nowhere"}
    for name, adder in (("here", FileAdder(PurePosixPath(tmp_path / "here"), ownership)),
                        ("there", FarFileAdder(host, PurePosixPath(tmp_path / "there"), ownership))):  # fmt: skip
        given = [(FileHeader(path, len(data), None), iter([data])) for path, data in files.items()]
        given += [(FileHeader(path, 0, link), iter(())) for path, link in links.items()]
        assert adder.add(sorted(given, key=lambda one: one[0].path), lambda _: None) == sum(map(len, files.values())), (
            name
        )
        wanted = [WantedFile(path, "", len(data), None) for path, data in files.items()]
        wanted += [WantedFile(path, "", 0, link) for path, link in links.items()]
        wanted += [WantedFile("gone", "", 1, None), WantedFile("big", "0" * 64, 700_000, None)]
        assert list(adder.compare_all(wanted)) == ["present"] * (len(files) + 2) + ["missing", "wrong"]
    assert described(tmp_path / "here") == described(tmp_path / "there")


@pytest.mark.parametrize("taken", [b"damage", b"of another size"])
def test_what_is_what_its_name_says_is_not_wrong_whatever_was_backed_up(
    tmp_path: Path, host: Host, taken: bytes
) -> None:
    """A backup that was taken while a file was damaged has that; there is nothing to repair with it."""
    ownership = Ownership("nobody", "nogroup", 0o750)
    sound, broken = add(tmp_path, b"sounds"), add(tmp_path, b"broken")
    (tmp_path / broken).write_bytes(b"BROKEN")
    sha256 = hashlib.sha256(taken).hexdigest()
    wanted = [WantedFile(one, sha256, len(taken), None) for one in (sound, broken)]
    root = PurePosixPath(tmp_path)
    for adder in (FileAdder(root, ownership), FarFileAdder(host, root, ownership)):
        assert list(adder.compare_all(wanted)) == ["present", "wrong"]


def test_a_file_that_would_go_elsewhere_is_refused_there(tmp_path: Path, host: Host) -> None:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "link").symlink_to(tmp_path)
    adder = FarFileAdder(host, PurePosixPath(tmp_path / "files"), Ownership("nobody", "nogroup", 0o750))
    for path in ("../out", "/etc/out", "link/out"):
        with pytest.raises(FilestoreError, match="is no place in a filestore"):
            adder.add([(FileHeader(path, 1, None), iter([b"x"]))], lambda _: None)
    assert not (tmp_path / "out").exists()
    with pytest.raises(FilestoreError, match="cannot be given to nobody-of-the-kind"):
        FarFileAdder(host, PurePosixPath(tmp_path / "files"), Ownership("nobody-of-the-kind", "nogroup", 0o750))


def described(folder: Path) -> list[str]:
    found = subprocess.run(
        ["find", ".", "-printf", "%P %y %l %s %u:%g %m\\n"], cwd=folder, capture_output=True, check=True
    ).stdout.splitlines()
    return sorted(line.decode(errors="replace") for line in found if b" d " not in line)
