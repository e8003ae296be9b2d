"""A filestore of a test's own, and a host that meddles with it."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from opsproof.system.files.filestore import Filestore
from opsproof.system.hosts.host import Completed, Host
from opsproof.target import Connection, FilestoreSettings
from tests.lab.captured import LOCAL

ODD_NAMES = (
    b"two\nlines",
    b"caf\xe9",
    b"a b",
    b"-dash",
    b"'q\"",
    b"back\\slash",
    b"$HOME",
    b".hidden",
    b"x" * 200,
    b"tab\t",
)


class Meddling(Host):
    """A host on which something happens right before a command that has a word among its arguments."""

    def __init__(self, word: str, act: Callable[[], object]) -> None:
        super().__init__(Connection())
        self._word = word
        self._act = act

    def run(self, *argv: str, **options: Any) -> Completed:
        if any(self._word in word for word in argv):
            self._act()
        return super().run(*argv, **options)


@pytest.fixture
def live(tmp_path: Path) -> Path:
    """The folder of the filestore."""
    folder = tmp_path / "filestore" / "acme"
    folder.mkdir(parents=True)
    return folder


def filestore_of(live: Path, *, addressed: bool = True, host: Host = LOCAL) -> Filestore:
    """Return the filestore of a folder."""
    return Filestore(host, FilestoreSettings(PurePosixPath(live), addressed, "data_dir in /etc/odoo.conf"))


def add(live: Path, data: bytes) -> str:
    """Add a file as Odoo does: named by its content, written beside, renamed."""
    sha1 = hashlib.sha1(data).hexdigest()
    path = live / sha1[:2] / sha1
    path.parent.mkdir(exist_ok=True)
    part = path.with_suffix(f".{secrets.token_hex(4)}")
    part.write_bytes(data)
    part.rename(path)
    return f"{sha1[:2]}/{sha1}"


def read_all(filestore: Filestore) -> dict[str, bytes]:
    """Return every file that is frozen."""
    return {header.path: b"".join(chunks) for header, chunks in filestore.stream()}


def freeze_and_read(filestore: Filestore) -> dict[str, bytes]:
    """Return every file, by way of a freeze."""
    filestore.freeze()
    filestore.complete()
    try:
        return read_all(filestore)
    finally:
        filestore.thaw()
