"""Others' backups without a server: what is recognised, what is refused, and that damage never goes unnoticed."""

from __future__ import annotations

import gzip
import json
import os
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from opsproof.archive.foreign import open_foreign
from opsproof.archive.reading import OpenedBackup
from opsproof.errors import ArchiveError
from tests.lab.foreign_inputs import (
    ATTACHMENTS,
    DATA,
    PLAIN_DUMP,
    attachment_name,
    gzip_of,
    patch_member,
    write_files,
    write_odd_zip,
    write_zip,
)

FILES = {attachment_name(content): content for content in ATTACHMENTS}
MANIFEST = json.dumps({"odoo_dump": "1", "db_name": "prod", "version": "17.0", "modules": {}}).encode()
ODOO = {"dump.sql": PLAIN_DUMP, "manifest.json": MANIFEST, **{f"filestore/{name}": FILES[name] for name in FILES}}
CUSTOM_DUMP = (DATA / "odoo-manager.dump").read_bytes()[:5000]


def read_files(backup: OpenedBackup) -> dict[str, bytes]:
    return {header.path: b"".join(chunks) for header, chunks in backup.open_files(lambda _: True)}


def extracted(backup: OpenedBackup, folder: Path) -> bytes:
    path = folder / "extracted"
    backup.extract_database(path)
    data = path.read_bytes()
    path.unlink()
    return data


def refusal(path: Path, filestore_database: str | None = None) -> str:
    with pytest.raises(ArchiveError) as caught:
        open_foreign(path, filestore_database).verify()
    assert caught.value.kept == "nothing was changed"
    assert caught.value.expected
    assert caught.value.found
    assert caught.value.hint
    return str(caught.value)


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


def test_a_dump_that_may_not_be_run_leaves_no_file(tmp_path: Path) -> None:
    for number, text in enumerate((PLAIN_DUMP.replace(b"SELECT 1;", b"\\! id"), PLAIN_DUMP[:-60])):
        backup = open_foreign(write_zip(tmp_path / f"{number}.zip", {**ODOO, "dump.sql": text}))
        with pytest.raises(ArchiveError):
            backup.extract_database(tmp_path / "new.sql")
        assert not (tmp_path / "new.sql").exists()


def test_attachments_that_are_not_what_their_name_says_are_reported(tmp_path: Path) -> None:
    name = attachment_name(b"one")
    backup = open_foreign(write_zip(tmp_path / "x.zip", {**ODOO, f"filestore/{name}": b"onE"}))
    assert backup.damaged == ()
    assert backup.verify() == (name,)
    assert backup.unverified[-1] == f"1 file(s) of its filestore do not hold what their name says: {name}."


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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello", "one of these"),
        (b"-- MySQL dump 10.13\n", "one of these"),
        (b"PK\x05\x06" + bytes(18), "one of these"),
        (b"PGDMP\x01\x0e", "cut or damaged in its header"),
        (CUSTOM_DUMP[:60], "cut or damaged in its header"),
        (CUSTOM_DUMP[:10] + b"\x03" + CUSTOM_DUMP[11:], "directory-format"),
        (b"--\n-- PostgreSQL database cluster dump\n--\n", "whole server"),
        (gzip.compress(b""), "is empty"),
        (gzip.compress(b"hello"), "one of these"),
        (gzip.compress(PLAIN_DUMP)[:-4], "does not unpack"),
        (gzip.compress(PLAIN_DUMP) + b"more", "does not unpack"),
    ],
)
def test_what_is_no_backup_is_refused_with_what_is_known(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "backup.dump"
    path.write_bytes(content)
    assert words in refusal(path)


def test_a_gzipped_dump_is_recognised_whatever_its_name(tmp_path: Path) -> None:
    for name, content, form in (("a.gz", PLAIN_DUMP, "plain"), ("b", CUSTOM_DUMP, "custom")):
        backup = open_foreign(gzip_of(tmp_path / name, content))
        assert (backup.database_format, backup.database_bytes) == (form, len(content))
        assert extracted(backup, tmp_path) == content
        assert backup.description.endswith(", in gzip: no files")


def test_our_own_bundle_is_not_read_without_its_proof(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {**ODOO, "manifest.json": b'{"format": "opsproof-backup"}'})
    assert "opsproof's own" in refusal(path)


def test_of_two_dumps_none_is_guessed(tmp_path: Path) -> None:
    assert "several dumps" in refusal(write_zip(tmp_path / "x.zip", {"a.sql": PLAIN_DUMP, "b.sql": PLAIN_DUMP}))


def test_a_tar_of_a_directory_dump_is_no_plain_dump(tmp_path: Path) -> None:
    (tmp_path / "toc.dat").write_bytes(CUSTOM_DUMP)
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        archive.add(tmp_path / "toc.dat", "toc.dat")
    assert "pg_restore --file=dump.sql" in refusal(tmp_path / "x.tar")


@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "filestore/../../x",
        "/etc/passwd",
        "filestore//x",
        "filestore/./x",
        "a\\b",
        "a\nb",
        "a\x1b[2Jb",
        "x" * 300,
    ],
)
def test_a_name_that_is_not_safe_is_refused_before_anything_is_read(tmp_path: Path, name: str) -> None:
    text = refusal(write_zip(tmp_path / "x.zip", {**ODOO, name: b"x"}))
    assert "not safe" in text
    assert text.replace("\n", "").isprintable()


