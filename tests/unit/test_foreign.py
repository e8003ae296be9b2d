"""Others' backups without a server: what is recognised, what is read of them, and what nobody can verify."""

from __future__ import annotations

import os
import stat
import struct
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from opsproof.archive.foreign.recognising import open_foreign
from opsproof.archive.reading.backup import OpenedBackup
from opsproof.errors import ArchiveError
from tests.lab.foreign_backups import CUSTOM_DUMP, FILES, MANIFEST, ODOO, extracted, read_files, refusal
from tests.lab.foreign_inputs import (
    ATTACHMENTS,
    PLAIN_DUMP,
    attachment_name,
    gzip_of,
    write_files,
    write_zip,
)


def test_an_odoo_zip_is_read_whole(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", ODOO)
    backup: OpenedBackup = open_foreign(path)
    maker = "Odoo 17.0 zip, by its database manager or click-odoo-backupdb,"
    assert backup.description == f"{maker} of database prod: dump.sql and 3 files"
    assert (backup.manifest, list(backup.tables()), backup.roles()) == (None, [], None)
    assert (backup.database_format, backup.database_bytes) == ("plain", len(PLAIN_DUMP))
    assert (backup.files_count, backup.files_bytes) == (3, sum(map(len, ATTACHMENTS)))
    assert {(one.path, one.bytes, one.sha256) for one in backup.file_members()} == {
        (name, len(content), "") for name, content in FILES.items()
    }
    assert extracted(backup, tmp_path) == PLAIN_DUMP
    assert read_files(backup) == FILES
    wanted = attachment_name(b"one")
    assert [header.path for header, _ in backup.open_files(lambda one: one == wanted)] == [wanted]
    backup.close()


def test_what_nobody_can_verify_is_told(tmp_path: Path) -> None:
    whole = open_foreign(write_zip(tmp_path / "a.zip", ODOO)).unverified
    assert [one.split(":")[0] for one in whole] == [
        "It has no row counts",
        "It has no fingerprints",
        "It has no SHA-256",
    ]
    odd = {"dump.sql": PLAIN_DUMP, "filestore/report.pdf": b"x", "filestore/checklist/ab/abc": b"", "notes.txt": b"x"}
    told = open_foreign(write_zip(tmp_path / "b.zip", odd)).unverified[3:]
    assert told == (
        "1 file(s) of its filestore are not named by their SHA-1: what they held is unknown.",
        "1 more file(s) at its top were passed over, unread: notes.txt.",
    )
    (tmp_path / "c.dump").write_bytes(CUSTOM_DUMP)
    bare = open_foreign(tmp_path / "c.dump").unverified
    assert any("no filestore" in one for one in bare)
    assert any("no checksum" in one for one in bare)


def test_what_is_extracted_is_for_its_owner_alone_and_overwrites_nothing(tmp_path: Path) -> None:
    backup = open_foreign(write_zip(tmp_path / "x.zip", ODOO))
    previous = os.umask(0)
    try:
        backup.extract_database(tmp_path / "new.sql")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "new.sql").stat().st_mode) == 0o600
    (tmp_path / "old.sql").write_bytes(b"precious")
    with pytest.raises(ArchiveError, match="cannot be unpacked"):
        backup.extract_database(tmp_path / "old.sql")
    assert (tmp_path / "old.sql").read_bytes() == b"precious"


def test_the_custom_dump_is_taken_where_there_is_sql_too(tmp_path: Path) -> None:
    members = {"prod_2026-01-31_02-00-00.dump": CUSTOM_DUMP, "prod_2026-01-31_02-00-00.sql": PLAIN_DUMP}
    backup = open_foreign(write_zip(tmp_path / "x.zip", members))
    assert backup.database_format == "custom"
    assert extracted(backup, tmp_path) == CUSTOM_DUMP
    assert backup.description == "zip without a manifest of database prod: prod_2026-01-31_02-00-00.dump, no files"
    alone = write_zip(tmp_path / "y.zip", dict(list(members.items())[1:]))
    assert open_foreign(alone).database_format == "plain"


