"""Giving a filestore its files: what is told where one cannot be read or written, and how much memory it takes."""

from __future__ import annotations

import hashlib
import os
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from opsproof.archive.manifest import Member
from opsproof.errors import CommandFailed, FilestoreError
from opsproof.journal import Journal
from opsproof.procedures.outage.staging import StagedFiles
from opsproof.procedures.restore.files import FilesRestore
from opsproof.system.files.adding import FileAdder, FilesAdded, remove_unfinished
from opsproof.system.files.filestore import FileHeader
from opsproof.system.hosts.host import Completed, Host
from opsproof.target import Connection, FilestoreSettings
from tests.lab.captured import LOCAL
from tests.lab.targets import target_of

CONTENT = b"the content of every file"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass(frozen=True)
class Files:
    """A backup as `FilesRestore` sees it; `written` is what it gives out, whatever its listing says."""

    files_count: int
    written: bytes = CONTENT
    folder: str = "f"
    manifest: None = None

    @property
    def files_bytes(self) -> int:
        return self.files_count * len(CONTENT)

    def file_members(self) -> Iterator[Member]:
        for number in range(self.files_count):
            yield Member(path=f"{self.folder}/{number:05}", bytes=len(CONTENT), sha256=SHA256, link=None)

    def open_files(self, wanted: Callable[[str], bool]) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
        for member in self.file_members():
            if wanted(member.path):
                yield FileHeader(member.path, member.bytes, None), iter([self.written])


def restore_files(root: Path, files: Files) -> FilesAdded:
    target = target_of(root.parent / "store", filestore=FilestoreSettings(PurePosixPath(root), False, "hosts.yml"))
    return FilesRestore(target, LOCAL, Journal()).add(files, None)  # type: ignore[arg-type]  # as much as it uses


def fill(root: Path, count: int, folder: str = "f") -> None:
    (root / folder).mkdir(parents=True)
    first = root / folder / "00000"
    first.write_bytes(CONTENT)
    for number in range(1, count):
        os.link(first, root / folder / f"{number:05}")


def test_present_missing_and_wrong_files_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "filestore"
    fill(root, 10)
    (root / "f" / "00003").unlink()
    for number in (5, 6):
        (root / "f" / f"{number:05}").unlink()
        (root / "f" / f"{number:05}").write_bytes(b"wrong")
    assert restore_files(root, Files(12)) == FilesAdded(7, 3, 2, 5 * len(CONTENT))
    assert {path.read_bytes() for path in (root / "f").iterdir()} == {CONTENT}
    assert restore_files(root, Files(12)) == FilesAdded(12, 0, 0, 0)


def test_memory_does_not_grow_with_the_files_that_are_there(tmp_path: Path) -> None:
    """The names alone, which are long here, would be seven megabytes; Python's own table of short texts is two."""
    folder = "/".join(["d" * 200] * 17)
    root = tmp_path / "filestore"
    fill(root, 2_000, folder)
    peaks = []
    for count in (1, 2_000):
        tracemalloc.start()
        try:
            assert restore_files(root, Files(count, folder=folder)).present == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert peaks[1] - peaks[0] < 4_000_000


def test_files_that_are_not_what_the_backup_says_are_named(tmp_path: Path) -> None:
    root = tmp_path / "filestore"
    fill(root, 1)
    with pytest.raises(FilestoreError, match="12 files are not what the backup says") as raised:
        restore_files(root, Files(13, written=CONTENT.upper()))
    assert raised.value.found.startswith("f/00001, f/00002, ")
    assert raised.value.found.endswith("f/00010 and 2 more")
    assert raised.value.kept == "the live database is as it was"
    assert "pytest --list-backups --env=prod" in raised.value.hint


def told(error: FilestoreError) -> tuple[bool, ...]:
    return bool(error.expected), bool(error.found), bool(error.kept), bool(error.hint)


WHOLE = (True, True, True, True)


def failing(*_: object, **__: object) -> Any:
    raise OSError(5, "Input/output error", "a name")


def test_a_disk_that_fails_while_a_file_is_compared_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "filestore"
    fill(root, 2)
    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises(FilestoreError, match="00000 could not be read: Input/output error") as raised:
        restore_files(root, Files(2))
    assert told(raised.value) == WHOLE


@pytest.mark.parametrize("path", ["../escaped", "/etc/passwd", ""])
def test_a_name_that_leads_out_is_refused(tmp_path: Path, path: str) -> None:
    root = tmp_path / "filestore"
    fill(root, 1)
    ownership = FilesRestore(
        target_of(tmp_path, filestore=FilestoreSettings(PurePosixPath(root), False, "hosts.yml")), LOCAL, Journal()
    )._ownership(FilestoreSettings(PurePosixPath(root), False, "hosts.yml"), Files(0))  # type: ignore[arg-type]  # nothing of it
    with pytest.raises(FilestoreError, match="is no place in a filestore") as raised:
        FileAdder(PurePosixPath(root), ownership).compare(path, SHA256, 1, None)
    assert told(raised.value) == WHOLE


def test_a_folder_that_is_a_link_is_not_written_through(tmp_path: Path) -> None:
    root = tmp_path / "filestore"
    root.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (root / "f").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FilestoreError, match="is a link: what is written below it") as raised:
        restore_files(root, Files(1))
    assert told(raised.value) == WHOLE
    assert list((tmp_path / "elsewhere").iterdir()) == []


class Failing(Host):
    """A host on which one program does not work."""

    def __init__(self, program: str) -> None:
        super().__init__(Connection())
        self._program = program

    def run(self, *argv: str, **options: Any) -> Completed:
        if argv[0] == self._program:
            raise CommandFailed(f"{self._program} ended with exit status 1", found="Input/output error")
        return super().run(*argv, **options)


def test_what_cannot_be_removed_or_renamed_is_told_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = tmp_path / "file store"
    staged = StagedFiles(LOCAL, PurePosixPath(live), "1")
    for folder in (live, Path(staged.staged)):
        folder.mkdir()
    (live / ".opsproof-adding-1").write_bytes(b"half")

    def require_told(act: Callable[[], object], hint: str) -> None:
        with pytest.raises(FilestoreError) as raised:
            act()
        assert told(raised.value) == WHOLE
        assert raised.value.hint == hint
        assert "Input/output error" in raised.value.found

    def on(program: str) -> StagedFiles:
        return StagedFiles(Failing(program), PurePosixPath(live), "1")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing)
        require_told(lambda: remove_unfinished(live), f"find '{live}' -name '.opsproof-adding-*' -delete")
    require_told(on("rm").discard, f"rm -rf '{staged.staged}'")
    require_told(on("mv").exchange, f"mv '{live}' '{staged.parked}'")
    require_told(on("sync").exchange, f"sync --file-system {live.parent}")
    parked = Path(staged.parked)
    assert remove_unfinished(parked) == [parked / ".opsproof-adding-1"]
    assert live.is_dir()
    assert not Path(staged.staged).exists()


def test_a_folder_is_never_renamed_over_another(tmp_path: Path) -> None:
    live = tmp_path / "filestore"
    staged = StagedFiles(LOCAL, PurePosixPath(live), "1")
    for folder in (live, Path(staged.staged), Path(staged.parked)):
        folder.mkdir()
    with pytest.raises(FilestoreError, match="could not be renamed to filestore__before_1"):
        staged.exchange()
    assert all(folder.is_dir() for folder in (live, Path(staged.staged), Path(staged.parked)))
