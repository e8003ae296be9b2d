"""The filestore: frozen in one moment while the application goes on, and always given back."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path, PurePosixPath

import pytest

from opsproof.errors import FilestoreError
from tests.lab.filestores import Meddling, add, filestore_of, freeze_and_read, live, read_all

__all__ = ["live"]


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
