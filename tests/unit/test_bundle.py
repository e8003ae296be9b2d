"""The bundle: its members, its listing, and what it says of the files."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from opsproof.archive.writing.bundle import Bundle, FilesWritten
from opsproof.archive.writing.spool import Spool
from opsproof.errors import ArchiveError
from opsproof.system.files.filestore import FileHeader


def addressed(data: bytes) -> str:
    sha1 = hashlib.sha1(data).hexdigest()
    return f"{sha1[:2]}/{sha1}"


def files(
    content: dict[str, bytes], links: dict[str, str] | None = None
) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
    for path, data in content.items():
        yield FileHeader(path, len(data), None), iter([data[at : at + 100_000] for at in range(0, len(data), 100_000)])
    for path, target in (links or {}).items():
        yield FileHeader(path, 0, target), iter(())


def write(content: dict[str, bytes], wanted: set[str] | None) -> tuple[FilesWritten, zipfile.ZipFile]:
    out = io.BytesIO()
    bundle = Bundle(out.write)
    written = bundle.add_files(files(content), wanted)
    bundle.finish(b"{}")
    bundle.close()
    return written, zipfile.ZipFile(out)


def test_every_member_is_listed_with_size_and_sha_256(tmp_path: Path) -> None:
    out = io.BytesIO()
    bundle = Bundle(out.write)
    data = {"ab/x": b"x" * 3_000_000, "ab/y": os.urandom(2_000_000), "small": b"s", "none": b""}
    with Spool(tmp_path) as spool:
        spool.write(b"dump " * 1_000)
        spool.finish()
        bundle.add_text("RESTORE.txt", b"how to")
        bundle.add_spool("x.dump", spool)
        bundle.add_files(files(data, {"link": "ab/x"}), None)
    sha256, members, size = bundle.members_sha256, bundle.members, bundle.member_bytes
    bundle.finish(b'{"x": 1}')
    bundle.close()
    assert bundle.size == len(out.getvalue())
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        listing = archive.read("members.jsonl")
        records = [json.loads(line) for line in listing.splitlines()]
        assert hashlib.sha256(listing).hexdigest() == sha256
        assert archive.namelist() == [*(one["path"] for one in records), "members.jsonl", "manifest.json"]
        for one in records:
            content = archive.read(one["path"])
            assert (len(content), hashlib.sha256(content).hexdigest()) == (one["bytes"], one["sha256"])
        assert {name: archive.read(f"filestore/{name}") for name in data} == data
        assert archive.read("manifest.json") == b'{"x": 1}'
    assert (members, size) == (len(records), sum(one["bytes"] for one in records))
    assert records[-1] == {**records[-1], "path": "filestore/link", "link": "ab/x"}


def test_what_does_not_compress_is_stored() -> None:
    big, small = os.urandom(2_000_000), os.urandom(2_000)
    _, archive = write({"big": big, "small": small, "text": b"words " * 1_000, "long": b"words " * 500_000}, None)
    methods = {info.filename.removeprefix("filestore/"): info.compress_type for info in archive.infolist()}
    assert methods["big"] == methods["small"] == zipfile.ZIP_STORED
    assert methods["text"] == methods["long"] == zipfile.ZIP_DEFLATED


def test_every_attachment_is_found() -> None:
    content = {addressed(data): data for data in (b"one", b"two", b"three" * 500_000)}
    written, _ = write(content, set(content))
    assert written == FilesWritten(3, 6 + 2_500_000, (), ())


def test_a_missing_attachment_is_told() -> None:
    gone = addressed(b"gone")
    written, _ = write({addressed(b"one"): b"one"}, {addressed(b"one"), gone})
    assert (written.missing, written.damaged) == ((gone,), ())


def test_a_damaged_attachment_is_told() -> None:
    name, big = addressed(b"one"), addressed(b"2" * 3_000_000)
    written, archive = write({name: b"onE", big: b"3" * 3_000_000}, {name, big})
    assert (written.missing, written.damaged) == ((), (name, big))
    assert archive.read(f"filestore/{name}") == b"onE"


def test_a_damaged_orphan_is_nobodys_loss() -> None:
    orphan = addressed(b"one")
    assert write({orphan: b"onE"}, set())[0].damaged == ()
    assert write({orphan: b"onE"}, None)[0].damaged == (orphan,)


def test_files_beside_the_attachments_are_kept() -> None:
    content = {addressed(b"one"): b"one", "checklist/ab/abc": b"", "notes.txt": b"hello"}
    written, archive = write(content, {addressed(b"one")})
    assert (written.files, written.missing, written.damaged) == (3, (), ())
    assert {f"filestore/{path}" for path in content} <= set(archive.namelist())


def test_a_file_that_shrinks_while_it_is_read_is_an_error() -> None:
    bundle = Bundle(io.BytesIO().write)
    header = FileHeader("shrunk", 3_000_000, None)
    with pytest.raises(ArchiveError, match="shrunk changed"):
        bundle.add_files([(header, iter([b"x" * 1_000_000]))], None)
    bundle.close()


def test_many_files_need_no_memory(tmp_path: Path) -> None:
    """Names and records of 30,000 files wait in temporary files, not in memory."""
    import tracemalloc

    with (tmp_path / "x.zip").open("wb") as file:
        bundle = Bundle(file.write)
        tracemalloc.start()
        bundle.add_files(((FileHeader(f"f/{n:07}", 1, None), iter([b"x"])) for n in range(30_000)), None)
        bundle.finish(b"{}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        bundle.close()
    assert peak < 8_000_000
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert len(archive.infolist()) == 30_002
