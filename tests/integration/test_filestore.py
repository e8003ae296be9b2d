"""The filestore: frozen in one moment while the application goes on, streamed in bounded memory, always given back."""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from opsproof.errors import FilestoreError
from opsproof.system.filestore import Digest, Filestore
from opsproof.system.host import Completed, Host
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
    folder = tmp_path / "filestore" / "acme"
    folder.mkdir(parents=True)
    return folder


def filestore_of(live: Path, *, addressed: bool = True, host: Host = LOCAL) -> Filestore:
    return Filestore(host, FilestoreSettings(PurePosixPath(live), addressed, "/etc/odoo.conf"))


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
    return {header.path: b"".join(chunks) for header, chunks in filestore.stream()}


def freeze_and_read(filestore: Filestore) -> dict[str, bytes]:
    filestore.freeze()
    filestore.complete()
    try:
        return read_all(filestore)
    finally:
        filestore.thaw()


class TestFreezing:
    @pytest.mark.parametrize("addressed", [True, False], ids=["linked", "copied"])
    def test_every_file_is_streamed_sorted_and_the_folder_is_given_back(self, live: Path, addressed: bool) -> None:
        expected = {add(live, data): data for data in (b"", b"one", os.urandom(3_000_000), b"x" * 511, b"y" * 512)}
        filestore = filestore_of(live, addressed=addressed)
        filestore.freeze()
        filestore.complete()
        assert filestore.is_frozen()
        assert filestore.measure() == (5, sum(map(len, expected.values())))
        found = read_all(filestore)
        assert found == expected
        assert list(found) == sorted(found)
        filestore.thaw()
        assert not filestore.is_frozen()
        assert [path.name for path in live.parent.iterdir()] == ["acme"]
        assert {f"{path.parent.name}/{path.name}" for path in live.rglob("*") if path.is_file()} == set(expected)

    def test_linking_takes_no_room_on_the_same_disk(self, live: Path) -> None:
        name = add(live, os.urandom(100_000))
        filestore = filestore_of(live)
        filestore.freeze()
        frozen = Path(filestore.frozen)
        assert frozen.parent == live.parent
        assert (frozen / name).samefile(live / name)
        assert frozen.stat().st_dev == live.stat().st_dev
        filestore.thaw()
        assert (live / name).stat().st_nlink == 1

    def test_a_copy_is_a_file_of_its_own(self, live: Path) -> None:
        (live / "a").write_bytes(b"one")
        filestore = filestore_of(live, addressed=False)
        filestore.freeze()
        (live / "a").write_bytes(b"two")
        assert (Path(filestore.frozen) / "a").read_bytes() == b"one"
        filestore.thaw()
        assert (live / "a").read_bytes() == b"two"

    def test_files_removed_after_the_first_pass_are_still_there(self, live: Path) -> None:
        expected = {add(live, b"%d" % number): b"%d" % number for number in range(20)}
        filestore = filestore_of(live)
        filestore.freeze()
        for name in expected:
            (live / name).unlink()
        late = add(live, b"late")
        filestore.complete()
        assert read_all(filestore) == {**expected, late: b"late"}
        filestore.thaw()

    def test_a_file_that_was_removed_and_came_again_is_no_fault(self, live: Path) -> None:
        name = add(live, b"again")
        filestore = filestore_of(live)
        filestore.freeze()
        (live / name).unlink()
        add(live, b"again")
        filestore.complete()
        assert read_all(filestore) == {name: b"again"}
        filestore.thaw()

    def test_every_file_of_the_snapshot_is_there_while_others_come_and_go(self, live: Path) -> None:
        """Rows are added after their file and removed before it, as an application does."""
        doomed = [add(live, b"old %d" % number) for number in range(600)]
        rows, lock, stop = set(doomed), threading.Lock(), threading.Event()
        counts = {"added": 0, "removed": 0}

        def come() -> None:
            while not stop.is_set():
                name = add(live, b"new %d" % counts["added"] * 50)
                with lock:
                    rows.add(name)
                counts["added"] += 1

        def go() -> None:
            for name in doomed:
                if stop.is_set():
                    return
                with lock:
                    rows.discard(name)
                (live / name).unlink()
                counts["removed"] += 1
                time.sleep(0.0005)

        filestore = filestore_of(live)
        threads = [threading.Thread(target=come), threading.Thread(target=go)]
        for thread in threads:
            thread.start()
        try:
            filestore.freeze()
            time.sleep(0.05)
            with lock:
                snapshot = set(rows)
            time.sleep(0.05)
            filestore.complete()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        found = read_all(filestore)
        filestore.thaw()
        assert counts["removed"] > 20
        assert counts["added"] > 20
        assert snapshot <= set(found)
        whole = {name for name in found if "." not in name}  # without what was just being written
        assert all(hashlib.sha1(found[name]).hexdigest() == name[3:] for name in whole)

    def test_what_a_killed_run_left_is_removed(self, live: Path) -> None:
        add(live, b"one")
        filestore_of(live).freeze()
        again = filestore_of(live)
        with pytest.raises(FilestoreError, match="could not be frozen"):
            again.freeze()
        assert again.remove_leftover()
        assert not again.remove_leftover()
        assert [path.name for path in live.parent.iterdir()] == ["acme"]
        assert freeze_and_read(again).popitem()[1] == b"one"

    def test_the_frozen_folder_is_closed_to_others(self, live: Path) -> None:
        live.chmod(0o755)
        filestore = filestore_of(live)
        seen: list[int] = []
        host = Meddling("--no-target-directory", lambda: seen.append(Path(filestore.frozen).stat().st_mode & 0o777))
        filestore_of(live, host=host).freeze()
        filestore.thaw()
        assert seen == [0o700]

    def test_another_disk_is_an_error_that_says_what_to_do(self, live: Path) -> None:
        other = Path("/dev/shm")
        if not other.is_dir() or other.stat().st_dev == live.stat().st_dev:
            pytest.skip("no second file system at /dev/shm")
        add(live, b"one")
        folder = Path(tempfile.mkdtemp(dir=other))
        try:
            filestore = filestore_of(live)
            filestore.frozen = PurePosixPath(folder / "frozen")
            with pytest.raises(FilestoreError, match="could not be frozen") as caught:
                filestore.freeze()
            assert "mount that one folder higher" in caught.value.hint
        finally:
            shutil.rmtree(folder)


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
        stop = threading.Event()

        def write() -> None:
            with path.open("ab", buffering=0) as file:
                while not stop.is_set():
                    file.write(b"x")

        thread = threading.Thread(target=write)
        thread.start()
        filestore = filestore_of(live, addressed=False)
        try:
            filestore.freeze()
            with pytest.raises(FilestoreError, match="keeps changing") as caught:
                filestore.complete()
            assert "busy" in caught.value.found
        finally:
            stop.set()
            thread.join()
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


def test_the_folder_is_described(live: Path) -> None:
    add(live, b"12345")
    add(live, b"678")
    live.chmod(0o2750)
    facts = filestore_of(live).describe()
    assert (facts.path, facts.mode, facts.files, facts.bytes) == (str(live), "2750", 2, 8)
    assert facts.owner
    if os.geteuid() == 0:
        os.chown(live, 54_321, 54_322)
        facts = filestore_of(live).describe()
        assert (facts.owner, facts.group) == ("54321", "54322")


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
