"""A frozen filestore is streamed: whatever its files are called, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from pathlib import Path

import pytest

from opsproof.system.files.filestore import Digest
from tests.lab.filestores import ODD_NAMES, filestore_of, freeze_and_read, live

__all__ = ["live"]


class TestNames:
    @pytest.mark.parametrize("addressed", [True, False], ids=["linked", "copied"])
    def test_odd_names_keep_their_bytes(self, live: Path, addressed: bool) -> None:
        for name in ODD_NAMES:
            (live / os.fsdecode(name)).write_bytes(name)
        found = freeze_and_read(filestore_of(live, addressed=addressed))
        assert {os.fsencode(name): data for name, data in found.items()} == {name: name for name in ODD_NAMES}

    def test_deep_folders_and_long_paths(self, live: Path) -> None:
        deep = live.joinpath(*["folder" * 10] * 12)
        deep.mkdir(parents=True)
        (deep / "file").write_bytes(b"deep")
        found = freeze_and_read(filestore_of(live))
        assert found == {str((deep / "file").relative_to(live)): b"deep"}

    def test_links_are_links(self, live: Path) -> None:
        (live / "a").write_bytes(b"one")
        (live / "inside").symlink_to("a")
        (live / "outside").symlink_to("/etc/passwd")
        (live / "broken").symlink_to("nowhere")
        (live / "folder").mkdir()
        (live / "to folder").symlink_to("folder")
        os.link(live / "a", live / "hard")
        filestore = filestore_of(live)
        filestore.freeze()
        found = {header.path: (header.link, b"".join(chunks)) for header, chunks in filestore.stream()}
        filestore.thaw()
        assert found == {
            "a": (None, b"one"),
            "hard": (None, b"one"),
            "inside": ("a", b""),
            "outside": ("/etc/passwd", b""),
            "broken": ("nowhere", b""),
            "to folder": ("folder", b""),
        }

    def test_a_file_that_is_skipped_unread_harms_no_other(self, live: Path) -> None:
        for name in "abc":
            (live / name).write_bytes(name.encode() * 300_000)
        filestore = filestore_of(live)
        filestore.freeze()
        found = [
            (header.path, b"" if header.path == "b" else b"".join(chunks)) for header, chunks in filestore.stream()
        ]
        filestore.thaw()
        assert found == [("a", b"a" * 300_000), ("b", b""), ("c", b"c" * 300_000)]

    def test_an_empty_filestore_is_one(self, live: Path) -> None:
        assert filestore_of(live).describe().files == 0
        assert freeze_and_read(filestore_of(live)) == {}


def test_digests_are_of_what_passed() -> None:
    digest = Digest()
    assert b"".join(digest.through(iter([b"ab", b"", b"c"]))) == b"abc"
    assert (digest.sha1, digest.sha256) == (hashlib.sha1(b"abc").hexdigest(), hashlib.sha256(b"abc").hexdigest())


def make_many(live: Path, count: int) -> None:
    for number in range(count):
        if number % 1_000 == 0:
            (live / f"{number:07}").mkdir()
        (live / f"{number // 1_000 * 1_000:07}" / f"{number:07}").write_bytes(b"x")


@pytest.mark.parametrize("count", [20_000, pytest.param(200_000, marks=pytest.mark.slow)])
def test_memory_is_bounded_whatever_the_number_of_files(live: Path, count: int) -> None:
    make_many(live, count)
    filestore = filestore_of(live)
    filestore.freeze()
    filestore.complete()
    assert filestore.measure() == (count, count)
    tracemalloc.start()
    streamed = sum(len(b"".join(chunks)) for _, chunks in filestore.stream())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    filestore.thaw()
    assert streamed == count
    assert peak < 4_000_000


def test_memory_is_bounded_whatever_the_size_of_a_file(live: Path) -> None:
    with (live / "big").open("wb") as file:
        file.truncate(200_000_000)
    filestore = filestore_of(live)
    filestore.freeze()
    tracemalloc.start()
    size = sum(len(chunk) for _, chunks in filestore.stream() for chunk in chunks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    filestore.thaw()
    assert size == 200_000_000
    assert peak < 8_000_000
