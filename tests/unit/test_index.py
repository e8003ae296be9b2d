"""The index is a cache: with it a store costs one read, without it or with a bad one nothing else is different."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from opsproof.archive.catalogue.index import NAME, Contents, read_contents, write_index
from opsproof.archive.manifest import to_json
from opsproof.errors import StoreDenied, StoreError
from opsproof.system.store import Store, open_store
from opsproof.target import DirectoryStoreSettings
from tests.lab.manifests import manifest_of, sidecar_of
from tests.lab.stocks import put_backup

NOW = datetime(2026, 11, 18, 12, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(DirectoryStoreSettings(tmp_path), "")


@pytest.fixture
def full(store: Store) -> list[str]:
    return [put_backup(store, NOW - timedelta(days=days)) for days in range(5)]


def said(contents: Contents) -> dict[str, datetime]:
    return {backup: line.said.taken for backup, line in contents.lines.items()}


def index_of(store: Store, folder: Path) -> Path:
    return folder / write_index(store, read_contents(store).lines.values(), NOW).name


def test_an_index_says_what_the_sidecars_said(store: Store, full: list[str], tmp_path: Path) -> None:
    without = read_contents(store)
    assert (without.read, sorted(without.lines)) == (5, sorted(full))
    path = index_of(store, tmp_path)
    assert NAME.fullmatch(path.relative_to(tmp_path).as_posix())
    indexed = read_contents(store)
    assert indexed.read == 0
    assert dict(indexed.lines) == dict(without.lines)
    line = indexed.lines[full[0]]
    assert (line.said.environment, line.said.database, line.said.taken) == ("prod", "shop", NOW)
    assert line.said.system_identifier == "7300000000000000001"


def test_only_what_is_new_or_looks_otherwise_is_read(store: Store, full: list[str], tmp_path: Path) -> None:
    index_of(store, tmp_path)
    new = put_backup(store, NOW + timedelta(hours=1))
    changed = tmp_path / f"{full[2]}.manifest.json"
    taken = NOW - timedelta(days=100)
    changed.write_bytes(changed.read_bytes().replace(b"2026-11-16T12:00:00Z", b"2026-08-10T12:00:00Z"))
    (tmp_path / f"{full[3]}.manifest.json").unlink()
    contents = read_contents(store)
    assert contents.read == 2
    assert said(contents)[full[2]] == taken
    assert sorted(contents.lines) == sorted([new, *full[:3], full[4]])
    assert list(contents.gone) == [full[3]]


def cut(data: bytes) -> bytes:
    return data[:-20]


def flip(data: bytes) -> bytes:
    return data[:60] + bytes([data[60] ^ 255]) + data[61:]


def extend(data: bytes) -> bytes:
    return data + gzip.compress(b"{}")


def edited(**changes: object) -> Callable[[bytes], bytes]:
    return lambda data: gzip.compress(json.dumps({**json.loads(gzip.decompress(data)), **changes}).encode())


def renamed(data: bytes) -> bytes:
    """What one sidecar says, under the name of another."""
    index = json.loads(gzip.decompress(data))
    index["lines"][0]["said"], index["lines"][1]["said"] = index["lines"][1]["said"], index["lines"][0]["said"]
    return gzip.compress(json.dumps(index).encode())


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        flip,
        extend,
        renamed,
        edited(format_version=2),
        edited(format="somebody's index"),
        edited(lines=[{"sidecar": "x"}]),
        lambda _: b"",
        lambda _: b"no gzip",
        lambda _: gzip.compress(b"[1, 2]"),
        lambda _: gzip.compress(b"\xff\xfe"),
    ],
    ids=[
        "cut",
        "flipped",
        "longer",
        "renamed",
        "future",
        "foreign",
        "shapeless",
        "empty",
        "no gzip",
        "list",
        "no text",
    ],
)
def test_a_bad_index_is_as_good_as_none(
    store: Store, full: list[str], tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    before = dict(read_contents(store).lines)
    path = index_of(store, tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    contents = read_contents(store)
    assert dict(contents.lines) == before
    assert contents.read == len(full)


def test_what_unpacks_to_more_than_any_index_is_none(store: Store, full: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip # noqa: E501
    index_of(store, tmp_path)
    monkeypatch.setattr("opsproof.archive.catalogue.index.MOST_UNPACKED", 1000)
    assert read_contents(store).read == len(full)


def test_a_bad_index_leaves_the_one_before_it_in_force(store: Store, full: list[str], tmp_path: Path) -> None:
    index_of(store, tmp_path)
    (tmp_path / "index/2030-01-01_00-00-00-00000000.json.gz").write_bytes(b"cut")
    assert read_contents(store).read == 0
    assert len(read_contents(store).indexes) == 2


def test_sidecars_that_cannot_be_taken_for_one_are_told_each(store: Store, full: list[str], tmp_path: Path) -> None:
    (tmp_path / f"{full[0]}.manifest.json").write_bytes(b"{")
    copied = to_json(sidecar_of(manifest_of(id=full[2])))
    (tmp_path / f"{full[1]}.manifest.json").write_bytes(copied)
    contents = read_contents(store)
    assert dict(contents.problems) == {
        full[0]: f"{full[0]}.manifest.json is not a backup's manifest",
        full[1]: f"its manifest is that of {full[2]}",
    }
    assert sorted(contents.lines) == sorted(full[2:])


def test_what_is_in_other_folders_is_another_customers(tmp_path: Path) -> None:
    other = open_store(DirectoryStoreSettings(tmp_path), "acme")
    put_backup(other, NOW)
    contents = read_contents(open_store(DirectoryStoreSettings(tmp_path), ""))
    assert (dict(contents.listed), contents.read) == ({}, 0)


@pytest.mark.parametrize("error", [StoreDenied("no"), StoreError("broken")])
def test_a_sidecar_that_is_there_and_cannot_be_read_is_an_error(
    store: Store, full: list[str], monkeypatch: pytest.MonkeyPatch, error: StoreError
) -> None:
    def refuse(name: str) -> bytes:
        raise error

    monkeypatch.setattr(store, "get_small", refuse)
    with pytest.raises(type(error)):
        read_contents(store)
    monkeypatch.setattr(store, "exists", lambda name: False)
    if not isinstance(error, StoreDenied):
        assert read_contents(store).lines == {}  # gone between the listing and the reading
