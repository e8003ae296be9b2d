"""Dumps as files: what stands in one, read without touching any server."""

from __future__ import annotations

import mmap
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from opsproof.errors import CommandFailed, DumpError
from opsproof.system.hosts.host import Host
from opsproof.system.postgres.copytext import END, Content, PlainDump
from opsproof.system.postgres.dump import ClientPrograms
from opsproof.system.postgres.schematext import Schema, decode_schema, parse_schema

SCHEMA_SECONDS = 1800.0
ENTRY = re.compile(r"\d+; \d+ \d+ ")
DATA_ENTRY = re.compile(r"\d+; \d+ \d+ (TABLE DATA|SEQUENCE SET|BLOBS|MATERIALIZED VIEW DATA|STATISTICS DATA) ")
OBJECT_ENTRY = re.compile(r"\d+; \d+ \d+ (BLOBS|BLOB METADATA|BLOB) ")

# What of plain SQL is not its schema: the head of a table's rows, and the statements of data that have no such head.
DATA = re.compile(
    rb"^-- Data for Name: [^\n]*; Type: TABLE DATA; [^\n]*\n--\n\nCOPY .*? FROM (?P<rows>stdin);\n"
    rb"|^SELECT pg_catalog\.lo(?:_open|write|_close)\([^\n]*\n|^INSERT INTO [^\n]*\n",
    re.M | re.S,
)
MOST_TEXT = 32 << 20


@dataclass(frozen=True)
class DumpFile:
    """A custom dump on the host, read by pg_restore of one version without touching any server."""

    path: Path
    programs: ClientPrograms
    host: Host

    @cached_property
    def schema(self) -> Schema:
        """All but the rows and the content of large objects.

        Raises:
            DumpError: It is no dump that this pg_restore can read.
        """
        return parse_schema(decode_schema(self._text.encode(errors="surrogateescape")))

    def list_without_roles(self) -> bytes:
        """Return the entries, as pg_restore lists them, that can be made without the roles that the dump names.

        Raises:
            DumpError: It is no dump that this pg_restore can read.
        """
        # Both are in the dump's encoding, whatever that is.
        blocks = parse_schema(self._text).blocks
        left_out = tuple(f"{one.kind} {one.schema} {one.name} " for one in blocks if one.needs_roles)
        kept = [line for line in self._entries if not ENTRY.sub("", line, count=1).startswith(left_out)]
        return "\n".join(kept).encode(errors="surrogateescape")

    def lines_of(self, table: str) -> tuple[str, ...]:
        """Return the rows of a table that has few, as COPY prints them: a line each.

        Raises:
            DumpError: It is no dump that this pg_restore can read.
        """
        text = self._restore("--data-only", f"--table={table}", "--file=-")
        blocks = re.findall(r"^COPY [^\n]* FROM stdin;\n(.*?)^\\\.$", text, re.M | re.S)
        return tuple(line for block in blocks for line in block.splitlines())

    def large_objects(self) -> dict[int, Content]:
        """Return size and SHA-256 of every large object.

        Raises:
            DumpError: The dump cannot be read to its end.
        """
        entries = [line for line in self._entries if OBJECT_ENTRY.match(line)]
        if not entries:
            return {}
        text = PlainDump({})
        arguments = ("--use-list=/dev/stdin", "--file=-", str(self.path))
        with self.host.pipe(self._program, *arguments, stdin="\n".join(entries).encode()) as pipe:
            while data := pipe.read():
                text.feed(data)
            try:
                pipe.finish()
            except CommandFailed as error:
                raise self._unreadable(error) from error
        text.finish()
        return text.large_objects

    @cached_property
    def _text(self) -> str:
        entries = [line for line in self._entries if not DATA_ENTRY.match(line)]
        return self._restore("--use-list=/dev/stdin", "--file=-", stdin=entries)

    @cached_property
    def _entries(self) -> list[str]:
        return self._restore("--list").splitlines()

    @property
    def _program(self) -> str:
        return self.programs.path("pg_restore")

    def _restore(self, *arguments: str, stdin: list[str] | None = None) -> str:
        given = "\n".join(stdin or ()).encode(errors="surrogateescape")
        try:
            done = self.host.run(self._program, *arguments, str(self.path), stdin=given, timeout=SCHEMA_SECONDS)
        except CommandFailed as error:
            raise self._unreadable(error) from error
        return done.stdout

    def _unreadable(self, error: CommandFailed) -> DumpError:
        return DumpError(
            f"pg_restore {self.programs.version} cannot read the dump {self.path.name}",
            expected="a custom dump, of a pg_dump that is not newer than this pg_restore",
            found=error.found,
            kept="nothing was changed",
            hint="restore into a server that is not older than the one that the backup came from",
        )


def read_plain_schema(path: Path) -> Schema | None:
    """Return the schema that plain SQL holds; None where more than 32 MiB of it is no data that pg_dump wrote.

    Raises:
        DumpError: The file cannot be read.
    """
    try:
        text = _read_without_data(path)
    except (OSError, ValueError) as error:
        raise DumpError(
            f"{path.name} cannot be read",
            expected="plain SQL",
            found=str(error),
            kept="nothing was changed",
            hint=f"ls -l {path}",
        ) from error
    return None if text is None else parse_schema(decode_schema(text))


def _read_without_data(path: Path) -> bytes | None:
    pieces: list[bytes] = []
    size = at = 0
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        while at < len(text):
            found = DATA.search(text, at)
            start = found.start() if found else len(text)
            size += start - at
            if size > MOST_TEXT:
                return None
            pieces.append(text[at:start])
            at = len(text) if found is None else found.end()
            if found is not None and found["rows"]:
                # A table without rows ends in the line after its head.
                end = text.find(END, at - 1)
                at = len(text) if end < 0 else end + len(END)
    # What data came in other forms gets a heading of its own, lest it be taken for the end of what stands before it.
    return b"".join(pieces).replace(b"\n-- Data for Name: ", b"\n-- Name: ")
