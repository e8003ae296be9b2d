"""Plain SQL is judged as psql itself judges it: what was taken holds no command, and what pg_dump writes is taken."""

from __future__ import annotations

import random
import re
import secrets
import subprocess
from pathlib import Path

import pytest

from opsproof.archive.reading.plainsql import check_plain_sql
from tests.lab.plainsql import FOOTER, cut, is_refused
from tests.lab.postgres_server import PostgresServer
from tests.lab.shapes import SHAPES

PIECES = [
    *("'", "'", '"', "$$", "$a$", "$", "--", "/*", "*/", "\n", "\r", "E'", "e", "''", "\\'", "\\", " ", "a", "1", ".5"),
    *("(", ")", ";", ";\n", "::", ":", ":x", ":'x'", "U&'", "é", "$1", "*", "/", "-", "b'", "a$", "\\.\n", "\n\\.\r\n"),
    *("COPY t FROM stdin;\n", "COPY t FROM stdin;\n", "CREATE FUNCTION f() BEGIN ATOMIC ", "CASE ", "END "),
    *("create or replace procedure p() BEGIN ", "SELECT 1 BEGIN ", "\\n", "x", "SELECT "),
]
MARK = "\\! echo MARK{number} #"


def draw_sql(source: random.Random, number: int) -> bytes:
    """Return a text with a command in it that psql may or may not see, with an end that may close what is open."""
    pieces = source.choices(PIECES, k=source.randint(1, 14))
    pieces.insert(source.randint(0, len(pieces)), MARK.format(number=number) + source.choice(["\n", ""]))
    ends = source.choices(["'", '"', "$$", "$a$", "*/", "\n", "\n\\.\n", ")", "END", ";", ""], k=source.randint(0, 4))
    return "".join([*pieces, *ends, ";"]).encode() + FOOTER


def test_psql_sees_no_command_in_what_was_not_refused(tmp_path: Path, postgres: PostgresServer) -> None:
    """Thousands of texts with a command in a quote, a comment, rows or none of them: psql itself is the judge."""
    source = random.Random(7)
    taken: list[Path] = []
    refused: list[Path] = []
    for number in range(12_000):
        data = draw_sql(source, number)
        found = refused if is_refused(data, source.choice([1, 7, 1 << 18])) else taken
        if len(found) < (1_000 if found is taken else 100):
            path = tmp_path / f"{number}.sql"
            path.write_bytes(data)
            found.append(path)
    assert len(taken) > 300
    name = f"judge_{secrets.token_hex(4)}"
    address = postgres.create_database(name, "CREATE TABLE t (a text)")
    try:
        assert run_psql(postgres, address.name, taken) == []
        # The judge does see commands: most of what was refused holds one.
        assert len(run_psql(postgres, address.name, refused)) > 20
    finally:
        postgres.drop_database(name)


def run_psql(server: PostgresServer, database: str, files: list[Path]) -> list[bytes]:
    """Return the marks of the commands that psql ran."""
    argv = [str(server.bindir / "psql"), "-X", "-q", "-o", "/dev/null", "-d", server.url(database)]
    argv += [word for file in files for word in ("-f", str(file))]
    done = subprocess.run(argv, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
    return re.findall(rb"MARK\d+", done.stdout)


@pytest.mark.parametrize("options", [(), ("--inserts",)])
@pytest.mark.parametrize("shape", ["odd names", "values that look like the dump", "many types"])
def test_what_pg_dump_writes_is_taken(postgres: PostgresServer, shape: str, options: tuple[str, ...]) -> None:
    name = f"plain_{secrets.token_hex(4)}"
    address = postgres.create_database(name, *SHAPES[shape], "COMMENT ON SCHEMA public IS 'C:\\'")
    try:
        argv = [str(postgres.bindir / "pg_dump"), *options, "-d", postgres.url(address.name)]
        done = subprocess.run(argv, capture_output=True, timeout=60, check=True)
        created = subprocess.run([*argv, "--create"], capture_output=True, timeout=60, check=True)
    finally:
        postgres.drop_database(name)
    assert b"COMMENT ON SCHEMA public IS 'C:\\';" in done.stdout
    for size in (13, 1 << 18):
        check_plain_sql(cut(done.stdout, size))
    assert is_refused(created.stdout)  # it connects to another database
