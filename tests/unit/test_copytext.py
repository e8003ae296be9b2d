r"""Reading dumps while they flow: the same answer whatever the pieces, and an error for whatever is not whole."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Iterator, Mapping

import pytest
import xxhash

from opsproof.errors import DumpError
from opsproof.system.postgres.copytext import Content, CopyStream, PlainDump

FOOTER = b"--\n-- PostgreSQL database dump complete\n--\n\n\\unrestrict aBc123\n\n"
PREAMBLE = b"--\n-- PostgreSQL database dump\n--\n\n\\restrict aBc123\n\nSET statement_timeout = 0;\n"
ROWS = {
    "an ordinary one": b"1\tone\n2\ttwo\n",
    "empty": b"",
    "without columns": b"\n\n\n",
    "a value that is an end": b"\\\\.\n\\\\.\n",
    "rows that end in a backslash": b"a\\\\\nb\\\\\n\\\\\n",
    "escapes all over": b"\\N\t\\\\N\t\\t\\n\\\\.\n\\\\\\\\.\n.\n",
    "dots and dashes": b".\n-- PostgreSQL database dump complete\nCOPY public.x (a) FROM stdin;\n",
}


def header(name: str, columns: str = "(a, b)") -> bytes:
    return f"COPY public.{name} {columns} FROM stdin;".encode()


def block(name: str, rows: bytes, head: bytes | None = None) -> bytes:
    comment = f"--\n-- Data for Name: {name}; Type: TABLE DATA; Schema: public; Owner: app\n--\n\n".encode()
    return comment + (head or header(name)) + b"\n" + rows + b"\\.\n\n\n"


def content(rows: bytes) -> Content:
    return Content(rows.count(b"\n"), xxhash.xxh3_128_hexdigest(rows))


def in_pieces(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        stop = start + next(sizes)
        yield data[start:stop]
        start = stop


def random_sizes(seed: int) -> Iterator[int]:
    chance = random.Random(seed)  # reproducible: the seed is the case
    while True:
        yield chance.randint(1, 9)


def ways_to_cut(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    yield from ([data[:at], data[at:]] for at in range(1, len(data)))
    for seed in range(20):
        yield list(in_pieces(data, random_sizes(seed)))


def read(pieces: Iterable[bytes], tables: Mapping[bytes, str]) -> PlainDump:
    dump = PlainDump(tables)
    for piece in pieces:
        dump.feed(piece)
    dump.finish()
    return dump


def test_a_dump_reads_the_same_however_it_is_cut() -> None:
    names = {f"t{number}": rows for number, rows in enumerate(ROWS.values())}
    text = PREAMBLE + b"".join(block(name, rows) for name, rows in names.items()) + FOOTER
    tables = {header(name): name for name in names}
    expected = {name: content(rows) for name, rows in names.items()}
    for pieces in ways_to_cut(text):
        assert read(pieces, tables).contents == expected


@pytest.mark.parametrize("rows", ROWS.values(), ids=ROWS)
def test_a_stream_of_copies_reads_the_same_however_it_is_cut(rows: bytes) -> None:
    text = rows + b"\\.\n" + b"\\.\n" + rows + b"\\.\n"
    for pieces in ways_to_cut(text):
        stream = CopyStream(["first", "empty", "again"])
        for piece in pieces:
            stream.feed(piece)
        assert stream.finish() == {"first": content(rows), "empty": content(b""), "again": content(rows)}


@pytest.mark.parametrize("lost", range(1, 6))
def test_a_stream_that_ends_early_is_not_whole(lost: int) -> None:
    text = b"1\n\\.\n2\n\\.\n"
    stream = CopyStream(["one", "two"])
    stream.feed(text[:-lost])
    with pytest.raises(DumpError, match="not whole"):
        stream.finish()


def test_a_stream_that_goes_on_after_its_last_end_is_not_whole() -> None:
    stream = CopyStream(["one"])
    stream.feed(b"1\n\\.\nmore")
    with pytest.raises(DumpError, match="not whole"):
        stream.finish()


def test_more_tables_than_were_asked_for_are_an_error() -> None:
    stream = CopyStream(["one"])
    with pytest.raises(DumpError, match="more tables"):
        stream.feed(b"1\n\\.\n2\n\\.\n")


def test_a_stream_of_no_tables_is_whole() -> None:
    assert CopyStream([]).finish() == {}


def test_a_big_table_is_hashed_across_its_pieces() -> None:
    rows = b"".join(b"%d\tvalue \\\\ %d\n" % (number, number) for number in range(50_000))
    text = PREAMBLE + block("t", rows) + FOOTER
    pieces = [text[at : at + 8_191] for at in range(0, len(text), 8_191)]
    assert read(pieces, {header("t"): "t"}).contents == {"t": content(rows)}


def test_a_function_body_that_looks_like_data_is_not_data() -> None:
    body = (
        b"CREATE FUNCTION public.f() RETURNS void\n    LANGUAGE plpgsql\n    AS $$\n"
        b"COPY public.t (a, b) FROM stdin;\n1\t2\n\\.\n-- PostgreSQL database dump complete\n$$;\n"
    )
    text = PREAMBLE + body + block("t", b"1\tx\n") + FOOTER
    for pieces in ways_to_cut(text):
        assert read(pieces, {header("t"): "t"}).contents == {"t": content(b"1\tx\n")}


def test_a_footer_inside_a_function_body_is_not_the_dumps_own() -> None:
    body = b"AS $$\n-- PostgreSQL database dump complete\nSELECT 1\n$$;\n"
    with pytest.raises(DumpError, match="no footer"):
        read([PREAMBLE + body], {})


def test_a_name_with_a_line_feed_in_it_is_found() -> None:
    head = b'COPY public."two\nlines" ("a\n FROM stdin;x", b) FROM stdin;'
    text = PREAMBLE + block("two lines", b"1\t2\n", head) + FOOTER
    for pieces in ways_to_cut(text):
        assert read(pieces, {head: "t"}).contents == {"t": content(b"1\t2\n")}


def test_data_of_an_unknown_table_is_an_error() -> None:
    with pytest.raises(DumpError, match="data that the snapshot does not") as caught:
        read([PREAMBLE + block("other", b"1\n") + FOOTER], {header("t"): "t"})
    assert "COPY public.other" in caught.value.found


def test_data_of_a_table_that_comes_twice_is_an_error() -> None:
    with pytest.raises(DumpError, match="data that the snapshot does not"):
        read([PREAMBLE + block("t", b"1\n") + block("t", b"2\n") + FOOTER], {header("t"): "t"})


def test_a_dump_cut_anywhere_is_an_error() -> None:
    text = PREAMBLE + block("t", b"1\tx\n2\ty\n") + FOOTER
    whole = text.index(b"dump complete\n") + len(b"dump complete\n")
    for cut in range(whole):
        with pytest.raises(DumpError):
            read([text[:cut]], {header("t"): "t"})
    assert read([text[:whole]], {header("t"): "t"}).footer_seen


def test_anything_after_the_footer_means_that_it_was_none() -> None:
    with pytest.raises(DumpError, match="no footer"):
        read([PREAMBLE + FOOTER + b"SELECT 1;\n"], {})


def large_object(oid: int, *pieces: bytes) -> bytes:
    writes = b"".join(b"SELECT pg_catalog.lowrite(0, '\\x%s');\n" % piece.hex().encode() for piece in pieces)
    return b"SELECT pg_catalog.lo_open('%d', 131072);\n" % oid + writes + b"SELECT pg_catalog.lo_close(0);\n\n"


def test_large_objects_are_sized_and_hashed() -> None:
    big = bytes(range(256)) * 40
    objects = large_object(16401) + large_object(4294967295, big[:4096], big[4096:]) + large_object(7, b"\0" * 9)
    text = PREAMBLE + b"--\n-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -\n--\n\nBEGIN;\n\n"
    text += objects + b"COMMIT;\n\n" + FOOTER
    expected = {16401: b"", 4294967295: big, 7: b"\0" * 9}
    dump = read([text[at : at + 777] for at in range(0, len(text), 777)], {})
    assert dump.large_objects == {
        oid: Content(len(data), hashlib.sha256(data).hexdigest()) for oid, data in expected.items()
    }


def test_a_table_in_latin_1_is_read_by_its_bytes() -> None:
    head = "COPY public.größe (a) FROM stdin;".encode("latin-1")
    rows = "Straße\n".encode("latin-1")
    assert read([PREAMBLE + block("x", rows, head) + FOOTER], {head: "g"}).contents == {"g": content(rows)}
