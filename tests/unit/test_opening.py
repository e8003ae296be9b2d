"""Opening a backup that has no manifest beside it: what it is, and which part of it is damaged."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

import pytest

from opsproof.archive.opening import open_backup
from opsproof.errors import ArchiveError
from opsproof.system.files.filestore import FileHeader
from tests.lab.bundles import FILES, SQL, write_bundle
from tests.lab.manifests import STEM

FILE = "filestore/cd/noise"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "good.zip"
    write_bundle(path)
    return path.read_bytes()


def refusal(data: bytes, folder: Path) -> ArchiveError:
    path = folder / "backup.zip"
    path.write_bytes(data)
    with pytest.raises(ArchiveError) as raised:
        open_backup(path, None, folder / "dump").close()
    assert not (folder / "dump").exists()
    error = raised.value
    assert (error.kept, bool(error.expected), bool(error.found), bool(error.hint)) == (
        "nothing was changed",
        True,
        True,
        True,
    )
    return error


def content_of(data: bytes, folder: Path, name: str) -> range:
    """Return where a member's packed bytes are."""
    path = folder / "look.zip"
    path.write_bytes(data)
    with ZipFile(path) as archive:
        info = archive.getinfo(name)
    name_length, extra_length = struct.unpack_from("<HH", data, info.header_offset + 26)
    start = info.header_offset + 30 + name_length + extra_length
    return range(start, start + info.compress_size)


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x40]) + data[at + 1 :]


def test_a_flipped_byte_is_told_with_the_part_that_it_is_in(good: bytes, tmp_path: Path) -> None:
    """An operator must see whether the database or a single attachment is lost."""
    directory = struct.unpack_from("<I", good, len(good) - 6)[0]
    record = good.index(f"{STEM}.sql".encode(), directory) - 46
    parts = {name: content_of(good, tmp_path, name) for name in (f"{STEM}.dump", f"{STEM}.sql", FILE)}
    own = {name: content_of(good, tmp_path, name) for name in ("manifest.json", "members.jsonl", "tables.jsonl")}
    summaries = {}
    for name, place in {**parts, **own}.items():
        for at in (place[len(place) // 4], place[len(place) // 2]):
            summary = refusal(flipped(good, at), tmp_path).summary
            assert name in summary
            assert "damaged" in summary or "is not as opsproof writes it" in summary
            summaries[name] = summary
    summaries["central record"] = refusal(flipped(good, record + 24), tmp_path).summary
    assert f"{STEM}.sql in the bundle cannot be used" in summaries["central record"]
    summaries["central directory"] = refusal(flipped(good, record), tmp_path).summary
    assert summaries["central directory"].endswith("its central directory is cut or damaged")
    summaries["end record"] = refusal(flipped(good, len(good) - 22), tmp_path).summary
    assert summaries["end record"].endswith("it is cut, or has something after its end")
    assert len(set(summaries.values())) == len(summaries) == 9


def test_whichever_byte_of_its_end_is_damaged_it_is_known_for_a_bundle_of_ours(good: bytes, tmp_path: Path) -> None:
    begins = good.index(b"tables.jsonl", struct.unpack_from("<I", good, len(good) - 6)[0]) - 46
    assert len(good) - begins < 300
    summaries = []
    for at in range(begins, len(good)):
        path = tmp_path / "backup.zip"
        path.write_bytes(flipped(good, at))
        try:
            open_backup(path, None, tmp_path / f"dump-{at}").close()
        except ArchiveError as error:
            summaries.append(error.summary)
    assert all("bundle" in summary for summary in summaries)
    # Of a record the writer's version, the internal attributes and the permissions say nothing that is read.
    assert len(summaries) >= len(good) - begins - 3 * 8


@pytest.mark.parametrize("comment", [b"", b"written by somebody else"])
def test_a_bundle_that_is_stored_in_somebody_s_zip_does_not_make_that_one_of_ours(
    good: bytes, tmp_path: Path, comment: bytes
) -> None:
    path = tmp_path / "acme_2024-03-05_01-02-03.zip"
    with ZipFile(path, "w", ZIP_STORED) as archive:
        archive.writestr("d.sql", SQL)
        archive.writestr("filestore/b.zip", good)
        archive.comment = comment
    with closing(open_backup(path, None, tmp_path / "dump")) as opened:
        assert opened.manifest is None
        assert opened.description.startswith("zip without a manifest")
    assert (tmp_path / "dump").read_bytes() == SQL


def many(count: int) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
    return ((FileHeader(f"{number:040}", 0, None), iter(())) for number in range(count))


def test_telling_whose_it_is_takes_no_memory_however_many_files_it_has(tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    write_bundle(path, many(20_000))
    # The end record is damaged, so that nothing but the telling happens.
    data = path.read_bytes()
    path.write_bytes(flipped(data, len(data) - 22))
    with pytest.raises(ArchiveError, match=r"The bundle backup\.zip cannot be used"):
        open_backup(path, None, tmp_path / "dump")
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match=r"The bundle backup\.zip cannot be used"):
            open_backup(path, None, tmp_path / "dump")
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_a_whole_one_opens(good: bytes, tmp_path: Path) -> None:
    path = tmp_path / "backup.zip"
    path.write_bytes(good)
    with closing(open_backup(path, None, tmp_path / "dump")) as opened:
        assert opened.manifest is not None
        assert opened.files_count >= len(FILES)
