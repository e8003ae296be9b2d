"""A filestore that is not content-addressed is copied: every file whole, whatever changes meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from opsproof.errors import FilestoreError
from opsproof.system.files.filestore import SETTLING_ROUNDS
from tests.lab.filestores import ODD_NAMES, Meddling, filestore_of, live, read_all

__all__ = ["live"]


class TestCopying:
    def test_a_file_that_changes_while_it_is_copied_is_copied_again(self, live: Path) -> None:
        (live / "log").write_bytes(b"begin\n")
        (live / "still").write_bytes(b"still")
        filestore = filestore_of(live, addressed=False)
        filestore.freeze()
        with (live / "log").open("ab") as log:
            log.write(b"more\n")
        os.utime(live / "log", (0, 0))  # older than the copy: cp --update alone would pass it over
        filestore.complete()
        found = read_all(filestore)
        filestore.thaw()
        assert found == {"log": b"begin\nmore\n", "still": b"still"}

    @pytest.mark.parametrize("name", ODD_NAMES)
    def test_a_changed_file_is_found_by_whatever_name(self, live: Path, name: bytes) -> None:
        path = live / os.fsdecode(name)
        path.write_bytes(b"one")
        filestore = filestore_of(live, addressed=False)
        filestore.freeze()
        path.write_bytes(b"three")
        os.utime(path, (0, 0))
        filestore.complete()
        assert list(read_all(filestore).values()) == [b"three"]
        filestore.thaw()

    def test_a_file_that_never_stands_still_is_an_error(self, live: Path) -> None:
        path = live / "busy"
        path.write_bytes(b"")

        def write_on() -> None:
            with path.open("ab") as file:
                file.write(b"x")

        # Somebody writes whenever one looks whether the copy is what the file is.
        filestore = filestore_of(live, addressed=False, host=Meddling("%T@", write_on))
        filestore.freeze()
        with pytest.raises(FilestoreError, match="keeps changing") as caught:
            filestore.complete()
        assert caught.value.found == "busy"
        assert path.stat().st_size > SETTLING_ROUNDS
        filestore.thaw()

    def test_a_changed_file_that_vanishes_is_no_fault(self, live: Path) -> None:
        (live / "fleeting").write_bytes(b"one")
        filestore_of(live, addressed=False).freeze()
        (live / "fleeting").write_bytes(b"three")
        os.utime(live / "fleeting", (0, 0))
        host = Meddling("acme/fleeting", lambda: (live / "fleeting").unlink(missing_ok=True))
        filestore = filestore_of(live, addressed=False, host=host)
        filestore.complete()
        assert read_all(filestore) == {"fleeting": b"one"}
        filestore.thaw()
