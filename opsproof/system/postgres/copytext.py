r"""COPY text as PostgreSQL prints it: counted and hashed while it flows.

A table's *fingerprint* is the XXH3-128 of what `COPY table (columns) TO STDOUT` prints, rows in the order of the heap.
The dump holds exactly that text, so that the dump, a second reading of the same snapshot, and a restored copy can be
compared table by table, on any machine, with nothing but a hash (`xxh128sum` of Debian's package xxhash). It finds
what differs by accident; against malice there are the SHA-256 of the bundle and of each member. COPY text escapes
every backslash and line feed in a value, so a line is a row, and a line that is `\.` can only be the end.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import xxhash

from opsproof.errors import DumpError

END = b"\n\\.\n"
DATA_COMMENT = b"-- Data for Name: "
TABLE_DATA = b"; Type: TABLE DATA; "
FOOTER = b"-- PostgreSQL database dump complete"
LO_OPEN = b"SELECT pg_catalog.lo_open('"
LO_WRITE = b"SELECT pg_catalog.lowrite(0, '\\x"


@dataclass(frozen=True)
class Content:
    """What a table or a large object holds.

    `rows` counts a table's rows, or a large object's bytes; None where they were not counted. `fingerprint` is
    hexadecimal: of a table as above, of a large object its SHA-256, which the server can compute too; None where only
    counts are wanted.
    """

    rows: int | None
    fingerprint: str | None


class _Block:
    """The rows of one table, fed in pieces."""

    def __init__(self, *, counting: bool) -> None:
        self._hash = xxhash.xxh3_128()
        self._rows = 0
        self._counting = counting

    def add(self, window: bytes, start: int, stop: int) -> None:
        self._hash.update(memoryview(window)[start:stop])
        if self._counting:
            self._rows += window.count(b"\n", start, stop)

    def content(self) -> Content:
        return Content(self._rows if self._counting else None, self._hash.hexdigest())


class CopyStream:
    r"""Reads the output of several COPY statements, each followed by a line `\.`, in a known order.

    Args:
        names: What each statement reads, in the order of the statements.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.contents: dict[str, Content] = {}
        self._names = list(names)
        self._splitter = _Splitter()

    def feed(self, data: bytes) -> None:
        """Take the next piece of output.

        Raises:
            DumpError: There is more output than statements.
        """
        for content in self._splitter.feed(data):
            if len(self.contents) == len(self._names):
                raise DumpError("psql printed more tables than it was asked for")
            self.contents[self._names[len(self.contents)]] = content

    def finish(self) -> dict[str, Content]:
        """Return the content of each table once the output has ended.

        Raises:
            DumpError: The output ended before the last table did.
        """
        if len(self.contents) != len(self._names) or not self._splitter.is_between:
            raise DumpError(
                "The fingerprints are not whole",
                expected=f"the end of {len(self._names)} tables",
                found=f"the end of {len(self.contents)}",
                kept="no backup was written",
                hint="run it again; look at the server's log if it happens twice",
            )
        return self.contents


class _Splitter:
    r"""Cuts a stream of COPY blocks at their `\.` lines."""

    def __init__(self, *, counting: bool = True) -> None:
        self._counting = counting
        self._block = _Block(counting=counting)
        # The line feed before the first row is what lets an empty table's `\.` look like any other.
        self._window = b"\n"
        self.is_between = True

    def feed(self, data: bytes) -> list[Content]:
        done: list[Content] = []
        while (rest := self.take(data)) is not None:
            done.append(self.content)
            data = rest
        return done

    def take(self, data: bytes) -> bytes | None:
        """Take data up to the end of the block; return what follows it, or None when more is needed."""
        window, start = self._window + data[: len(END)], 1
        if len(data) > len(END) and window.find(END) < 0:
            # No end begins in what was kept: what is new can be looked through where it is.
            self._block.add(window, 1, len(self._window))
            window, start = data, 0
        else:
            window = self._window + data
        if data:
            self.is_between = False
        # Most pieces hold no end, and looking for it from behind is twice as fast; for a lone backslash, twenty times.
        end = window.find(END) if b"\\" in window and window.rfind(END) >= 0 else -1
        if end < 0:
            # Keep what could be the beginning of an END; its first byte is the line feed of the last row.
            keep = max(1, min(len(window), len(END) - 1))
            self._block.add(window, start, len(window) - keep + 1)
            self._window = window[-keep:]
            return None
        self._block.add(window, start, end + 1)
        self.content = self._block.content()
        rest = window[end + len(END) :]
        self._block, self._window = _Block(counting=self._counting), b"\n"
        self.is_between = True
        return rest


