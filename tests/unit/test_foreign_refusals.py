"""What is no backup, or not a safe one, is refused before anything is read, with what is known of it."""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from opsproof.archive.foreign.recognising import open_foreign
from opsproof.errors import ArchiveError
from tests.lab.foreign_backups import CUSTOM_DUMP, ODOO, refusal
from tests.lab.foreign_inputs import (
    PLAIN_DUMP,
    write_files,
    write_odd_zip,
    write_zip,
)


def test_a_dump_that_may_not_be_run_leaves_no_file(tmp_path: Path) -> None:
    for number, text in enumerate((PLAIN_DUMP.replace(b"SELECT 1;", b"\\! id"), PLAIN_DUMP[:-60])):
        backup = open_foreign(write_zip(tmp_path / f"{number}.zip", {**ODOO, "dump.sql": text}))
        with pytest.raises(ArchiveError):
            backup.extract_database(tmp_path / "new.sql")
        assert not (tmp_path / "new.sql").exists()


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
        (gzip.compress(b"", mtime=0), "is empty"),
        (gzip.compress(b"hello", mtime=0), "one of these"),
        (gzip.compress(PLAIN_DUMP, mtime=0)[:-4], "does not unpack"),
        (gzip.compress(PLAIN_DUMP, mtime=0) + b"more", "does not unpack"),
    ],
)
def test_what_is_no_backup_is_refused_with_what_is_known(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "backup.dump"
    path.write_bytes(content)
    assert words in refusal(path)


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


def test_a_pipe_in_a_folder_is_not_waited_for(tmp_path: Path) -> None:
    write_files(tmp_path / "backup", ODOO)
    os.mkfifo(tmp_path / "backup" / "filestore" / "pipe")
    assert "no plain file" in refusal(tmp_path / "backup")
    os.mkfifo(tmp_path / "pipe")
    assert "neither a file nor a folder" in refusal(tmp_path / "pipe")


def test_a_path_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path / "none.zip")
