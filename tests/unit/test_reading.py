"""Reading a backup: what comes out is what went in, bounded in memory, and nothing else is ever left behind."""

from __future__ import annotations

import hashlib
import os
import resource
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from opsproof.archive.manifest import Member, Sidecar, TableRecord
from opsproof.archive.reading.backup import OpenedBackup, OpenedPlain, open_bundle
from opsproof.errors import ArchiveError
from opsproof.system.files.filestore import FileHeader
from tests.lab.bundles import DUMP, FILES, LINKS, ROLES, SQL, TABLES, read_all, sha256, write_bundle
from tests.lab.manifests import STEM, manifest_of, sidecar_of


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_a_bundle_gives_back_what_was_written(tmp_path: Path) -> None:
    sidecar = write_bundle(tmp_path / "x.zip")
    with closing(open_bundle(tmp_path / "x.zip", sidecar)) as opened:
        content = read_all(opened, tmp_path)
        assert opened.manifest == sidecar.manifest
        assert opened.description == f"opsproof bundle {STEM}"
        assert (opened.unverified, opened.database_format) == ((), "custom")
        assert opened.database_bytes == len(DUMP)
        assert opened.files_count == len(FILES) + len(LINKS)
        assert opened.files_bytes == sum(map(len, FILES.values())) + sum(map(len, LINKS.values()))
        opened.verify()
    assert content.dump == DUMP
    assert content.tables == TABLES
    assert content.roles == ROLES
    assert content.files == {
        **{path: (None, data) for path, data in FILES.items()},
        **{path: (link, b"") for path, link in LINKS.items()},
    }
    assert content.members == (
        *(Member(path=path, bytes=len(data), sha256=sha256(data)) for path, data in FILES.items()),
        *(Member(path=path, bytes=len(link), sha256=sha256(link.encode()), link=link) for path, link in LINKS.items()),
    )


