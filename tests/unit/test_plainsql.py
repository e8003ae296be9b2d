"""Plain SQL before psql sees it: what psql would take for its own command is refused, what pg_dump writes is not."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opsproof.archive.reading.plainsql import check_plain_sql, checked_plain_sql
from opsproof.errors import ArchiveError
from tests.lab.plainsql import FOOTER, cut, is_refused


def refusal(data: bytes, size: int = 1 << 18) -> ArchiveError:
    with pytest.raises(ArchiveError) as raised:
        check_plain_sql(cut(data, size))
    return raised.value


COMMANDS = {
    "a line": b"SELECT 1;\n\\! sh\n",
    "the first line": b"\\! sh\n",
    "the middle of a line": b"SELECT 1 \\! sh\n",
    "behind a semicolon": b"SELECT 1; \\! sh\n",
    "indented": b"  \\! sh\n",
    "connect": b"\\connect other\n",
    "gexec": b"SELECT 'x' \\gexec\n",
    "semicolon that does not end": b"SELECT 1\\; SELECT 2;\n",
    "end of rows without rows": b"\\.\n",
    "behind a literal": b"SELECT 'a' \\! sh\n",
    "behind a doubled quote": b"SELECT 'it''s' \\! sh\n",
    "a backslash does not escape": b"SELECT 'a\\' \\! sh '\n",
    "an escaped quote": b"SELECT E'a\\'' \\! sh\n",
    "an escaped backslash": b"SELECT E'a\\\\' \\! sh '\n",
    "a word before a literal": b"SELECT ae'a\\' \\! sh '\n",
    "behind a name": b'SELECT "a""b" \\! sh\n',
    "behind a dollar quote": b"SELECT $a$ $b$ $$ ' $a$ \\! sh\n",
    "a dollar inside a word": b"SELECT a$b$ \\! sh $b$\n",
    "behind a comment": b"SELECT 1 -- it's\n\\! sh\n",
    "a carriage return ends a comment": b"SELECT 1; -- x\r\\! sh\n",
    "behind a nested comment": b"/* /* ' */ \" */ \\! sh\n",
    "a comment that opens itself": b"/*/ */ \\! sh\n",
    "behind rows": b"COPY t FROM stdin;\n\\N\n\\.\n\\! sh\n",
    "behind rows that end as in Windows": b"COPY t FROM stdin;\n1\n\\.\r\n\\! sh\n",
    "behind no rows": b"COPY t FROM stdin;\n\\.\n\\! sh\n",
    "rows to a client": b"COPY t TO stdout;\n\\! sh\n\\.\n",
    "COPY in parentheses": b"SELECT (1; COPY t FROM stdin;\n\\! sh\n\\.\n",
    "COPY in a function": b"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1; COPY t FROM stdin;\n\\! sh\n\\.\nEND;\n",
    "COPY in a replaced function": b"CREATE OR REPLACE FUNCTION f() BEGIN ; COPY t FROM stdin;\n\\! sh\n\\.\nEND;\n",
    "COPY behind a case": b"CREATE FUNCTION f() BEGIN CASE END; COPY t FROM stdin;\n\\! sh\n\\.\nEND;\n",
    "COPY that is a name": b'SELECT 1 "x;" COPY t FROM stdin;\n\\! sh\n\\.\n',
    "COPY in a literal": b"SELECT 'COPY t FROM stdin;\n' \\! sh\n\\.\n",
    "COPY in a comment": b"-- COPY t FROM stdin;\n\\! sh\n\\.\n",
    "restrict, then a command": b"\\restrict a\n\\! sh\n\\unrestrict a\n",
}
OTHERS = {
    "COPY FROM PROGRAM": b"COPY t FROM PROGRAM 'sh';\n",
    "COPY TO PROGRAM": b"COPY t TO program 'sh';\n",
    "COPY FROM a file": b"COPY t (a, b) FROM '/etc/passwd';\n",
    "COPY TO a file": b"copy public.t to '/x' with csv;\n",
    "COPY of a query": b"COPY (SELECT 1 FROM stdin) TO '/x';\n",
    "COPY FROM an escaped file": b"COPY t FROM E'/x';\n",
    "COPY FROM a dollar-quoted file": b"COPY t FROM $$/x$$;\n",
    "COPY behind comments": b"/* x */ COPY -- x\n \"t\" /* y */ FROM -- z\n PROGRAM 'sh';\n",
    "COPY from a name": b'COPY t FROM "stdin";\n',
    "COPY from nowhere": b"COPY t;\n",
    "COPY and more in its line": b"COPY t FROM stdin; SELECT 1;\n\\.\n",
    "COPY behind something else": b":COPY t FROM stdin;\n\\.\n",
    "COPY behind a word": b"WITH x COPY t FROM stdin;\n\\.\n",
    "COPY behind a literal": b"b'' COPY t FROM stdin;\n\\.\n",
    "a NUL": b"SELECT 1;\0\n",
    "a NUL among rows": b"COPY t FROM stdin;\na\0b\n\\.\n",
    "a literal in two parts": b"SELECT E'a'\n  'b\\' ';\n",
    "a literal in two parts with a comment": b"SELECT 'a' -- x\n 'b';\n",
    "a number and a quote": b"SELECT 1E'\\' ;\n",
    "a number and a dollar": b"SELECT 1a$$ x $$;\n",
    "a parameter and a quote": b"SELECT $1a$$ x $$;\n",
    "a variable of psql": b"SELECT :'DBNAME';\n",
    "another variable of psql": b"SELECT :USER;\n",
    "literals read in another way": b"SET standard_conforming_strings = off;\n",
    "the same by word": b"SET SESSION standard_conforming_strings TO 'off';\n",
    "the same in quotes": b'SET "standard_conforming_strings" = off;\n',
    "the same by function": b"SELECT pg_catalog.set_config('standard_conforming_strings', 'off', false);\n",
    "the same by reset": b"RESET standard_conforming_strings;\n",
    "the same by resetting all": b"RESET ALL;\n",
    "an encoding that hides quotes": b"SET client_encoding = 'SJIS';\n",
    "the same by name": b"SET NAMES 'Shift_JIS';\n",
    "the same unquoted": b"SET client_encoding TO gbk;\n",
    "the same escaped": b"SET client_encoding = E'\\x53JIS';\n",
    "restrict twice": b"\\restrict a\n\\restrict a\n\\unrestrict a\n",
    "restrict, another key": b"\\restrict a\n\\unrestrict b\n",
    "restrict without an end": b"\\restrict a\n",
    "unrestrict without a beginning": b"\\unrestrict a\n",
    "two pairs": b"\\restrict a\n\\unrestrict a\n\\restrict a\n\\unrestrict a\n",
    "restrict in a statement": b"SELECT\n\\restrict a\n1;\n\\unrestrict a\n",
    "restrict, no key": b"\\restrict\n\\unrestrict\n",
    "restrict, a shell": b"\\restrict `sh`\n\\unrestrict `sh`\n",
    "restrict, indented": b" \\restrict a\n\\unrestrict a\n",
    "an endless word": b"SELECT " + b"a" * 300_000 + b";\n",
}
HARMLESS = {
    "nothing but a footer": b"",
    "restrict": b"\\restrict aB1\nSELECT 1;\n\\unrestrict aB1\n",
    "restrict of Windows": b"\\restrict aB1\r\nSELECT 1;\r\n\\unrestrict aB1\r\n",
    "a literal over lines": b"COMMENT ON TABLE t IS 'two\n\\! sh\n\\.\n-- it''s\n';\n",
    "a literal that ends in a backslash": b"COMMENT ON TABLE t IS 'C:\\';\n",
    "an escaped literal": b"SELECT E'\\'\\! sh\\\\', e'''\\! sh';\n",
    "a name": b'CREATE TABLE "a\\! ""sh\n\\!" (a int);\n',
    "a function": b"CREATE FUNCTION f() RETURNS text AS $_$ SELECT '\\! $$' \n\\! sh\n $_$ LANGUAGE sql;\n",
    "a function in SQL": b"CREATE FUNCTION f() BEGIN ATOMIC\n SELECT CASE WHEN $1 THEN 1 END;\n SELECT 2;\nEND;\n",
    "comments": b"-- \\! sh 'x\n/* \\! sh\n/* \" */ $$ */ SELECT 1; --\n",
    "rows": b"COPY public.t (a, \"b;\") FROM stdin;\n\\N\t'\n\\\\.\n\\.x\n \\.\n$$\t/*\t--\t\\! sh\n\\.\nSELECT 'x';\n",
    "rows of Windows": b"COPY t FROM stdin;\r\n1\r\n\\.\r\nSELECT 1;\r\n",
    "no rows": b"COPY t FROM stdin;\n\\.\n\nCOPY t FROM stdin;\n\\.\n",
    "rows with options": b"COPY t FROM stdin WITH (FORMAT csv);\n1\n\\.\n",
    "settings": b"SET standard_conforming_strings = on;\nSET client_encoding = 'UTF8';\nSET SESSION x = 'y';\n"
    b"RESET ROLE;\nSELECT pg_catalog.set_config('search_path', '', false);\n",
    "texts about settings": b"COMMENT ON TABLE t IS 'client_encoding';\nINSERT INTO t VALUES ('names');\n"
    b"ALTER DATABASE x SET client_encoding TO 'SJIS';\n",
    "numbers and casts": b"SELECT 1e-5, 0x1F, 1.5::text, a[1:2], '1'::int4, x$1, $1, arr[1:n];\n",
    "large objects": b"SELECT pg_catalog.lowrite(0, '\\x5c2e0a" + b"27" * 100_000 + b"');\n",
    "rules": b"CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1; SELECT 2;);\n",
}


@pytest.mark.parametrize("size", [1, 2, 3, 1 << 18])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_to_psql_is_refused(name: str, size: int) -> None:
    error = refusal(COMMANDS[name] + FOOTER, size)
    assert error.summary == "The SQL holds what psql must not be given"
    assert error.found.isprintable()


@pytest.mark.parametrize("size", [1, 1 << 18])
@pytest.mark.parametrize("name", OTHERS)
def test_what_can_be_misread_or_reaches_out_is_refused(name: str, size: int) -> None:
    data = OTHERS[name] + FOOTER
    assert is_refused(data, size if len(data) < 10_000 else max(size, 9_973))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 200, 1 << 18])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_looks_like_a_command_is_taken(name: str, size: int) -> None:
    data = HARMLESS[name]
    if len(data) > 10_000 and size < 100:
        size = 997
    if b"\\unrestrict" in data:
        data = data.replace(b"\\unrestrict", FOOTER + b"\\unrestrict")
    else:
        data += FOOTER
    assert b"".join(checked_plain_sql(cut(data, size))) == data


def test_an_empty_file_has_its_own_message() -> None:
    for chunks in ([], [b""], [b"", b""]):
        with pytest.raises(ArchiveError, match="The SQL file is empty") as raised:
            check_plain_sql(chunks)
        assert "click-odoo writes that when pg_dump fails" in raised.value.hint


@pytest.mark.parametrize(
    "data",
    [
        b"SELECT 1;\n",
        b"\n",
        FOOTER + b"SELECT 1;\n",
        FOOTER + b"1",
        b"SELECT '" + FOOTER,
        b"SELECT '" + FOOTER + b"';",
        b"SELECT $$" + FOOTER + b"$$;\n",
        b"/*" + FOOTER,
        b"COPY t FROM stdin;\n1" + FOOTER,
        b"COPY t FROM stdin;\n1\n\\." + FOOTER[1:],
        b"SELECT 1" + FOOTER,
        b" -- PostgreSQL database dump complete\n",
        b"-- PostgreSQL database dump complete, not\n",
        b"-- PostgreSQL database cluster dump complete\n",
    ],
)
def test_what_is_not_whole_is_refused(data: bytes) -> None:
    for size in (1, 1 << 18):
        assert refusal(data, size).summary == "The SQL is not a whole dump"


def test_rows_are_checked_fast_and_in_bounded_memory() -> None:
    """100 MB/s is what a restore needs; it is measured on the processor's clock, as others may use the machine, too."""
    rows = b"".join(b"%d\tsome text of a row\t\\N\tanother\\n text, 'quoted'\t2024-01-01\n" % n for n in range(4_000))

    def dump(repeat: int) -> Iterator[bytes]:
        yield b"COPY t FROM stdin;\n"
        for _ in range(repeat):
            yield rows
        yield b"\\.\n" + FOOTER

    repeat = 200_000_000 // len(rows)
    began = time.thread_time()
    check_plain_sql(dump(repeat))
    seconds = time.thread_time() - began
    assert len(rows) * repeat / seconds > 100e6
    tracemalloc.start()
    check_plain_sql(dump(repeat // 10))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * len(rows)


def test_a_literal_and_a_line_without_end_need_no_memory() -> None:
    for begin, end in ((b"SELECT '", b"';"), (b"SELECT $a$", b"$a$;"), (b"/*", b"*/"), (b"--", b"\n"), (b"", b";")):
        tracemalloc.start()
        check_plain_sql([begin, *[b"1 + " * 20_000] * (200 if begin else 5), end, FOOTER])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 400_000


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet="'\"$\\\n\r-/*;(): aeE1:.", max_size=60), st.integers(1, 70))
def test_how_the_text_is_cut_makes_no_difference(text: str, size: int) -> None:
    data = text.encode() + FOOTER
    assert is_refused(data, size) == is_refused(data)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_any_bytes_give_an_answer(data: bytes) -> None:
    is_refused(data + FOOTER)
    is_refused(data)