def test_a_name_that_ends_at_a_nul_for_others_is_refused(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "x.zip", {**ODOO, "filestore/a0b": b"x"})
    path.write_bytes(path.read_bytes().replace(b"filestore/a0b", b"filestore/a\0b"))
    assert "not safe" in refusal(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    one, two = zipfile.ZipInfo("dump.sql"), zipfile.ZipInfo("dump.sql")
    assert "twice" in refusal(write_odd_zip(tmp_path / "x.zip", (one, PLAIN_DUMP), (two, b"other")))
    assert "at once" in refusal(write_zip(tmp_path / "y.zip", {**ODOO, "filestore/a": b"", "filestore/a/b": b""}))
    assert "file and a folder" in refusal(
        write_zip(tmp_path / "z.zip", {**ODOO, "filestore/a": b"", "filestore/a/": b""})
    )


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFSOCK])
def test_links_and_devices_are_refused(tmp_path: Path, kind: int) -> None:
    info = zipfile.ZipInfo("filestore/link")
    info.external_attr = (kind | 0o777) << 16
    assert "no plain file" in refusal(write_odd_zip(tmp_path / "x.zip", (info, b"/etc/passwd")))


@pytest.mark.parametrize(
    ("field", "value", "sides", "words"),
    [
        ("flags", 1, (True, True), "encrypted"),
        ("method", 12, (True, True), "method 12"),
        ("size", len(PLAIN_DUMP) - 1, (True, True), "not as long"),
        ("size", len(PLAIN_DUMP) + 1, (True, True), "not as long"),
        ("size", 3_000_000_000, (True, True), "declared"),
        ("size", len(PLAIN_DUMP) + 1, (False, True), "another size"),
        ("crc", 1, (True, True), "CRC-32"),
        ("crc", 1, (True, False), "another size or CRC-32"),
        ("method", 0, (True, False), "another kind of compression"),
        ("offset", 1, (False, True), "another name"),
        ("offset", 1 << 31, (False, True), "is not in it"),
        ("packed", 1 << 31, (True, True), "is not in it"),
    ],
)
def test_headers_that_lie_are_found_out(
    tmp_path: Path, field: str, value: int, sides: tuple[bool, bool], words: str
) -> None:
    path = write_zip(tmp_path / "x.zip", ODOO)
    patch_member(path, b"dump.sql", field, value, local=sides[0], central=sides[1])
    assert words in refusal(path)


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    """A small zip of many members that are all the same bytes unpacks to as much as one likes."""
    path = write_zip(tmp_path / "x.zip", {"aaaa.sql": PLAIN_DUMP, "filestore/bbbb": b"x" * 100})
    data = path.read_bytes()
    inner = data[: data.index(b"PK\x03\x04", 4)]
    # A stored member whose content is another, whole member.
    path = write_zip(tmp_path / "y.zip", {"filestore/outer": inner, "dump.sql": PLAIN_DUMP}, compression=0)
    offset = path.read_bytes().index(inner)
    forged = bytearray(path.read_bytes())
    at = forged.index(b"PK\x01\x02", forged.index(b"PK\x01\x02") + 4)
    record = bytearray(data[data.index(b"PK\x01\x02") :][: 46 + len(b"aaaa.sql")])
    record[42:46] = offset.to_bytes(4, "little")
    end = forged.index(b"PK\x05\x06")
    forged[at:end] = record
    forged[-10:-6] = (int.from_bytes(forged[-10:-6], "little") - (end - at) + len(record)).to_bytes(4, "little")
    path.write_bytes(forged)
    assert zipfile.ZipFile(path).namelist() == ["filestore/outer", "aaaa.sql"]
    assert "overlap" in refusal(path)


