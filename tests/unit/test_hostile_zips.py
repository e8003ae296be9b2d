"""Zips that no writer of ours writes: forged records, hidden bytes, bombs."""

from __future__ import annotations

import os
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.archive.reading.backup import open_bundle
from opsproof.errors import ArchiveError
from opsproof.system.files.filestore import FileHeader
from tests.lab.bundles import FILE, Piece, compose, patch_central, patch_local, pieces, refuse, write_bundle
from tests.lab.manifests import STEM

NAME = FILE.name


class TestZip:
    """Fields of a zip's records, by their offset (APPNOTE 4.3.7, 4.3.12, 4.3.16)."""

    def good(self, tmp_path: Path) -> bytes:
        return compose(tmp_path / "good.zip", pieces(FILE)).read_bytes()

    def refuse(self, tmp_path: Path, data: bytes, words: str, **fields: str) -> None:
        (tmp_path / "x.zip").write_bytes(data)
        refuse(tmp_path / "x.zip", words, **fields)

    def test_an_encrypted_member(self, tmp_path: Path) -> None:
        data = patch_local(patch_central(self.good(tmp_path), NAME, 8, "<H", 1 | 1 << 11), NAME, 6, "<H", 1 | 1 << 11)
        self.refuse(tmp_path, data, NAME, found="encrypted")

    def test_an_unknown_method(self, tmp_path: Path) -> None:
        data = patch_local(patch_central(self.good(tmp_path), NAME, 10, "<H", 12), NAME, 8, "<H", 12)
        self.refuse(tmp_path, data, NAME, found="method 12")

    def test_a_part_of_several_files(self, tmp_path: Path) -> None:
        good = self.good(tmp_path)
        self.refuse(tmp_path, patch_central(good, NAME, 34, "<H", 1), NAME, found="a part in file 2")
        for offset in (4, 6):
            end = bytearray(good)
            struct.pack_into("<H", end, len(good) - 22 + offset, 1)
            self.refuse(tmp_path, bytes(end), "a zip in several files")
        fewer = bytearray(good)
        struct.pack_into("<H", fewer, len(good) - 22 + 8, 3)
        self.refuse(tmp_path, bytes(fewer), "a zip in several files")

    @pytest.mark.parametrize("kind", [0o040755, 0o020644, 0o010644, 0o140644, 0])
    def test_what_is_neither_file_nor_link(self, tmp_path: Path, kind: int) -> None:
        self.refuse(tmp_path, patch_central(self.good(tmp_path), NAME, 38, "<I", kind << 16), NAME, expected="a file")

    @pytest.mark.parametrize(
        ("offset", "layout", "value", "field"),
        [
            (4, "<H", 20, "version"),
            (6, "<H", 0, "flags"),
            (8, "<H", 0, "method"),
            (10, "<H", 1, "time"),
            (12, "<H", 1, "date"),
            (14, "<I", 1, "CRC-32"),
            (18, "<I", 1, "packed size"),
            (22, "<I", 1, "size"),
            (26, "<H", 1, "lengths"),
            (30, "<B", 0x2F, "name"),
        ],
    )
    def test_a_local_header_that_says_something_else(
        self, tmp_path: Path, offset: int, layout: str, value: int, field: str
    ) -> None:
        data = patch_local(self.good(tmp_path), NAME, offset, layout, value)
        self.refuse(tmp_path, data, NAME, found=f"another {field}")

    def test_a_descriptor_that_says_something_else(self, tmp_path: Path) -> None:
        write_bundle(tmp_path / "good.zip", {"big": os.urandom(1 << 21)}, {})
        data = (tmp_path / "good.zip").read_bytes()
        at = data.index(b"PK\x07\x08")
        for offset in range(16):
            wrong = bytearray(data)
            wrong[at + offset] ^= 1
            self.refuse(tmp_path, bytes(wrong), "filestore/big", found="another CRC-32 or size")

    def test_members_that_overlap_or_leave_room(self, tmp_path: Path) -> None:
        good = self.good(tmp_path)
        offset = good.index(b"PK\x03\x04", 4)
        self.refuse(tmp_path, patch_central(good, f"{STEM}.dump", 42, "<I", 0), f"{STEM}.dump", found="byte 0")
        self.refuse(tmp_path, patch_central(good, f"{STEM}.dump", 42, "<I", offset + 1), f"{STEM}.dump")
        self.refuse(tmp_path, patch_central(good, NAME, 42, "<I", 0xFFFFFFF0), NAME)

    def test_something_before_between_or_after(self, tmp_path: Path) -> None:
        good = self.good(tmp_path)
        start = struct.unpack_from("<I", good, len(good) - 6)[0]
        between = bytearray(good[:start] + b"hidden" + good[start:])
        struct.pack_into("<I", between, len(between) - 6, start + 6)
        self.refuse(tmp_path, bytes(between), "something stands between its members and its central directory")
        self.refuse(tmp_path, b"PK\x03\x04" + good, "central directory")
        self.refuse(tmp_path, b"#!/bin/sh\n" + good, "it is no zip")
        self.refuse(tmp_path, good + b"x", "has something after its end")
        comment = bytearray(good + b"x")
        struct.pack_into("<H", comment, len(good) - 2, 1)
        self.refuse(tmp_path, bytes(comment), "has something after its end")

    def test_extra_fields_and_comments(self, tmp_path: Path) -> None:
        good = self.good(tmp_path)
        for offset in (30, 32):
            self.refuse(tmp_path, patch_central(good, NAME, offset, "<H", 4), NAME)
        self.refuse(tmp_path, patch_local(good, NAME, 28, "<H", 4), NAME, found="another")

    def test_a_name_in_an_unknown_encoding(self, tmp_path: Path) -> None:
        data = compose(tmp_path / "good.zip", pieces(Piece("filestore/é", b"x"))).read_bytes()
        plain = patch_local(patch_central(data, "filestore/é", 8, "<H", 0), "filestore/é", 6, "<H", 0)
        self.refuse(tmp_path, plain, "filestore/é", found="does not")
        broken = data.replace("filestore/é".encode(), b"filestore/\xc3\xff")
        self.refuse(tmp_path, broken, "filestore/", found="none")

    def test_a_cut_central_directory(self, tmp_path: Path) -> None:
        """Records are taken out, and the end record tells their old length, or the new one."""
        good = self.good(tmp_path)
        start = struct.unpack_from("<I", good, len(good) - 6)[0]
        for cut in (1, 30, 46, 100):
            data = bytearray(good[: -22 - cut] + good[-22:])
            self.refuse(tmp_path, bytes(data), "central directory is cut or damaged")
            struct.pack_into("<I", data, len(data) - 10, len(data) - 22 - start)
            self.refuse(tmp_path, bytes(data), "central directory is cut or damaged")

    def test_fewer_or_more_records_than_announced(self, tmp_path: Path) -> None:
        good = self.good(tmp_path)
        count = struct.unpack_from("<H", good, len(good) - 12)[0]
        for other, words in ((count - 1, "central directory holds more"), (count + 1, "central directory is cut")):
            data = bytearray(good)
            struct.pack_into("<HH", data, len(data) - 14, other, other)
            self.refuse(tmp_path, bytes(data), words)


