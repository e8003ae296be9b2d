"""Damage to others' backups never goes unnoticed: no flipped byte, no cut, no header that lies, no bomb."""

from __future__ import annotations

import os
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from opsproof.archive.foreign.recognising import open_foreign
from opsproof.errors import ArchiveError
from tests.lab.foreign_backups import MANIFEST, ODOO, extracted, read_files, refusal
from tests.lab.foreign_inputs import (
    PLAIN_DUMP,
    attachment_name,
    patch_member,
    write_files,
    write_zip,
)


def test_attachments_that_are_not_what_their_name_says_are_reported(tmp_path: Path) -> None:
    name = attachment_name(b"one")
    backup = open_foreign(write_zip(tmp_path / "x.zip", {**ODOO, f"filestore/{name}": b"onE"}))
    assert backup.damaged == ()
    assert backup.verify() == (name,)
    assert backup.unverified[-1] == f"1 file(s) of its filestore do not hold what their name says: {name}."


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
