"""The plain text of a real dump: read the same in pieces of any size, and an error wherever it is cut."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from opsproof.errors import DumpError
from opsproof.system.postgres.copytext import PlainDump
from opsproof.system.postgres.server import connect
from opsproof.system.postgres.snapshot import open_snapshot
from tests.lab.captured import (
    captured,
    clients_of,
    make_database,
)
from tests.lab.capturing import fill
from tests.lab.postgres_server import PostgresServer
from tests.lab.shapes import SHAPES


@pytest.fixture(scope="module")
def real_dump(wheel_postgres: PostgresServer) -> Iterator[tuple[bytes, dict[bytes, str]]]:
    """The plain text of a real dump, and the tables of its snapshot."""
    address = make_database(wheel_postgres, "to cut")
    try:
        for name in ("odd names", "values that look like the dump", "without columns", "inherited"):
            fill(wheel_postgres, address, *SHAPES[name])
        fill(wheel_postgres, address, "SELECT lo_from_bytea(0, 'a large object')")
        clients = clients_of(wheel_postgres, address)
        with connect(address) as connection, open_snapshot(connection) as snapshot:
            tables = {table.header: table.label for table in snapshot.tables}
        with captured(clients) as capture:
            text = b"".join(capture.sql.unpacked())
        yield text, tables
    finally:
        wheel_postgres.drop_database("to cut")


def read(text: bytes, tables: dict[bytes, str]) -> PlainDump:
    dump = PlainDump(tables)
    dump.feed(text)
    dump.finish()
    return dump


def test_a_real_dump_cut_anywhere_is_an_error(real_dump: tuple[bytes, dict[bytes, str]]) -> None:
    text, tables = real_dump
    whole = text.index(b"\n-- PostgreSQL database dump complete\n--") + len("\n-- PostgreSQL database dump complete\n")
    assert set(read(text, tables).contents) == set(tables.values())
    for cut in [*range(0, whole, max(1, whole // 60)), whole - 1]:
        with pytest.raises(DumpError):
            read(text[:cut], tables)


def test_a_real_dump_reads_the_same_byte_by_byte(real_dump: tuple[bytes, dict[bytes, str]]) -> None:
    text, tables = real_dump
    dump = PlainDump(tables)
    for at in range(len(text)):
        dump.feed(text[at : at + 1])
    dump.finish()
    whole = read(text, tables)
    assert (dump.contents, dump.large_objects) == (whole.contents, whole.large_objects)
