"""Bundles that lie or lead astray: each is refused with its own message, before anything is unpacked."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from opsproof.archive import manifest as records
from opsproof.archive.manifest import Manifest
from opsproof.archive.reading.backup import open_bundle
from opsproof.errors import ArchiveError
from tests.lab.bundles import FILE, Piece, compose, pieces, read_all, refuse
from tests.lab.manifests import STEM

NAME = FILE.name


def link(name: str, target: str) -> Piece:
    return Piece(f"filestore/{name}", target.encode(), link=True)


def test_what_is_composed_without_a_fault_opens(tmp_path: Path) -> None:
    path = compose(tmp_path / "x.zip", pieces(FILE, link("to", "ab/abcd")))
    with closing(open_bundle(path)) as opened:
        opened.verify()
        assert read_all(opened, tmp_path).files == {"ab/abcd": (None, FILE.data), "to": ("ab/abcd", b"")}


class TestNames:
    @pytest.mark.parametrize(
        ("name", "found"),
        {
            "filestore/../../etc/x": "`..`",
            "filestore/a/../b": "`..`",
            "..": "`..`",
            "/etc/passwd": "absolute",
            "filestore//x": "empty part",
            "filestore/x/": "empty part",
            "filestore/": "empty part",
            "": "empty part",
            "filestore/./x": "part `.`",
            "C:\\x": "backslash",
            "a\nb": "control character",
            "\x1b[31mb": "control character",
            "\x9b": "control character",
            "filestore/a\0b": "NUL",
            "filestore/" + "n" * 256: "longer than any file system",
            "filestore/" + "é" * 128: "longer than any file system",
            "filestore" + "/" + "/".join(["n" * 200] * 21): "longer than any file system",
        }.items(),
    )
    def test_an_unsafe_name_is_refused(self, tmp_path: Path, name: str, found: str) -> None:
        refuse(compose(tmp_path / "x.zip", pieces(FILE, Piece(name, b"x"))), "name that is not safe", found=found)

    def test_names_that_only_look_odd_are_taken(self, tmp_path: Path) -> None:
        names = [
            "a\\..\\x",
            "a\nb",
            "a\x1b[31mb",
            "\x7f",
            "...",
            "..a",
            "a..",
            "~",
            "-rf",
            "$HOME",
            "a b",
            "é" * 127,
            "C:",
            "%2e%2e",
            "*",
            "ünï",
            "n" * 255,
        ]
        path = compose(tmp_path / "x.zip", pieces(*(Piece(f"filestore/{name}", b"x") for name in names)))
        with closing(open_bundle(path)) as opened:
            assert [member.path for member in opened.file_members()] == names

    @pytest.mark.parametrize("name", ["filestore/ab/abcd", "roles.sql", f"{STEM}.dump", "manifest.json"])
    def test_a_name_twice_is_refused(self, tmp_path: Path, name: str) -> None:
        members = [*pieces(FILE), Piece(name, b"another")]
        words = "none, or another|twice" if name.endswith(".dump") else "twice"
        refuse(compose(tmp_path / "x.zip", members), words)

    @pytest.mark.parametrize("names", [("a", "a/b"), ("a/b", "a"), ("a", "a/b/c/d"), ("a/b/c", "a/b")])
    def test_a_file_that_is_a_folder_too_is_refused(self, tmp_path: Path, names: tuple[str, ...]) -> None:
        members = pieces(*(Piece(f"filestore/{name}", b"x") for name in names))
        refuse(compose(tmp_path / "x.zip", members), "a file and a folder at once")


class TestLinks:
    @pytest.mark.parametrize(
        ("name", "leads_to", "words"),
        [
            ("x", "/etc/passwd", "not safe"),
            ("x", "//x", "not safe"),
            ("x", "", "not safe"),
            ("x", "a\0b", "not safe"),
            ("x", "a\nb", "not safe"),
            ("x", "n" * 5000, "not safe"),
            ("x", "..", "climbs out"),
            ("x", "../x", "climbs out"),
            ("x", "../filestore/ab/abcd", "climbs out"),
            ("x", "ab/../../x", "climbs out"),
            ("x", "./.././../x", "climbs out"),
            ("a/b/x", "../../../x", "climbs out"),
            ("a/b/x", "..//..//..", "climbs out"),
        ],
    )
    def test_a_link_that_leads_out_is_refused(self, tmp_path: Path, name: str, leads_to: str, words: str) -> None:
        refuse(compose(tmp_path / "x.zip", pieces(FILE, link(name, leads_to))), f"The link .* {words}")

    @pytest.mark.parametrize("name", ["x", "filestore", "filestorex/a", f"{STEM}.dump"])
    def test_a_link_beside_the_filestore_is_refused(self, tmp_path: Path, name: str) -> None:
        members = [one for one in pieces(FILE) if one.name != name]
        refuse(compose(tmp_path / "x.zip", [Piece(name, b"roles.sql", link=True), *members]), "not safe|at once|as")

    @pytest.mark.parametrize("after", [True, False])
    @pytest.mark.parametrize("below", ["d/x", "d/e/f/x"])
    def test_a_path_through_a_link_is_refused(self, tmp_path: Path, after: bool, below: str) -> None:
        both = [link("d", "ab"), Piece(f"filestore/{below}", b"x")]
        refuse(compose(tmp_path / "x.zip", pieces(FILE, *both[:: 1 if after else -1])), "goes through the link")

    def test_a_link_that_climbs_by_way_of_another_is_refused(self, tmp_path: Path) -> None:
        """`a/b/top` is the filestore itself, so its parent is outside, though `a/b/top/..` reads like a/b."""
        for order in (1, -1):
            links = [link("a/b/top", "../.."), link("x", "a/b/top/../secret")]
            refuse(compose(tmp_path / "x.zip", pieces(FILE, *links[::order])), "goes back through another link")

    def test_links_inside_are_taken(self, tmp_path: Path) -> None:
        links = {"x": "ab/abcd", "a/b/top": "../..", "a/up": "../ab/../ab/abcd", "y": "a/b/top/ab", "broken": "./no/"}
        path = compose(tmp_path / "x.zip", pieces(FILE, *(link(name, target) for name, target in links.items())))
        with closing(open_bundle(path)) as opened:
            opened.verify()
            assert {one.path: one.link for one in opened.file_members() if one.link} == links

    def test_a_target_that_is_not_the_listed_one_is_refused(self, tmp_path: Path) -> None:
        evil = link("x", "/etc/passwd")
        members = pieces(FILE, evil)
        listed = [replace(one, data=b"ab/abcd/xyz").member if one == evil else one.member for one in members]
        path = compose(tmp_path / "x.zip", members, listed=listed)
        refuse(path, "filestore/x in the bundle is not what was backed up", found="a link to /etc/passwd")

    def test_a_link_that_is_listed_as_a_file_is_refused(self, tmp_path: Path) -> None:
        evil = link("x", "ab/abcd")
        members = pieces(FILE, evil)
        as_file = [replace(one, link=False).member for one in members]
        refuse(compose(tmp_path / "x.zip", members, listed=as_file), "not what was backed up", found="a link")
        files = [replace(one, link=False) for one in members]
        as_link = [one.member for one in members]
        refuse(compose(tmp_path / "x.zip", files, listed=as_link), "not what was backed up", found="a file")


class TestListing:
    def test_a_member_that_is_not_listed_is_refused(self, tmp_path: Path) -> None:
        members = pieces(FILE)
        for extra_at in (0, 1, 3, len(members)):
            more = [*members[:extra_at], Piece("filestore/ab/extra", b"x"), *members[extra_at:]]
            path = compose(tmp_path / "x.zip", more, listed=[one.member for one in members])
            refuse(path, "do not hold the same members", found="filestore/ab/extra")

    def test_a_member_behind_the_manifest_is_refused(self, tmp_path: Path) -> None:
        path = compose(tmp_path / "x.zip", pieces(FILE), own=("members.jsonl", "manifest.json", "manifest.json"))
        refuse(path, "do not hold the same members")

    def test_a_listed_member_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        members = pieces(FILE)
        for gone in range(len(members)):
            path = compose(
                tmp_path / "x.zip", [*members[:gone], *members[gone + 1 :]], listed=[one.member for one in members]
            )
            refuse(path, "do not hold the same members", expected=members[gone].name)

    @pytest.mark.parametrize("name", [f"{STEM}.dump", f"{STEM}.sql", "roles.sql", "tables.jsonl"])
    def test_a_member_that_every_bundle_has_must_be_there(self, tmp_path: Path, name: str) -> None:
        refuse(compose(tmp_path / "x.zip", [one for one in pieces(FILE) if one.name != name]), "not as opsproof writes")

    @pytest.mark.parametrize("own", [("members.jsonl",), ("manifest.json",), ()])
    def test_a_zip_without_our_records_is_no_bundle(self, tmp_path: Path, own: tuple[str, ...]) -> None:
        refuse(compose(tmp_path / "x.zip", pieces(FILE), own=own), "no bundle of opsproof")

    @pytest.mark.parametrize(
        "change",
        {
            "no json": lambda data: b"{not json\n" + data,
            "no object": lambda data: b"[1]\n" + data,
            "no path": lambda data: b'{"bytes": 1, "sha256": ""}\n' + data,
            "deep": lambda data: b"[" * 30_000 + b"\n" + data,
            "deep, no utf-8": lambda data: b"[" * 30_000 + b"\xff\n" + data,
            "a big number": lambda data: b'{"path": "a", "bytes": ' + b"9" * 20_000 + b', "sha256": ""}\n' + data,
            "a big number, no utf-8": lambda data: b'{"path": "\xff", "bytes": ' + b"9" * 20_000 + b"}\n" + data,
            "an endless line": lambda data: b" " * 40_000 + data,
            "a surrogate": lambda data: b'{"path": "\\ud800", "bytes": 0, "sha256": ""}\n' + data,
            "no end": lambda data: data[:-1],
            "a blank line": lambda data: b"\n" + data,
            "empty": lambda data: b"",
            "another order": lambda data: b"\n".join([*reversed(data.splitlines()), b""]),
        }.values(),
    )
    def test_a_listing_that_cannot_be_read_is_refused(self, tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
        refuse(compose(tmp_path / "x.zip", pieces(FILE), listing=change), "members")

    def test_a_flipped_byte_of_the_listing_is_found(self, tmp_path: Path) -> None:
        """Its CRC-32 fits: only the manifest knows better."""
        noted = []

        def forge(data: bytes) -> bytes:
            noted.append(data)
            return data.replace(b'"bytes": 500', b'"bytes":  500')

        def keep(manifest: Manifest) -> bytes:
            honest = records.write_listing([one.member for one in pieces(FILE)])[1]
            totals = manifest.totals.model_copy(update={"members_sha256": honest})
            return records.to_json(manifest.model_copy(update={"totals": totals}))

        refuse(compose(tmp_path / "x.zip", pieces(FILE), listing=forge, manifest=keep), "members.jsonl is not as")
        assert b'"bytes": 500' in noted[0]

    @pytest.mark.parametrize("line", [b"{}", b'{"table": "public.z", "rows": "x"}', b"\xff", b"", b" " * 40_000])
    def test_a_listing_of_tables_that_cannot_be_read_is_refused(self, tmp_path: Path, line: bytes) -> None:
        good = records.write_listing([records.TableRecord(table="public.a", rows=7, fingerprint=None)])[0]
        refuse(compose(tmp_path / "x.zip", pieces(FILE, tables=good + line + b"\n")), "tables.jsonl is not as")

    def test_tables_must_add_up_and_stand_there_once(self, tmp_path: Path) -> None:
        one, other = (records.TableRecord(table=f"public.{name}", rows=3, fingerprint=None) for name in "ab")
        more = records.TableRecord(table="public.b", rows=4, fingerprint=None)
        for tables in ([one], [one, other], [more, one], [one, one.model_copy(update={"rows": 4})]):
            path = compose(tmp_path / "x.zip", pieces(FILE, tables=records.write_listing(tables)[0]))
            refuse(path, "tables.jsonl is not as opsproof writes it")
        with closing(open_bundle(compose(path, pieces(FILE, tables=records.write_listing([one, more])[0])))) as opened:
            assert list(opened.tables()) == [one, more]

    def test_content_that_is_not_the_listed_one_is_refused(self, tmp_path: Path) -> None:
        """Size and CRC-32 of the zip are those of the forged content: only the SHA-256 tells."""
        members = pieces(FILE)
        for forged in (NAME, f"{STEM}.dump", f"{STEM}.sql", "roles.sql", "RESTORE.txt", "tables.jsonl"):
            changed = [replace(one, data=one.data[::-1]) if one.name == forged else one for one in members]
            path = compose(tmp_path / "x.zip", changed, listed=[one.member for one in members])
            with pytest.raises(ArchiveError, match=r"not what was backed up|not as opsproof writes it"):
                open_bundle(path).verify()