def tiny_files() -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
    return ((FileHeader(f"{n:05}", 0, None), iter(())) for n in range(0xFFFF))


def test_records_of_zip64_are_read_and_every_byte_of_them_counts(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    write_bundle(path, tiny_files())
    with closing(open_bundle(path)) as opened:
        assert opened.files_count == 0xFFFF
    size = path.stat().st_size
    unread = {12, 13, 14, 15}  # the versions that wrote it and can read it
    with path.open("r+b", buffering=0) as file:
        for at in sorted(set(range(98)) - unread):
            file.seek(size - 98 + at)
            (byte,) = file.read(1)
            file.seek(size - 98 + at)
            file.write(bytes([byte ^ 0x10]))
            refuse(path, "cannot be used")
            file.seek(size - 98 + at)
            file.write(bytes([byte]))


class TestBombs:
    def forge(self, path: Path, name: str, declared: int, content: bytes) -> Path:
        """Write a bundle in which a member unpacks to another number of bytes than is declared everywhere."""
        members = pieces(FILE)
        at = next(n for n, one in enumerate(members) if one.name == name)
        packed = zlib.compress(content, 9)[2:-4]
        listed = [one.member for one in members]
        listed[at] = listed[at].model_copy(update={"bytes": declared})
        stand_in = os.urandom(len(packed))
        compose(path, [replace(one, data=stand_in) if n == at else one for n, one in enumerate(members)], listed=listed)
        data = path.read_bytes().replace(stand_in, packed)
        for offset, value in ((10, 8), (24, declared)):
            data = patch_central(data, name, offset, "<H" if offset == 10 else "<I", value)
        for offset, value in ((8, 8), (22, declared)):
            data = patch_local(data, name, offset, "<H" if offset == 8 else "<I", value)
        path.write_bytes(data)
        return path

    @pytest.mark.parametrize("name", [NAME, f"{STEM}.dump"])
    def test_what_unpacks_to_more_than_declared_is_stopped_there(self, tmp_path: Path, name: str) -> None:
        path = self.forge(tmp_path / "x.zip", name, 1_000_000, bytes(300_000_000))
        tracemalloc.start()
        with closing(open_bundle(path)) as opened:
            with pytest.raises(ArchiveError, match="is damaged") as raised:
                opened.verify()
            if name == NAME:
                ((_, chunks),) = opened.open_files(lambda path: True)
                got = 0
                with pytest.raises(ArchiveError, match="is damaged"):
                    for chunk in chunks:
                        got += len(chunk)
            else:
                got = 0
                with pytest.raises(ArchiveError, match="is damaged"):
                    opened.extract_database(tmp_path / "out")
                assert not (tmp_path / "out").exists()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert got <= 1_000_000
        assert peak < 8_000_000
        assert raised.value.found == "more than that"

    def test_what_unpacks_to_less_than_declared_is_refused(self, tmp_path: Path) -> None:
        with closing(open_bundle(self.forge(tmp_path / "x.zip", NAME, 900, b"x" * 500))) as opened:
            with pytest.raises(ArchiveError, match="is damaged") as raised:
                opened.verify()
            assert raised.value.expected == "900 bytes"

    def test_more_than_deflate_can_pack_is_refused_unread(self, tmp_path: Path) -> None:
        path = self.forge(tmp_path / "x.zip", NAME, 4_000_000_000, bytes(1_000_000))
        refuse(path, NAME, found="4,000,000,000 bytes declared")

    @pytest.mark.parametrize("name", ["manifest.json", "roles.sql"])
    def test_records_that_must_fit_into_memory_are_bounded(self, tmp_path: Path, name: str) -> None:
        zeros = bytes(70 << 20)
        if name == "manifest.json":
            path = compose(tmp_path / "x.zip", pieces(FILE), manifest=lambda manifest: zeros)
        else:
            members = [Piece(name, zeros) if one.name == name else one for one in pieces(FILE)]
            path = compose(tmp_path / "x.zip", members)
        tracemalloc.start()
        refuse(path, name)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 8_000_000

    def test_a_listing_longer_than_its_members_need_is_refused_unread(self, tmp_path: Path) -> None:
        path = compose(tmp_path / "x.zip", pieces(FILE), listing=lambda data: data + b"\n" * (1 << 20))
        refuse(path, "members.jsonl", found="declared")
