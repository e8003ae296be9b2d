"""Backups as others make them: by their recipes with the real programs, and zips that no honest program makes.

What Odoo and click-odoo made is in `tests/data`.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import struct
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.lab.postgres_server import PostgresServer

DATA = Path(__file__).parents[1] / "data"
STAMP = "2026-01-31_02-00-00"
ATTACHMENTS = (b"one", b"two" * 1000, b"three" * 100_000)
PLAIN_DUMP = b"""--
-- PostgreSQL database dump
--

-- Dumped from database version 15.9
-- Dumped by pg_dump version 15.9

SELECT 1;

--
-- PostgreSQL database dump complete
--

"""


def attachment_name(content: bytes) -> str:
    """Return the name that Odoo gives to a content."""
    sha1 = hashlib.sha1(content).hexdigest()
    return f"{sha1[:2]}/{sha1}"


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files below a folder, which need not be there."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def run_client(server: PostgresServer, program: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run one of the server's client programs as its superuser."""
    environment = {
        **os.environ,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(server.port),
        "PGUSER": "postgres",
        "PGPASSWORD": server.password,
    }
    argv = [str(server.bindir / program), *arguments]
    done = subprocess.run(argv, env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done


def dump(server: PostgresServer, database: str, path: Path, form: str) -> Path:
    """Run pg_dump: `form` is custom, plain, directory or tar."""
    run_client(server, "pg_dump", f"--format={form}", f"--file={path}", database)
    return path


def compress(path: Path) -> Path:
    """Run gzip."""
    subprocess.run(["gzip", str(path)], check=True, timeout=60)
    return path.with_name(path.name + ".gz")


def make_playbook_zip(server: PostgresServer, database: str, filestore: Path, folder: Path, *, nested: bool) -> Path:
    """Make a zip as the playbook before opsproof did: pg_dump twice, cp -r, zip -r.

    Args:
        server: Where the database is.
        database: Its name.
        filestore: `data_dir/filestore/{database}`.
        folder: Where to work; the zip is in it.
        nested: With the database's folder in filestore/.
    """
    work = folder / f"{database}_{STAMP}"
    work.mkdir()
    dump(server, database, work / f"{database}_{STAMP}.dump", "custom")
    dump(server, database, work / f"{database}_{STAMP}.sql", "plain")
    copied = work / "filestore"
    if nested:
        copied.mkdir()
        copied = copied / database
    subprocess.run(["cp", "-r", str(filestore), str(copied)], check=True, timeout=60)
    path = folder / f"{work.name}.zip"
    subprocess.run(["zip", "-q", "-r", str(path), "."], cwd=work, check=True, timeout=60)
    shutil.rmtree(work)
    return path


def load(server: PostgresServer, database: str, path: Path, form: str) -> None:
    """Load what was extracted into a new database, with the programs that a restore uses."""
    server.create_database(database)
    if form == "custom":
        run_client(server, "pg_restore", "--exit-on-error", "--no-owner", f"--dbname={database}", str(path))
        return
    options = ("--no-psqlrc", "--quiet", "--single-transaction", "--set=ON_ERROR_STOP=1", "--output=/dev/null")
    run_client(server, "psql", *options, f"--file={path}", f"--dbname={database}")


def write_zip(path: Path, members: Mapping[str, bytes], *, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip with the standard library, as Odoo and click-odoo do."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def write_odd_zip(path: Path, *members: tuple[zipfile.ZipInfo, bytes]) -> Path:
    """Write a zip of members whose headers are as given."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members:
            archive.writestr(info, content)
    return path


LOCAL_FIELDS = {"flags": (6, "<H"), "method": (8, "<H"), "crc": (14, "<I"), "packed": (18, "<I"), "size": (22, "<I")}
# The central record has them two bytes further on, and one more.
CENTRAL_FIELDS = {**{key: (at + 2, layout) for key, (at, layout) in LOCAL_FIELDS.items()}, "offset": (42, "<I")}
HEADERS = ((b"PK\x03\x04", 30, LOCAL_FIELDS), (b"PK\x01\x02", 46, CENTRAL_FIELDS))


def patch_member(path: Path, name: bytes, field: str, value: int, *, local: bool = True, central: bool = True) -> None:
    """Write a number into the headers of a member: its flags, method, crc, packed, size, or offset."""
    data = bytearray(path.read_bytes())
    for is_wanted, (signature, length, fields) in zip((local, central), HEADERS, strict=True):
        at = -1
        while is_wanted and (at := data.find(name, at + 1)) >= 0:
            if at >= length and data[at - length :].startswith(signature):
                place, layout = fields[field]
                struct.pack_into(layout, data, at - length + place, value)
    assert data != path.read_bytes()
    path.write_bytes(data)


def gzip_of(path: Path, content: bytes) -> Path:
    """Write a gzip file."""
    path.write_bytes(gzip.compress(content, mtime=0))
    return path
