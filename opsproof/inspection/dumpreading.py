"""What a dump holds, read to its end without a server: every table's rows, the large objects, the attachments' names.

pg_restore turns the dump into SQL, which is read while it flows and kept nowhere; so neither the size of the database
nor that of a row matters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from opsproof.errors import CommandFailed, DumpError, HostError, OpsproofError
from opsproof.odoo import ATTACHMENT_COLUMN, ATTACHMENT_TABLE
from opsproof.system.hosts.host import Host
from opsproof.system.hosts.pipe import READ_BYTES, Pipe
from opsproof.system.postgres.copytext import Content, PlainDump
from opsproof.system.postgres.dump import ClientPrograms
from opsproof.system.postgres.schematext import plain_label

HEAD_BYTES = 1 << 14
MOST_LINE = 1 << 16
NULL = b"\\N"
BLOCK_END = b"\\."
KEPT = "the stored backup is as it was"
ENCODING = re.compile(rb"^SET client_encoding = '(\w+)';$", re.M)
NAME = rb'(?:"(?:[^"]|"")*"|[^\s"().]+)'
HEADER = re.compile(rb"COPY (" + NAME + rb"\." + NAME + rb") (?:\((.*)\))? ?FROM stdin;", re.S)
COLUMN = re.compile(rb'"(?:[^"]|"")*"|[^\s,"]+')
# What pg_restore says of a format that is younger than itself.
TOO_NEW = "unsupported version"
# Whoever reports these has been given too little, or was told to stop.
NOT_THE_DUMP = ("out of memory", "No space left on device", "terminated by user")


@dataclass(frozen=True)
class DumpContent:
    """What a dump holds.

    Attributes:
        tables: Rows and fingerprint of each table that has data in it, by its label.
        objects: Size and SHA-256 of each large object.
        attachments: The files that its rows name, relative to the filestore; None where it keeps no such list.
    """

    tables: Mapping[str, Content]
    objects: Mapping[int, Content]
    attachments: frozenset[str] | None

    @property
    def rows(self) -> int:
        """Rows of all tables."""
        return sum(one.rows or 0 for one in self.tables.values())


class DumpReading(PlainDump):
    """Reads a plain dump of whatever tables there are, and which files its attachments name."""

    def __init__(self) -> None:
        super().__init__(_AnyTable())
        self.names: set[bytes] | None = None
        self._head = b""
        self._column: _Column | None = None

    def feed(self, data: bytes) -> None:
        """Take the next piece of the dump.

        Raises:
            DumpError: It holds data of one table twice.
        """
        if len(self._head) < HEAD_BYTES:
            self._head += data[:HEAD_BYTES]
        super().feed(data)

    def result(self) -> DumpContent:
        """Return what there is, once the dump has ended.

        Raises:
            DumpError: It ended inside a table's data, or without its footer.
        """
        self.finish()
        found = ENCODING.search(self._head)
        encoding = re.sub(r"^WIN", "cp", found[1].decode()) if found else "UTF8"

        def decode(raw: bytes) -> str:
            try:
                return raw.decode(encoding)
            except (LookupError, UnicodeError):
                return raw.decode(errors="surrogateescape")

        tables = {plain_label(decode(name.encode("latin-1"))): content for name, content in self.contents.items()}
        attachments = None if self.names is None else frozenset(map(decode, self.names))
        return DumpContent(tables, dict(self.large_objects), attachments)

    def _begin_data(self) -> None:
        header = self._header
        super()._begin_data()
        if self._splitter is not None:
            index = _column_of(header)
            self._column = None if index is None else _Column(index)

    def _data(self, data: bytes) -> bytes | None:
        rest = super()._data(data)
        if self._column is not None:
            self._column.feed(data if rest is None else data[: len(data) - len(rest)])
            if rest is not None:
                self.names, self._column = self._column.names, None
        return rest


class _AnyTable(Mapping[bytes, str]):
    """The label of any table, of the line before its rows; undecoded, for the encoding is the dump's."""

    def __getitem__(self, header: bytes) -> str:
        found = HEADER.fullmatch(header)
        # An old pg_dump says the schema once, before all of its tables.
        return (found[1] if found else header.split(b" ", 2)[1]).decode("latin-1")

    def __iter__(self) -> Iterator[bytes]:
        return iter(())

    def __len__(self) -> int:
        return 0


