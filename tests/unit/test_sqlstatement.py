r"""Where a statement of plain SQL ends, told by what follows it: rows of a COPY may hold `\!`, and nothing else may.

Each case is one that a reader with a single rule left out would take for the other.
"""

from __future__ import annotations

import tracemalloc

import pytest

from opsproof.archive.reading.plainsql import check_plain_sql
from opsproof.errors import ArchiveError

FOOTER = b"\n--\n-- PostgreSQL database dump complete\n--\n\n"
# What is taken as rows where a COPY begins a statement, and is refused as a command to psql where it does not.
ROWS = b"COPY t FROM stdin;\n\\! sh\n\\.\n"

ENDED = {
    "by a parenthesis too many": b"SELECT 1);\n",
    "a transaction behind a function": b"CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'x';\nBEGIN;\n",
    "a function that returns a value": b"CREATE FUNCTION f() RETURNS int RETURN CASE WHEN true THEN 1 END;\n",
    "a function whose type is called case": b"CREATE FUNCTION f() RETURNS case LANGUAGE sql AS 'x';\n",
    "a function called begin that is dropped": b"DROP FUNCTION begin;\n",
    "COPY to a client, of two queries": b"COPY (SELECT 1; SELECT 2) TO stdout;\n",
    "a table called stdin": b"SELECT a FROM stdin;\n",
    "a function with a body": b"CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; SELECT 2; END;\n",
}
NOT_ENDED = {
    "in parentheses": b"SELECT (1; x) ",
    "in parentheses of a function": b"SELECT f(1; 2; ",
    "in a function behind another statement": b"SELECT a, b, c, d;\nCREATE FUNCTION f() BEGIN ATOMIC SELECT 1; ",
    "in a function behind a case": b"CREATE FUNCTION f() BEGIN ATOMIC SELECT CASE WHEN true THEN 1 END; ",
}
REFUSED = {
    "everything forgotten": b"DISCARD ALL;\n",
    "COPY that the server refuses, with rows for psql": b"EXPLAIN COPY t FROM stdin;\n1;\n",
    "no encoding": b"SET client_encoding = '';\n",
    "an encoding in dollar quotes": b"SET client_encoding = $$UTF8$$;\n",
    "whatever encoding psql began with": b"SET client_encoding TO DEFAULT;\n",
    "the same by name": b"SET NAMES DEFAULT;\n",
}


def read(data: bytes, size: int) -> None:
    whole = data + FOOTER
    check_plain_sql(whole[at : at + size] for at in range(0, len(whole), size))


@pytest.mark.parametrize("size", [1, 1 << 18])
@pytest.mark.parametrize("name", ENDED)
def test_behind_the_end_of_a_statement_rows_may_follow(name: str, size: int) -> None:
    read(ENDED[name] + ROWS, size)


@pytest.mark.parametrize("size", [1, 1 << 18])
@pytest.mark.parametrize("name", NOT_ENDED)
def test_in_the_midst_of_a_statement_no_rows_begin(name: str, size: int) -> None:
    with pytest.raises(ArchiveError, match="The SQL holds what psql must not be given") as raised:
        read(NOT_ENDED[name] + ROWS, size)
    assert raised.value.found


@pytest.mark.parametrize("size", [1, 1 << 18])
@pytest.mark.parametrize("name", REFUSED)
def test_what_would_change_how_psql_reads_on_is_refused(name: str, size: int) -> None:
    with pytest.raises(ArchiveError, match="The SQL holds what psql must not be given") as raised:
        read(REFUSED[name], size)
    assert raised.value.kept == "nothing was changed"
    assert raised.value.hint


@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_rows_begin_in_the_next_line_however_the_text_is_cut(ending: bytes) -> None:
    for padding in range(120, 140):
        data = b"COPY t FROM stdin;" + ending + b"\\! sh" + ending + b"\\." + ending
        read(b"SELECT 1; " + data + b" " * padding, 10 + padding)
        with pytest.raises(ArchiveError):
            read(data.replace(b";", b"; "), 10 + padding)


def test_a_statement_of_endless_words_needs_no_memory() -> None:
    tracemalloc.start()
    check_plain_sql([b"SELECT ", *[b"word " * 20_000] * 20, b";", FOOTER])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 600_000
