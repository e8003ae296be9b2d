"""Bundles cut, flipped and spliced at will: what is not refused reads as it was written."""

from __future__ import annotations

import re
import struct
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from opsproof.archive.reading.backup import open_bundle
from opsproof.errors import ArchiveError
from tests.lab.bundles import Content, Piece, compose, pieces, read_all, write_bundle


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, Content, Path]:
    """A bundle of the real writer, what it holds, and a folder to work in."""
    folder = tmp_path_factory.mktemp("small")
    write_bundle(folder / "x.zip")
    with closing(open_bundle(folder / "x.zip")) as opened:
        return (folder / "x.zip").read_bytes(), read_all(opened, folder), folder


def read_or_refuse(data: bytes, content: Content, folder: Path) -> bool:
    """Read a bundle that is not as it was written; tell whether it was refused. What it gives out is the original."""
    path = folder / "y.zip"
    path.write_bytes(data)
    try:
        with closing(open_bundle(path)) as opened:
            opened.verify()
            found = read_all(opened, folder)
    except ArchiveError as error:
        told = error
    else:
        assert found == content
        return False
    assert told.kept == "nothing was changed"
    return True


EVERY = pytest.param(1, marks=pytest.mark.slow)


@pytest.mark.parametrize("step", [7, EVERY])
def test_cut_anywhere_it_is_refused(small: tuple[bytes, Content, Path], step: int) -> None:
    data, content, folder = small
    assert not read_or_refuse(data, content, folder)
    for length in (*range(0, len(data), step), *range(len(data) - 60, len(data))):
        assert read_or_refuse(data[:length], content, folder), length


@pytest.mark.parametrize("step", [7, EVERY])
def test_a_flipped_bit_anywhere_is_refused_or_harmless(small: tuple[bytes, Content, Path], step: int) -> None:
    data, content, folder = small
    accepted = set()
    for at in range(0, len(data), step):
        wrong = bytearray(data)
        wrong[at] ^= 1 << at % 8
        if not read_or_refuse(bytes(wrong), content, folder):
            accepted.add(at)
    start = struct.unpack_from("<I", data, len(data) - 6)[0]
    # A deflate stream can say the same in another way; of a central record the writer's version, the internal
    # attributes and the permissions say nothing that is read.
    unread = set()
    for record in re.finditer(rb"PK\x01\x02", data[start:]):
        at = start + record.start()
        packed, _, name_length, extra_length = struct.unpack_from("<IIHH", data, at + 20)
        begin = struct.unpack_from("<I", data, at + 42)[0] + 30 + name_length + extra_length
        is_deflated = data[at + 10] == 8
        unread |= {at + 4, *range(at + 36, at + 42), *range(begin, begin + packed * is_deflated)}
    assert accepted <= unread
    assert len(accepted) < len(data) // 20


FUZZ = settings(
    max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(st.data())
def test_whatever_is_spliced_is_refused_or_harmless(small: tuple[bytes, Content, Path], choices: st.DataObject) -> None:
    data, content, folder = small
    places = st.integers(0, len(data))
    start, stop = sorted((choices.draw(places), choices.draw(places)))
    to, over = sorted((choices.draw(places), choices.draw(places)))
    kind = choices.draw(st.sampled_from(["copy", "remove", "swap", "noise", "zeros"]))
    piece = data[start:stop]
    spliced = {
        "copy": data[:to] + piece + data[over:],
        "remove": data[:start] + data[stop:],
        "swap": data[stop:] + data[:stop],
        "noise": data[:to] + choices.draw(st.binary(max_size=40)) + data[over:],
        "zeros": data[:start] + bytes(stop - start) + data[stop:],
    }[kind]
    refused = read_or_refuse(spliced, content, folder)
    assert refused or len(spliced) == len(data)


@FUZZ
@given(st.lists(st.tuples(st.integers(0, 1 << 30), st.integers(0, 255)), min_size=1, max_size=6))
def test_whatever_bytes_are_changed_it_is_refused_or_harmless(
    small: tuple[bytes, Content, Path], changes: list[tuple[int, int]]
) -> None:
    data, content, folder = small
    wrong = bytearray(data)
    for at, value in changes:
        wrong[at % len(data)] = value
    read_or_refuse(bytes(wrong), content, folder)


@FUZZ
@given(
    st.lists(
        st.tuples(
            st.lists(st.sampled_from(["a", "b", "..", ".", "", "é", "\\", "\n", "x" * 300]), min_size=1, max_size=4),
            st.none() | st.lists(st.sampled_from(["a", "b", "..", ".", "", "/"]), max_size=4),
        ),
        max_size=5,
    )
)
def test_whatever_names_and_links_it_holds_nothing_leads_out(
    small: tuple[bytes, Content, Path], drawn: list[tuple[list[str], list[str] | None]]
) -> None:
    """What opens can be laid out in a folder by plain means, and every link resolves inside it."""
    folder = small[2]
    files = [
        Piece("filestore/" + "/".join(parts), b"x" if target is None else "/".join(target).encode(), target is not None)
        for parts, target in drawn
    ]
    path = compose(folder / "z.zip", pieces(*files))
    try:
        opened = open_bundle(path)
    except ArchiveError:
        return
    with closing(opened):
        root = folder / f"out{len(list(folder.iterdir()))}" / "filestore"
        root.mkdir(parents=True)
        for header, chunks in opened.open_files(lambda path: True):
            place = root / header.path
            place.parent.mkdir(parents=True, exist_ok=True)
            assert place.parent.resolve() == place.parent
            if header.link is None:
                place.write_bytes(b"".join(chunks))
            else:
                place.symlink_to(header.link)
    for place in root.rglob("*"):
        if place.is_symlink():
            try:
                assert place.resolve().is_relative_to(root)
            except RuntimeError:
                assert place.readlink()  # links in a circle lead nowhere
