"""The spool: what comes out again is what went in, and whatever is in the way is an error of ours."""

from __future__ import annotations

import hashlib
import os
import resource
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest
from isal import isal_zlib

from opsproof.archive.writing.spool import Spool
from opsproof.errors import ArchiveError

REPOSITORY = Path(__file__).parents[2]
TEXT = b"".join(b"%d\tsome contact\tof a company\n" % number for number in range(60_000))


def fill(spool: Spool, data: bytes, step: int = 65_536) -> bytes:
    """Pack it, and return what unpacks on the way."""
    out = [spool.unpack(spool.pack(data[at : at + step])) for at in range(0, len(data), step)]
    out.append(spool.unpack(spool.finish_packing()))
    spool.finish_unpacking()
    return b"".join(out)


@pytest.mark.parametrize("data", [b"", b"x", TEXT, os.urandom(300_000), bytes(2_000_000)], ids=len)
def test_what_unpacks_is_what_was_written(data: bytes, tmp_path: Path) -> None:
    with Spool(tmp_path) as spool:
        assert fill(spool, data) == data
        assert (spool.size, spool.crc) == (len(data), zlib.crc32(data))
        assert spool.sha256 == hashlib.sha256(data).hexdigest()
        assert b"".join(spool.unpacked()) == data
        packed = b"".join(spool.compressed())
    assert len(packed) == spool.packed
    assert zlib.decompress(packed, -15) == data


def test_a_member_that_nobody_reads_on_is_the_same(tmp_path: Path) -> None:
    with Spool(tmp_path) as plain, Spool(tmp_path) as read:
        for at in range(0, len(TEXT), 10_007):
            plain.write(TEXT[at : at + 10_007])
        plain.finish()
        fill(read, TEXT, 10_007)
        assert (plain.sha256, plain.crc, plain.size) == (read.sha256, read.crc, read.size)
        assert b"".join(plain.compressed()) == b"".join(read.compressed())


def test_the_file_has_no_name_and_its_space_is_given_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    fill(spool, os.urandom(1 << 20))
    assert list(tmp_path.iterdir()) == []
    assert open_files_in(tmp_path) == 1
    spool.close()
    assert open_files_in(tmp_path) == 0


def open_files_in(folder: Path) -> int:
    links = []
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            links.append(str(descriptor.readlink()))
        except OSError:
            continue  # the descriptor that lists them
    return sum(link.startswith(f"{folder}/") for link in links)


class Faulty:
    """A compressor whose output has a bit flipped on its way to the disk, as bad memory would."""

    def __init__(self, pack: Any, at: int) -> None:
        self._pack = pack
        self._at = at
        self._count = 0

    def compress(self, data: bytes) -> bytes:
        return self._spoil(self._pack.compress(data))

    def flush(self) -> bytes:
        return self._spoil(self._pack.flush())

    def _spoil(self, packed: bytes) -> bytes:
        place = self._at - self._count
        self._count += len(packed)
        if not 0 <= place < len(packed):
            return packed
        return packed[:place] + bytes([packed[place] ^ 0x10]) + packed[place + 1 :]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.2, 0.4, 0.6, 0.8, 0.99, 0.9999])
@pytest.mark.parametrize("data", [TEXT, os.urandom(500_000)], ids=["text", "noise"])
def test_a_bit_that_flips_after_compression_is_an_error(
    data: bytes, share: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packed = len(isal_zlib.compress(data, 2, -15))
    with Spool(tmp_path) as spool:
        monkeypatch.setattr(spool, "_pack", Faulty(spool._pack, int(share * packed)))
        with pytest.raises(ArchiveError, match="does not unpack"):
            fill(spool, data)


FILLS_A_DISK = """
import resource, signal, sys
from pathlib import Path
from opsproof.archive.writing.spool import Spool
from opsproof.errors import ArchiveError
import os
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
with Spool(Path(sys.argv[1])) as spool:
    try:
        for _ in range(64):
            spool.write(os.urandom(1 << 16))
        spool.finish()
    except ArchiveError as error:
        print(error)
        print("packed", spool.packed)
    else:
        print("no error")
"""


def test_a_write_that_the_system_refuses_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    """A limit on the file's size stops the write as a full disk does; it needs no disk to fill."""
    argv = [sys.executable, "-c", FILLS_A_DISK, str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The temporary file cannot be written")
    assert str(tmp_path) in done.stdout
    assert "TMPDIR=" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_an_error_that_says_so(tmp_path: Path) -> None:
    with Spool(tmp_path) as spool, Path("/dev/full").open("wb", buffering=0) as full:
        os.dup2(full.fileno(), spool._file.fileno())
        with pytest.raises(ArchiveError, match="No space left on device") as caught:
            fill(spool, os.urandom(4 << 20))
    assert "TMPDIR=" in caught.value.hint
    assert str(tmp_path) in caught.value.expected


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="No such file"):
        Spool(tmp_path / "missing")


def test_memory_stays_bounded(tmp_path: Path) -> None:
    piece = os.urandom(1 << 18)
    with Spool(tmp_path) as spool:
        fill(spool, piece)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with Spool(tmp_path) as spool:
        for _ in range(400):
            spool.write(piece)
        spool.finish()
        size = sum(map(len, spool.unpacked()))
    assert size == 400 << 18
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000  # kB, of the 100 MB that went through