def test_a_bomb_stops_at_what_it_declares(tmp_path: Path) -> None:
    bomb = PLAIN_DUMP + b"\n" * 100_000_000
    path = write_zip(tmp_path / "x.zip", {"dump.sql": bomb})
    patch_member(path, b"dump.sql", "size", 300_000)
    tracemalloc.start()
    with pytest.raises(ArchiveError, match="not as long"):
        open_foreign(path).extract_database(tmp_path / "new.sql")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8_000_000
    assert not (tmp_path / "new.sql").exists()


def test_more_than_a_tebibyte_is_no_backup(tmp_path: Path) -> None:
    write_files(tmp_path / "backup", {**ODOO, "filestore/sparse": b""})
    os.truncate(tmp_path / "backup" / "filestore" / "sparse", 1 << 40)
    assert "more than a backup may hold" in refusal(tmp_path / "backup")


def sweep(path: Path, broken: Callable[[bytes, int], bytes], folder: Path) -> int:
    """Open a zip broken at each of its bytes: an ArchiveError, or all of what was backed up. Return the errors."""
    whole, errors = path.read_bytes(), 0
    target = folder / "broken.zip"
    for at in range(len(whole)):
        target.write_bytes(broken(whole, at))
        try:
            backup = open_foreign(target)
            assert backup.verify() == ()
            assert (extracted(backup, folder), read_files(backup)) == (PLAIN_DUMP, {attachment_name(b"one"): b"one"}), (
                at
            )
        except ArchiveError:
            errors += 1
    return errors


def test_no_flipped_byte_goes_unnoticed(tmp_path: Path) -> None:
    members = {"dump.sql": PLAIN_DUMP, "manifest.json": MANIFEST, f"filestore/{attachment_name(b'one')}": b"one"}
    path = write_zip(tmp_path / "x.zip", members)
    flipped = sweep(path, lambda data, at: data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :], tmp_path)
    # The rest are times, versions and modes, which nothing of the backup hangs on.
    assert flipped > 0.8 * path.stat().st_size


def test_no_cut_goes_unnoticed(tmp_path: Path) -> None:
    members = {"dump.sql": PLAIN_DUMP, f"filestore/{attachment_name(b'one')}": b"one"}
    path = write_zip(tmp_path / "x.zip", members)
    assert sweep(path, lambda data, at: data[:at], tmp_path) == path.stat().st_size
    assert sweep(path, lambda data, at: data + b"x", tmp_path) == path.stat().st_size


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


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    write_files(tmp_path / "backup", ODOO)
    os.mkfifo(tmp_path / "backup" / "filestore" / "pipe")
    assert "no plain file" in refusal(tmp_path / "backup")
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refusal(tmp_path / "pipe")


def test_a_file_that_shrinks_after_it_was_looked_at_is_noticed(tmp_path: Path) -> None:
    write_files(tmp_path / "backup", ODOO)
    backup = open_foreign(tmp_path / "backup")
    (tmp_path / "backup" / "dump.sql").write_bytes(PLAIN_DUMP[:-1])
    with pytest.raises(ArchiveError, match="not as long"):
        backup.extract_database(tmp_path / "new.sql")
    write_files(tmp_path / "backup", ODOO)
    backup = open_foreign(tmp_path / "backup")
    (tmp_path / "backup" / "dump.sql").unlink()
    (tmp_path / "backup" / "dump.sql").symlink_to("/etc/passwd")
    with pytest.raises(ArchiveError, match="cannot be read"):
        backup.extract_database(tmp_path / "new.sql")


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "none.zip")