class PlainDump:
    """Reads a plain dump while it flows: the rows of each table, the large objects, the footer.

    Args:
        tables: The `COPY ... FROM stdin;` line of each table that the snapshot holds, and the table's name.
        counting: Whether to count rows; it costs as much as all the rest, and whoever compares fingerprints with those
            of a stream that was counted need not count again.
    """

    def __init__(self, tables: Mapping[bytes, str], *, counting: bool = True) -> None:
        self._counting = counting
        self.contents: dict[str, Content] = {}
        self.large_objects: dict[int, Content] = {}
        self.footer_seen = False
        self._tables = tables
        self._line = b""
        self._splitter: _Splitter | None = None
        self._table = ""
        self._data_follows = False
        self._header = b""
        self._object: tuple[int, int, hashlib._Hash] | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the dump.

        Raises:
            DumpError: It holds data of a table that the snapshot does not, or of one twice.
        """
        rest: bytes | None = data
        while rest:
            rest = self._data(rest) if self._splitter else self._text(rest)

    def finish(self) -> None:
        """Tell whether the dump is whole, once it has been read to its end.

        Raises:
            DumpError: It ended inside a table's data, or without its footer.
        """
        if self._splitter is not None:
            raise DumpError(
                f"The dump ended inside the data of {self._table}",
                kept="no backup was written",
                hint="run it again; look at the server's log if it happens twice",
            )
        if not self.footer_seen:
            raise DumpError(
                "The dump has no footer",
                expected=f"a line {FOOTER.decode()!r} at its end",
                found="none",
                kept="no backup was written",
                hint="run it again; look at the server's log if it happens twice",
            )

    def _data(self, data: bytes) -> bytes | None:
        splitter = self._splitter
        if splitter is None:
            return data
        rest = splitter.take(data)
        if rest is not None:
            self.contents[self._table] = splitter.content
            self._splitter = None
        return rest

    def _text(self, data: bytes) -> bytes | None:
        window, self._line = self._line + data, b""
        start = 0
        while (end := window.find(b"\n", start)) >= 0:
            line, start = window[start:end], end + 1
            self._read_line(line)
            if self._splitter is not None:
                return window[start:]
        self._line = window[start:]
        return None

    def _read_line(self, line: bytes) -> None:
        if self._header:
            # A name with a line feed in it goes on in the next line.
            self._header += b"\n" + line
            self._begin_data()
        elif line.startswith(DATA_COMMENT):
            self._data_follows = TABLE_DATA in line
        elif self._data_follows and line.startswith(b"COPY "):
            self._header = line
            self._begin_data()
        elif line.startswith(b"SELECT pg_catalog.lo"):
            self._read_large_object(line)
        elif line == FOOTER:
            self.footer_seen = True
        elif line and line != b"--" and not line.startswith(b"\\unrestrict "):
            self.footer_seen = False

    def _begin_data(self) -> None:
        if not self._header.endswith(b" FROM stdin;"):
            return
        header, self._header, self._data_follows = self._header, b"", False
        name = self._tables.get(header)
        if name is None or name in self.contents:
            raise DumpError(
                "The dump holds data that the snapshot does not",
                expected="the data of each of the snapshot's tables, once",
                found=header.decode(errors="replace"),
                kept="no backup was written",
                hint="please report this with the table's definition",
            )
        self._table, self._splitter = name, _Splitter(counting=self._counting)

    def _read_large_object(self, line: bytes) -> None:
        if line.startswith(LO_OPEN):
            oid = int(line[len(LO_OPEN) : line.index(b"'", len(LO_OPEN))])
            self._object = (oid, 0, hashlib.sha256())
            self.large_objects[oid] = Content(0, self._object[2].hexdigest())
        elif line.startswith(LO_WRITE) and self._object is not None:
            data = bytes.fromhex(line[len(LO_WRITE) : line.index(b"'", len(LO_WRITE))].decode())
            oid, size, digest = self._object
            digest.update(data)
            self._object = (oid, size + len(data), digest)
            self.large_objects[oid] = Content(size + len(data), digest.hexdigest())
