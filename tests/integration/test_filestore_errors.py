"""What is wrong with a filestore is said with its place in the configuration, and with what to type."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from opsproof.errors import FilestoreError
from opsproof.system.hosts.host import Completed, Host
from opsproof.system.hosts.pipe import Pipe
from opsproof.target import Connection
from tests.lab.captured import LOCAL
from tests.lab.filestores import filestore_of, live, read_all

__all__ = ["live"]

NOBODY = 65534


class OtherAccount(Host):
    """The same machine as an account sees it that is neither root nor the files' owner."""

    PREFIX = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")

    def run(self, *argv: str, **options: Any) -> Completed:
        return super().run(*self.PREFIX, *argv, **options)

    def pipe(self, *argv: str, **options: Any) -> Pipe:
        return super().pipe(*self.PREFIX, *argv, **options)


def test_a_missing_folder_names_the_place_of_its_configuration(tmp_path: Path) -> None:
    with pytest.raises(FilestoreError) as caught:
        filestore_of(tmp_path / "nowhere").describe()
    assert caught.value.summary == "Filestore not found: check data_dir in /etc/odoo.conf"
    assert str(tmp_path / "nowhere") in caught.value.expected
    assert "filestore: none" in caught.value.hint


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(FilestoreError, match="is a regular file") as caught:
        filestore_of(tmp_path / "file").describe()
    assert "readlink -f" in caught.value.hint


def test_a_link_to_a_folder_is_told_from_the_folder(tmp_path: Path, live: Path) -> None:
    (tmp_path / "link").symlink_to(live)
    with pytest.raises(FilestoreError, match="is a symbolic link") as caught:
        filestore_of(tmp_path / "link").describe()
    assert caught.value.hint.endswith(f"readlink -f {tmp_path / 'link'}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can own a file as somebody else")
def test_files_of_somebody_else_cannot_be_linked() -> None:
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() != "1":
        pytest.skip("this kernel lets everybody link everything: fs.protected_hardlinks is 0")
    folder = Path(tempfile.mkdtemp())
    try:
        folder.chmod(0o777)
        live = folder / "acme"
        live.mkdir(mode=0o755)
        (live / "a").write_bytes(b"one")
        filestore = filestore_of(live, host=OtherAccount(Connection()))
        with pytest.raises(FilestoreError, match="could not be frozen") as caught:
            filestore.freeze()
        assert "protected_hardlinks" in caught.value.hint
        assert "the files are as they were" in caught.value.kept
        filestore.thaw()
        assert [path.name for path in folder.iterdir()] == ["acme"]
    finally:
        shutil.rmtree(folder)


@contextmanager
def acting_as(account: int) -> Iterator[None]:
    """Let this process read files with the rights of an account: files are read where they are, not by a command."""
    own = os.geteuid()
    os.seteuid(account)
    try:
        yield
    finally:
        os.seteuid(own)


@pytest.fixture
def ordinary() -> Iterator[tuple[Path, Host]]:
    """A filestore and a host as an ordinary account sees them, whoever runs the test."""
    folder = Path(tempfile.mkdtemp())
    live = folder / "acme"
    live.mkdir()
    (live / "a").write_bytes(b"one")
    (live / "sub").mkdir()
    host = LOCAL
    if os.geteuid() == 0:
        host = OtherAccount(Connection())
        for path in (folder, live, live / "a", live / "sub"):
            os.chown(path, NOBODY, NOBODY)
    yield live, host
    for path in (folder, live, live / "sub"):
        path.chmod(0o700)
    shutil.rmtree(folder)


def test_a_file_that_may_not_be_read(ordinary: tuple[Path, Host]) -> None:
    live, host = ordinary
    (live / "a").chmod(0)
    linked, copied = (filestore_of(live, addressed=addressed, host=host) for addressed in (True, False))
    with pytest.raises(FilestoreError, match="could not be frozen") as caught:
        copied.freeze()
    assert "run as the owner" in caught.value.hint
    copied.thaw()
    # A link needs no right to read: what cannot be read is found out when it is streamed.
    linked.freeze()
    with pytest.raises(FilestoreError, match="could not be read") as caught, acting_as(live.stat().st_uid):
        read_all(linked)
    assert "Permission denied" in caught.value.found
    linked.thaw()


def test_a_folder_that_may_not_be_entered(ordinary: tuple[Path, Host]) -> None:
    live, host = ordinary
    (live / "sub").chmod(0)
    with pytest.raises(FilestoreError, match="could not be read") as caught:
        filestore_of(live, host=host).describe()
    assert str(live / "sub") in caught.value.found


def test_a_parent_that_may_not_be_written(ordinary: tuple[Path, Host]) -> None:
    live, host = ordinary
    live.parent.chmod(0o500)
    with pytest.raises(FilestoreError, match="could not be frozen") as caught:
        filestore_of(live, host=host).freeze()
    assert f"who can write in {live.parent}" in caught.value.hint
    assert [path.name for path in live.parent.iterdir()] == ["acme"]