class _Column:
    """Collects one column's values of a block of rows; of a long row no more is kept than what is being read."""

    def __init__(self, index: int) -> None:
        self.names: set[bytes] = set()
        self._index = index
        self._passed = 0
        self._rest = b""
        self._is_done = False

    def feed(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if not self._is_done and line != BLOCK_END:
                self._take(line.split(b"\t", self._index - self._passed + 1))
            self._passed, self._is_done = 0, False
        if self._is_done:
            self._rest = b""
        elif len(self._rest) > MOST_LINE:
            self._shorten()

    def _take(self, fields: list[bytes]) -> None:
        place = self._index - self._passed
        if place < len(fields) and fields[place] not in (NULL, b""):
            self.names.add(fields[place].replace(b"\\\\", b"\\"))

    def _shorten(self) -> None:
        fields = self._rest.split(b"\t")
        whole = len(fields) - 1
        if whole > self._index - self._passed:
            self._take(fields)
            self._rest, self._is_done = b"", True
            return
        self._passed += whole
        self._rest = fields[-1] if self._passed == self._index else b""


def read_dump(host: Host, programs: ClientPrograms, dump: Path) -> DumpContent:
    """Read a custom-format dump to its end.

    Args:
        host: Where pg_restore runs; the dump is sent to it, and stays where it is.
        programs: PostgreSQL's, not older than the pg_dump that wrote it.
        dump: The file, on this machine.

    Raises:
        DumpError: It is damaged.
        HostError: pg_restore could not do its work.
    """
    reading = DumpReading()
    # The pipe ends before the pool does, which waits for whoever still writes into it.
    with (
        ThreadPoolExecutor(1, "opsproof feed") as pool,
        host.pipe(programs.path("pg_restore"), "--exit-on-error", "--file=-", feed=True) as pipe,
    ):
        fed = pool.submit(_feed, pipe, dump)
        with _as_verified():
            while data := pipe.read():
                reading.feed(data)
        try:
            pipe.finish()
        except CommandFailed as error:
            raise _explain(error, programs, dump) from error
        fed.result()
    with _as_verified():
        return reading.result()


def read_sql(chunks: Iterable[bytes]) -> DumpContent:
    """Read plain SQL of pg_dump to its end.

    Raises:
        DumpError: It is cut, or has no footer.
    """
    reading = DumpReading()
    with _as_verified():
        for chunk in chunks:
            reading.feed(chunk)
        return reading.result()


def _column_of(header: bytes) -> int | None:
    """Return the place of the column that names files, where the rows are those of attachments."""
    found = HEADER.fullmatch(header)
    table = found[1] if found else header.split(b" ", 2)[1]
    if table not in (f"public.{ATTACHMENT_TABLE}".encode(), ATTACHMENT_TABLE.encode()):
        return None
    listed = found[2] if found else header[header.find(b"(") + 1 : header.rfind(b")")]
    columns = [name.strip(b'"') for name in COLUMN.findall(listed or b"")]
    return columns.index(ATTACHMENT_COLUMN.encode()) if ATTACHMENT_COLUMN.encode() in columns else None


def _feed(pipe: Pipe, dump: Path) -> None:
    try:
        with dump.open("rb", buffering=0) as file:
            while piece := file.read(READ_BYTES):
                pipe.write(piece)
        pipe.end_input()
    except CommandFailed:
        return  # whoever reads its output finds out why it has ended


class _as_verified:  # noqa: N801  a context manager, read as a word
    """Let a reader's error say what it means for a backup that is there, and not for one that is being taken."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, OpsproofError) and not isinstance(error, HostError):
            error.kept = KEPT
            error.hint = "take a new backup, or choose another with --backup=ID"


def _explain(error: CommandFailed, programs: ClientPrograms, dump: Path) -> OpsproofError:
    if TOO_NEW in error.found:
        return HostError(
            f"pg_restore {programs.version} is older than the dump",
            expected="a pg_restore of the version that the backup was taken with, or a newer one",
            found=error.found,
            kept=KEPT,
            hint="install newer client programs on the host, or set pg_bindir in the inventory",
        )
    # It says its name before whatever it finds; a shell, ssh, or the kernel that has ended it does not.
    if "pg_restore: " not in error.found or any(words in error.found for words in NOT_THE_DUMP):
        return error
    return DumpError(
        f"pg_restore {programs.version} cannot read the dump to its end",
        expected=f"exit status 0 of: pg_restore --file=/dev/null {dump.name}",
        found=error.found,
        kept=KEPT,
        hint="take a new backup, or choose another with --backup=ID",
    )