def test_only_wanted_files_are_read(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x.zip")
    with closing(open_bundle(tmp_path / "x.zip", None)) as opened:
        found = {header.path: b"".join(chunks) for header, chunks in opened.open_files(lambda path: path[:2] == "ab")}
    assert found == {path: data for path, data in FILES.items() if path.startswith("ab")}


def test_files_may_be_read_in_any_order(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x.zip")
    with closing(open_bundle(tmp_path / "x.zip")) as opened:
        waiting = [(header, chunks) for header, chunks in opened.open_files(lambda path: path in FILES)]
        assert {header.path: b"".join(chunks) for header, chunks in reversed(waiting)} == FILES


def test_names_that_are_no_utf_8_keep_their_bytes(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9 \xff")
    sidecar = write_bundle(tmp_path / "x.zip", {odd: b"x"}, {"link": odd})
    with closing(open_bundle(tmp_path / "x.zip", sidecar)) as opened:
        assert read_all(opened, tmp_path).files == {odd: (None, b"x"), "link": (odd, b"")}


def test_big_members_of_every_kind_come_back(tmp_path: Path) -> None:
    """Over 1 MiB a member is streamed: its local header has no sizes, a descriptor behind it has."""
    noise = os.urandom(3_000_000)
    files = {"stored": noise, "deflated": b"a row of text\n" * 400_000, "small": b"s", "zeros": bytes(5_000_000)}
    sidecar = write_bundle(tmp_path / "x.zip", files, {}, dump=noise + bytes(2_000_000))
    with closing(open_bundle(tmp_path / "x.zip", sidecar)) as opened:
        opened.verify()
        content = read_all(opened, tmp_path)
    assert {path: data for path, (_, data) in content.files.items()} == files
    assert content.dump == noise + bytes(2_000_000)


def test_a_backup_without_files_is_whole(tmp_path: Path) -> None:
    sidecar = write_bundle(tmp_path / "x.zip", {}, {})
    with closing(open_bundle(tmp_path / "x.zip", sidecar)) as opened:
        assert (opened.files_count, opened.files_bytes, list(opened.file_members())) == (0, 0, [])


class TestExtraction:
    def test_the_dump_is_readable_by_its_owner_alone(self, tmp_path: Path) -> None:
        write_bundle(tmp_path / "x.zip")
        old = os.umask(0)
        try:
            with closing(open_bundle(tmp_path / "x.zip")) as opened:
                opened.extract_database(tmp_path / "dump")
        finally:
            os.umask(old)
        assert stat.S_IMODE((tmp_path / "dump").stat().st_mode) == 0o600

    def test_a_file_that_is_there_is_not_touched(self, tmp_path: Path) -> None:
        write_bundle(tmp_path / "x.zip")
        (tmp_path / "dump").write_bytes(b"mine")
        with closing(open_bundle(tmp_path / "x.zip")) as opened, pytest.raises(ArchiveError, match="File exists"):
            opened.extract_database(tmp_path / "dump")
        assert (tmp_path / "dump").read_bytes() == b"mine"

    def test_a_damaged_dump_leaves_no_file(self, tmp_path: Path) -> None:
        noise = os.urandom(900_000)
        write_bundle(tmp_path / "x.zip", {}, {}, dump=noise)
        data = bytearray((tmp_path / "x.zip").read_bytes())
        data[800_000] ^= 1
        (tmp_path / "x.zip").write_bytes(data)
        with closing(open_bundle(tmp_path / "x.zip")) as opened:
            with pytest.raises(ArchiveError, match=r"\.dump in the bundle is damaged") as raised:
                opened.extract_database(tmp_path / "dump")
            with pytest.raises(ArchiveError, match="damaged"):
                opened.verify()
        assert raised.value.kept == "nothing was changed"
        assert not (tmp_path / "dump").exists()

    def test_a_full_disk_is_told_and_nothing_is_left(self, tmp_path: Path) -> None:
        write_bundle(tmp_path / "x.zip", {}, {}, dump=os.urandom(500_000))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        with closing(open_bundle(tmp_path / "x.zip")) as opened:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
            try:
                with pytest.raises(ArchiveError, match="File too large"):
                    opened.extract_database(tmp_path / "dump")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert not (tmp_path / "dump").exists()


def test_nothing_stays_open(tmp_path: Path) -> None:
    sidecar = write_bundle(tmp_path / "x.zip")
    before = open_descriptors()
    opened = open_bundle(tmp_path / "x.zip", sidecar)
    assert open_descriptors() == before + 1
    opened.close()
    opened.close()
    with pytest.raises(ArchiveError):
        open_bundle(tmp_path / "x.zip", sidecar.model_copy(update={"bytes": 1}))
    (tmp_path / "no.zip").write_bytes(b"PK\x03\x04 nothing of the kind")
    with pytest.raises(ArchiveError):
        open_bundle(tmp_path / "no.zip")
    assert open_descriptors() == before


def test_what_is_no_bundle_is_told(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "text").write_text("no zip")
    for name, words in {
        "none": "cannot be read",
        "pipe": "no regular file",
        "empty": "no zip",
        "text": "no zip",
    }.items():
        with pytest.raises(ArchiveError, match=words):
            open_bundle(tmp_path / name)
    with pytest.raises(ArchiveError):
        open_bundle(tmp_path)


def many(count: int) -> Iterator[tuple[FileHeader, Iterator[bytes]]]:
    for n in range(count):
        name = hashlib.sha1(b"%d" % n, usedforsecurity=False).hexdigest()
        yield FileHeader(f"{n // 800:03x}/{name}", 4, None), iter([b"%04d" % (n % 10_000)])


def test_many_files_need_little_memory(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x.zip", many(4_000))
    tracemalloc.start()
    with closing(open_bundle(tmp_path / "x.zip")) as opened:
        assert sum(1 for _ in opened.file_members()) == 4_000
        for _, chunks in opened.open_files(lambda path: path.startswith("0")):
            assert sum(map(len, chunks)) == 4
        opened.verify()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


MEASURE = r"""
import re, sys
from pathlib import Path
from opsproof.archive.reading.backup import open_bundle
opened = open_bundle(Path(sys.argv[1]))
opened.verify()
assert sum(1 for _ in opened.file_members()) == 200_000
# Not getrusage: before it was another program, this process was a copy of the one that started it, and as big.
print(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.slow
def test_200_000_files_stay_below_150_mb(tmp_path: Path) -> None:
    write_bundle(tmp_path / "x.zip", many(200_000))
    argv = [sys.executable, "-c", MEASURE, str(tmp_path / "x.zip")]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True)
    assert int(done.stdout) < 150_000


class TestPlain:
    def sidecar(self, data: bytes = SQL, **changes: object) -> Sidecar:
        plain = Member(path="backup_prod_20240305_010203.sql", bytes=len(data), sha256=sha256(data))
        totals = manifest_of().totals.model_copy(update={"tables": 2, "rows": 7})
        manifest = manifest_of(id="backup_prod_20240305_010203", dump=None, sql=plain, filestore=None, totals=totals)
        return sidecar_of(manifest, bytes=len(data), sha256=plain.sha256, tables=TABLES, **changes)

    def test_it_gives_back_what_was_written(self, tmp_path: Path) -> None:
        (tmp_path / "x.sql").write_bytes(SQL)
        with closing(OpenedPlain(tmp_path / "x.sql", self.sidecar())) as opened:
            opened.verify()
            opened.extract_database(tmp_path / "out.sql")
            backup: OpenedBackup = opened
            assert (tmp_path / "out.sql").read_bytes() == SQL
            assert stat.S_IMODE((tmp_path / "out.sql").stat().st_mode) == 0o600
            assert (backup.database_format, backup.database_bytes, backup.roles()) == ("plain", len(SQL), None)
            assert tuple(backup.tables()) == TABLES
            assert (backup.files_count, backup.files_bytes) == (0, 0)
            assert [*backup.file_members(), *backup.open_files(lambda path: True)] == []
            assert backup.description == "opsproof plain SQL backup_prod_20240305_010203"

    def test_a_flipped_byte_is_found_and_leaves_no_file(self, tmp_path: Path) -> None:
        sidecar = self.sidecar()
        for at in range(len(SQL)):
            data = bytearray(SQL)
            data[at] ^= 4
            (tmp_path / "x.sql").write_bytes(data)
            with closing(OpenedPlain(tmp_path / "x.sql", sidecar)) as opened:
                with pytest.raises(ArchiveError):
                    opened.extract_database(tmp_path / "out.sql")
                with pytest.raises(ArchiveError):
                    opened.verify()
            assert not (tmp_path / "out.sql").exists()

    def test_a_cut_one_does_not_open(self, tmp_path: Path) -> None:
        (tmp_path / "x.sql").write_bytes(SQL[:-1])
        with pytest.raises(ArchiveError, match="not as long"):
            OpenedPlain(tmp_path / "x.sql", self.sidecar())

    def test_commands_to_psql_are_refused_though_the_sidecar_agrees(self, tmp_path: Path) -> None:
        data = b"SELECT 1 \\! touch touched\n" + SQL
        (tmp_path / "x.sql").write_bytes(data)
        with (
            closing(OpenedPlain(tmp_path / "x.sql", self.sidecar(data))) as opened,
            pytest.raises(ArchiveError, match="psql must not be given"),
        ):
            opened.extract_database(tmp_path / "out.sql")
        assert not (tmp_path / "out.sql").exists()

    def test_a_sidecar_that_contradicts_itself_does_not_open(self, tmp_path: Path) -> None:
        (tmp_path / "x.sql").write_bytes(SQL)
        good = self.sidecar()
        twice = TableRecord(table="public.a", rows=4, fingerprint=None)
        for tables in ((), TABLES[:1], (TABLES[0], twice)):
            with pytest.raises(ArchiveError, match="not one of plain SQL"):
                OpenedPlain(tmp_path / "x.sql", good.model_copy(update={"tables": tables}))
        with pytest.raises(ArchiveError, match="not one of plain SQL"):
            OpenedPlain(tmp_path / "x.sql", sidecar_of())
