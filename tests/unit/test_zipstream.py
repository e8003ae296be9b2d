"""The zip writer: what `unzip` and Python's zipfile read is what was written, at every size."""

from __future__ import annotations

import io
import os
import shutil
import stat
import subprocess
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from opsproof.archive.writing.spool import Spool
from opsproof.archive.writing.zipstream import ZipWriter
from opsproof.errors import ArchiveError

MOMENT = datetime(2024, 2, 29, 23, 59, 58, tzinfo=UTC)
GIB = 1 << 30
ZEROS = bytes(1 << 20)
needs_unzip = pytest.mark.skipif(shutil.which("unzip") is None, reason="no unzip: apt-get install unzip")


class Sparse:
    """A file in which a piece of nothing but zeros takes no room."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def write(self, data: bytes) -> None:
        if data is ZEROS:
            self._file.seek(len(data), os.SEEK_CUR)
        else:
            self._file.write(data)

    def close(self) -> None:
        self._file.close()


def zeros(size: int) -> Iterator[bytes]:
    for _ in range(size // len(ZEROS)):
        yield ZEROS


def unzip(*arguments: str | Path, cwd: Path | None = None, timeout: int = 120) -> bytes:
    done = subprocess.run(["unzip", *map(str, arguments)], capture_output=True, timeout=timeout, cwd=cwd)
    assert done.returncode == 0, (done.stdout[-500:], done.stderr[-500:])
    return done.stdout


def write_all_kinds(path: Path) -> dict[str, bytes]:
    """Write a zip with a member of each kind; return what its regular members hold."""
    text = b"a row of text\n" * 50_000
    noise = os.urandom(200_000)
    members = {
        "empty.txt": b"",
        "short.txt": b"x",
        "text.txt": text,
        "noise.bin": noise,
        "folder/with space/Größe.txt": b"umlaut",
        "stored.bin": noise,
        "deflated.bin": text,
        "nothing.bin": b"",
        "dump": text + noise,
    }
    with path.open("wb") as file, Spool(path.parent) as spool:
        spool.write(members["dump"])
        spool.finish()
        writer = ZipWriter(file.write, MOMENT)
        for name in list(members)[:5]:
            writer.add_bytes(name, members[name])
        writer.add_stream("stored.bin", iter([noise[:7], b"", noise[7:]]), len(noise), compress=False)
        writer.add_stream("deflated.bin", iter([text[:100_000], text[100_000:]]), len(text), compress=True)
        writer.add_stream("nothing.bin", iter(()), 0, compress=True)
        writer.add_spool("dump", spool)
        writer.add_bytes("link", b"text.txt", compress=False, link=True)
        writer.finish()
        assert writer.size == file.tell()
    return members


def test_zipfile_reads_every_kind_of_member(tmp_path: Path) -> None:
    members = write_all_kinds(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [*members, "link"]
        assert {name: archive.read(name) for name in members} == members
        assert archive.read("link") == b"text.txt"
        assert stat.S_ISLNK(archive.getinfo("link").external_attr >> 16)
        info = archive.getinfo("text.txt")
    assert info.date_time == (2024, 2, 29, 23, 59, 58)
    assert stat.S_IMODE(info.external_attr >> 16) == 0o600
    assert info.compress_size < info.file_size // 10


def test_a_member_that_would_grow_is_stored(tmp_path: Path) -> None:
    write_all_kinds(tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        methods = {info.filename: info.compress_type for info in archive.infolist()}
    stored = {name for name, method in methods.items() if method == zipfile.ZIP_STORED}
    assert {"empty.txt", "short.txt", "noise.bin", "stored.bin", "link"} <= stored
    assert methods["text.txt"] == methods["deflated.bin"] == methods["dump"] == zipfile.ZIP_DEFLATED


@needs_unzip
def test_unzip_reads_every_kind_of_member(tmp_path: Path) -> None:
    members = write_all_kinds(tmp_path / "x.zip")
    unzip("-tq", tmp_path / "x.zip")
    unzip("-q", tmp_path / "x.zip", "-d", tmp_path / "out")
    assert {name: (tmp_path / "out" / name).read_bytes() for name in members} == members
    assert (tmp_path / "out" / "link").readlink() == Path("text.txt")


@needs_unzip
def test_a_name_that_is_no_utf_8_keeps_its_bytes(tmp_path: Path) -> None:
    name = b"caf\xe9 \xff.txt"
    with (tmp_path / "x.zip").open("wb") as file:
        writer = ZipWriter(file.write)
        writer.add_bytes(os.fsdecode(name), b"one")
        writer.add_bytes("Café.txt", b"two")
        writer.finish()
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        bare, marked = archive.infolist()
    assert bare.orig_filename.encode("cp437") == name
    assert not bare.flag_bits & 0x800
    assert marked.flag_bits & 0x800
    assert marked.filename == "Café.txt"
    unzip("-tq", tmp_path / "x.zip")


def test_a_stream_of_another_size_than_promised_is_an_error() -> None:
    for chunks in ([b"12345"], [b"1234567"]):
        writer = ZipWriter(io.BytesIO().write)
        with pytest.raises(ArchiveError, match=r"x\.bin changed"):
            writer.add_stream("x.bin", chunks, 6, compress=False)
        writer.close()


def test_an_archive_without_members_is_one(tmp_path: Path) -> None:
    out = io.BytesIO()
    ZipWriter(out.write).finish()
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == []


def write_many(path: Path, count: int) -> None:
    with path.open("wb") as file:
        writer = ZipWriter(file.write)
        for number in range(count):
            writer.add_bytes(f"f/{number:06d}", b"%d" % number)
        writer.finish()
        assert writer.members == count


@pytest.mark.parametrize("count", [65_534, 65_535, 65_536])
def test_the_number_of_members_may_pass_65535(count: int, tmp_path: Path) -> None:
    write_many(tmp_path / "x.zip", count)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        infos = archive.infolist()
        assert len(infos) == count
        assert archive.read(infos[-1]) == b"%d" % (count - 1)
        assert archive.read(infos[0]) == b"0"


@needs_unzip
def test_unzip_reads_70000_members(tmp_path: Path) -> None:
    write_many(tmp_path / "x.zip", 70_000)
    assert b"No errors detected" in unzip("-tq", tmp_path / "x.zip")
    assert len(unzip("-Z1", tmp_path / "x.zip").splitlines()) == 70_000
    assert unzip("-p", tmp_path / "x.zip", "f/069999") == b"69999"


def write_huge(path: Path, big: int) -> None:
    """Write a zip with a small member before and two after one of `big` bytes of zeros."""
    sparse = Sparse(path)
    writer = ZipWriter(sparse.write)
    writer.add_bytes("before", b"before")
    writer.add_stream("big", zeros(big), big, compress=False)
    writer.add_bytes("after", b"after " * 100)
    writer.add_stream("last", iter([b"la", b"st"]), 4, compress=True)
    writer.finish()
    sparse.close()


@pytest.mark.parametrize("big", [0xF0000000 - (1 << 20), 0xF0000000, 4 * GIB - (1 << 20), 4 * GIB, 4 * GIB + (1 << 20)])
def test_sizes_and_places_beyond_4_gib_are_recorded(big: int, tmp_path: Path) -> None:
    write_huge(tmp_path / "x.zip", big)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        sizes = {info.filename: (info.file_size, info.compress_size) for info in archive.infolist()}
        assert sizes["big"] == (big, big)
        assert archive.getinfo("after").header_offset > big
        assert archive.read("before") == b"before"
        assert archive.read("after") == b"after " * 100
        assert archive.read("last") == b"last"


@needs_unzip
def test_unzip_finds_a_member_beyond_4_gib(tmp_path: Path) -> None:
    write_huge(tmp_path / "x.zip", 4 * GIB + (1 << 20))
    assert unzip("-p", tmp_path / "x.zip", "last") == b"last"
    assert unzip("-p", tmp_path / "x.zip", "after") == b"after " * 100


@needs_unzip
@pytest.mark.slow
def test_unzip_tests_every_byte_of_members_over_4_gib(tmp_path: Path) -> None:
    """Stored, deflated and spooled, each over 4 GiB: descriptor, local header and directory must all agree."""
    big = 4 * GIB + (1 << 20)
    sparse = Sparse(tmp_path / "x.zip")
    writer = ZipWriter(sparse.write)
    writer.add_stream("stored", zeros(big), big, compress=False)
    writer.add_stream("deflated", zeros(big), big, compress=True)
    with Spool(tmp_path) as spool:
        for piece in zeros(big):
            spool.write(piece)
        spool.finish()
        writer.add_spool("spooled", spool)
    writer.finish()
    sparse.close()
    unzip("-tq", tmp_path / "x.zip", timeout=170)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert [info.file_size for info in archive.infolist()] == [big, big, big]