@pytest.mark.parametrize(
    ("names", "wanted", "expected"),
    [
        (["{sha}"], None, ""),
        (["prod/{sha}"], None, "prod/"),
        (["prod/{sha}"], "prod", "prod/"),
        (["renamed/{sha}"], None, "renamed/"),
        (["{sha}", "checklist/{sha}"], "prod", ""),
        (["prod/{sha}", "other/{sha}"], None, "prod/"),
        (["prod/{sha}", "other/{sha}"], "other", "other/"),
        (["{sha}", "other/{sha}"], "other", "other/"),
        (["prod/report.pdf"], None, "prod/"),
        (["documents/report.pdf"], None, ""),
        (["one/{sha}", "two/{sha}"], None, "ArchiveError"),
        (["prod/{sha}", "other/{sha}"], "third", "ArchiveError"),
        (["{sha}", "other/{sha}"], None, "ArchiveError"),
    ],
)
def test_the_filestore_of_the_database_is_found(
    tmp_path: Path, names: list[str], wanted: str | None, expected: str
) -> None:
    sha = attachment_name(b"one")
    files = {f"filestore/{name.format(sha=sha)}": b"one" for name in names}
    path = write_zip(tmp_path / "x.zip", {"dump.sql": PLAIN_DUMP, "manifest.json": MANIFEST, **files})
    if expected == "ArchiveError":
        assert "Nothing says which filestore" in refusal(path, wanted)
        return
    found = {f"filestore/{expected}{one.path}" for one in open_foreign(path, wanted).file_members()}
    assert found == {name for name in files if name.startswith(f"filestore/{expected}")}


def test_a_gzipped_dump_is_recognised_whatever_its_name(tmp_path: Path) -> None:
    for name, content, form in (("a.gz", PLAIN_DUMP, "plain"), ("b", CUSTOM_DUMP, "custom")):
        backup = open_foreign(gzip_of(tmp_path / name, content))
        assert (backup.database_format, backup.database_bytes) == (form, len(content))
        assert extracted(backup, tmp_path) == content
        assert backup.description.endswith(", in gzip: no files")


def test_a_zip_with_a_comment_and_folders_is_read(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {"filestore/": b"", "filestore/ab/": b"", **ODOO})
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"made on a PK\x05\x06 Monday" + bytes(30)
    assert read_files(open_foreign(path)) == FILES


@pytest.mark.parametrize("is_wide", [True, False], ids=["needed", "not needed"])
def test_a_zip64_end_record_is_read_and_believed_only_if_the_plain_one_agrees(tmp_path: Path, is_wide: bool) -> None:
    path = write_zip(tmp_path / "x.zip", ODOO)
    data = path.read_bytes()
    signature, *parts, _, count, length, start, comment = struct.unpack("<IHHHHIIH", data[-22:])
    end = data[-22:]
    if is_wide:
        limits = (0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF)
        end = struct.pack("<IHHHHIIH", signature, *parts, *limits, comment)
    for members, is_read in ((count, True), (count - 1, False)):
        record = struct.pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, members, members, length, start)
        locator = struct.pack("<IIQI", 0x07064B50, 0, len(data) - 22, 1)
        path.write_bytes(data[:-22] + record + locator + end)
        if is_read:
            assert read_files(open_foreign(path)) == FILES
        else:
            assert ("longer than its members" if is_wide else "contradict each other") in refusal(path)


def test_names_that_are_no_utf_8_keep_their_bytes(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {**ODOO, "filestore/report-1.pdf": b"x"})
    path.write_bytes(path.read_bytes().replace(b"report-1", b"r\xe9port-1"[:8]))
    names = [os.fsencode(one.path) for one in open_foreign(path).file_members()]
    assert b"r\xe9port-.pdf" in names or b"r\xe9port-1.pdf" in names


def test_many_members_need_little_memory(tmp_path: Path) -> None:
    members = {f"filestore/{number % 256:02x}/{number:040x}": b"" for number in range(10_000)}
    path = write_zip(tmp_path / "x.zip", {"dump.sql": PLAIN_DUMP, **members}, compression=zipfile.ZIP_STORED)
    open_foreign(write_zip(tmp_path / "y.zip", ODOO))  # what is loaded once does not count
    tracemalloc.start()
    backup = open_foreign(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert backup.files_count == 10_000
    # The standard library's ZipFile takes 620 bytes for each.
    assert peak < 400 * 10_000


def test_a_folder_is_read_and_its_links_are_not_followed(tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    write_files(folder, ODOO)
    backup = open_foreign(folder)
    assert (extracted(backup, tmp_path), read_files(backup)) == (PLAIN_DUMP, FILES)
    (folder / "filestore" / "passwords").symlink_to("/etc/passwd")
    assert "no plain file" in refusal(folder)
