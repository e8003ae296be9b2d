"""The manifest: read as it was written, and the names of backups."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import datetime, timedelta, timezone

import pytest

from opsproof.archive.manifest import (
    Listing,
    Member,
    TableRecord,
    backup_id,
    file_name,
    is_backup_of,
    plain_backup_id,
    read_sidecar,
    table_records,
    to_json,
    write_listing,
)
from opsproof.errors import ArchiveError
from opsproof.system.postgres.copytext import Content
from tests.lab.manifests import TAKEN, manifest_of, sidecar_of

UNSAFE = [
    "a b",
    "a/b",
    "../../etc",
    "a'b",
    'a"b',
    "$(x)",
    "a;b",
    "-rf",
    ".",
    "..",
    "-",
    "Größe",
    "日本",
    "a\nb",
    "a\\b",
    " ",
]


def test_a_sidecar_is_read_as_it_was_written() -> None:
    sidecar = sidecar_of(tables=(TableRecord(table="public.t", rows=3, fingerprint=None),))
    assert read_sidecar(to_json(sidecar), "x") == sidecar
    assert sidecar.id == sidecar.manifest.id


def test_what_a_newer_release_adds_within_the_format_is_passed_over() -> None:
    content = json.loads(to_json(sidecar_of()))
    content["colour"] = content["manifest"]["flavour"] = "new"
    assert read_sidecar(json.dumps(content).encode(), "x") == sidecar_of()


def test_a_newer_format_is_an_error_that_says_how_to_upgrade() -> None:
    with pytest.raises(ArchiveError, match="newer opsproof") as caught:
        read_sidecar(to_json(sidecar_of(manifest_of(format_version=2, opsproof_version="9.9"))), "x.manifest.json")
    assert "9.9" in caught.value.found
    assert "pip install --upgrade opsproof" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"\xff\xfe", b'{"manifest": {"format": "other"}}', b"<xml/>"])
def test_anything_else_is_not_a_manifest(data: bytes) -> None:
    with pytest.raises(ArchiveError, match=r"x\.manifest\.json is not a backup's manifest"):
        read_sidecar(data, "x.manifest.json")


def test_every_cut_of_a_sidecar_is_an_error() -> None:
    data = to_json(sidecar_of()).rstrip()
    for cut in range(0, len(data), 97):
        with pytest.raises(ArchiveError):
            read_sidecar(data[:cut], "x")


def test_a_listing_is_json_lines_with_their_sha_256() -> None:
    records = [Member(path="a", bytes=1, sha256="x"), Member(path="l", bytes=2, sha256="y", link="a")]
    data, sha256 = write_listing(records)
    assert [json.loads(line) for line in data.splitlines()] == [
        {"path": "a", "bytes": 1, "sha256": "x"},
        {"path": "l", "bytes": 2, "sha256": "y", "link": "a"},
    ]
    assert sha256 == hashlib.sha256(data).hexdigest()


def test_a_listing_keeps_the_bytes_of_a_name_that_is_no_utf_8() -> None:
    listing = Listing()
    line = listing.line(Member(path=os.fsdecode(b"filestore/caf\xe9"), bytes=1, sha256="x"))
    assert b"filestore/caf\xe9" in line
    assert listing.sha256 == hashlib.sha256(line).hexdigest()


def test_a_line_feed_in_a_name_makes_no_second_line() -> None:
    data, _ = write_listing([Member(path="two\nlines", bytes=1, sha256="x")])
    assert data.count(b"\n") == 1
    assert json.loads(data)["path"] == "two\nlines"


def test_tables_are_listed_by_name() -> None:
    records = list(table_records({"public.b": Content(2, "f"), "public.a": Content(1, None)}))
    assert [(one.table, one.rows, one.fingerprint) for one in records] == [
        ("public.a", 1, None),
        ("public.b", 2, "f"),
    ]


@pytest.mark.parametrize("name", ["prod", "Prod_1", "a.b-c", "_x", "0"])
def test_a_safe_name_stays_as_it_is(name: str) -> None:
    assert file_name(name) == name


@pytest.mark.parametrize("name", UNSAFE)
def test_an_unsafe_name_becomes_a_safe_one(name: str) -> None:
    safe = file_name(name)
    assert safe[0] not in "-."
    assert all(letter.isascii() and (letter.isalnum() or letter in "_.-") for letter in safe)
    assert safe != name


def test_different_names_stay_different() -> None:
    names = [*UNSAFE, "a_b", "a.b", "A b", "a  b"]
    assert len({file_name(name) for name in names}) == len(names)


def test_ids_bear_the_snapshots_time_in_utc() -> None:
    eastern = TAKEN.astimezone(timezone(timedelta(hours=9)))
    assert backup_id("acme", eastern) == "acme_2024-03-05_01-02-03"
    assert plain_backup_id("prod", eastern) == "backup_prod_20240305_010203"


@pytest.mark.parametrize("database", ["acme", "A b", "Größe", "-", "x_2024-01-01_00-00-00"])
def test_a_backup_is_known_by_its_name(database: str) -> None:
    taken = datetime.fromisoformat("2024-12-31T23:59:59+00:00")
    for name in (f"{backup_id(database, taken)}.zip", f"{backup_id(database, taken)}_2.zip"):
        assert is_backup_of(name, database, "prod")
        assert not is_backup_of(name, database + "2", "prod")
        assert not is_backup_of(name, database[1:] or "other", "prod")
        assert not is_backup_of("x" + name, database, "prod")
        assert not is_backup_of(name + ".part", database, "prod")
    for name in (f"{plain_backup_id('prod', taken)}.sql", f"{plain_backup_id('prod', taken)}_3.sql"):
        assert is_backup_of(name, database, "prod")
        assert not is_backup_of(name, database, "staging")


def test_a_pattern_in_a_databases_name_is_no_pattern() -> None:
    assert not is_backup_of("axb_2024-03-05_01-02-03.zip", "a.b", "prod")
