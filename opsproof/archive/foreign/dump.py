"""What the first bytes of a dump say: which program made it, of which database, in which format."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Literal

from opsproof.archive.paths import KEPT, shown
from opsproof.errors import ArchiveError

HEAD_BYTES = 1 << 12
"""As much of a dump as `recognise_dump` needs."""

CUSTOM, TAR = b"PGDMP", b"ustar"
TAR_AT, TAR_MEMBER = 257, b"toc.dat\0"
# pg_backup_archiver.h, ArchiveFormat: a directory's toc.dat calls itself a tar's.
CUSTOM_FORMAT = 1
PLAIN = b"-- PostgreSQL database dump"
CLUSTER = b"-- PostgreSQL database cluster dump"
PROGRAM = re.compile(rb"^-- Dumped by pg_dump version ([^\r\n]+)", re.MULTILINE)
# The header's members came with these versions of the format (pg_backup_archiver.h, K_VERS_*).
ALGORITHM_SINCE = (1, 15)
VERSIONS_SINCE = (1, 10)
DATE_INTEGERS = 7
LONGEST_TEXT = 1 << 10


@dataclass(frozen=True)
class DumpHead:
    """What is known of a dump. `database` and `program` are empty where it does not say."""

    format: Literal["custom", "plain"]
    database: str = ""
    program: str = ""

    @property
    def description(self) -> str:
        """Return what it is, in a few words."""
        kind = "custom-format dump" if self.format == "custom" else "plain SQL dump"
        of = f" of database {shown(self.database)}" if self.database else ""
        by = f", by pg_dump {shown(self.program)}" if self.program else ""
        return f"{kind}{of}{by}"


def recognise_dump(head: bytes, name: str) -> DumpHead | None:
    """Recognise a dump by its first `HEAD_BYTES` bytes; None if it is none.

    Args:
        head: The bytes.
        name: What an error calls it.

    Raises:
        ArchiveError: It is empty, cut in its header, or a dump of a kind that is not read.
    """
    if not head:
        raise _refused(
            f"{name} is empty: the program that made this backup did not notice that pg_dump failed",
            "a dump",
            "0 bytes (click-odoo-backupdb writes that when pg_dump fails)",
            "choose another backup; this one holds no database",
        )
    if head.startswith(CUSTOM):
        return _read_custom(head, name)
    if head[TAR_AT:].startswith(TAR) and head.startswith(TAR_MEMBER):
        raise not_read(name, "tar", name)
    if CLUSTER in head:
        raise _refused(
            f"{name} is a dump of a whole server, by pg_dumpall",
            "a dump of one database",
            "-- PostgreSQL database cluster dump",
            "load it into a server of its own: psql -f; then take the one database out: pg_dump -Fc -f NAME.dump NAME",
        )
    if PLAIN in head:
        program = PROGRAM.search(head)
        return DumpHead("plain", program=program[1].decode(errors="replace") if program else "")
    return None


def not_read(name: str, kind: str, path: str) -> ArchiveError:
    """Say that a dump of a kind that pg_restore knows is not read here, and how to make one that is."""
    return _refused(
        f"{name} is a {kind}-format dump, which is not read here",
        "a custom-format dump, or plain SQL",
        f"pg_dump's {kind} format",
        f"turn it into plain SQL, and restore that: pg_restore --file=dump.sql {shlex.quote(path)}",
    )


def _read_custom(head: bytes, name: str) -> DumpHead:
    cursor = _Cursor(head, len(CUSTOM))
    try:
        version = (cursor.byte(), cursor.byte())
        cursor.byte()
        cursor.integer_bytes = cursor.byte()
        cursor.byte()
        form = cursor.byte()
        if form != CUSTOM_FORMAT:
            raise not_read(name, "directory", "FOLDER")
        if version >= ALGORITHM_SINCE:
            cursor.byte()
        else:
            cursor.integer()
        for _ in range(DATE_INTEGERS):
            cursor.integer()
        database = cursor.text()
        if version < VERSIONS_SINCE:
            return DumpHead("custom", database)
        cursor.text()
        return DumpHead("custom", database, cursor.text())
    except IndexError:
        raise _refused(
            f"{name} is cut or damaged in its header",
            "the header of a custom-format dump",
            f"{len(head):,} bytes that begin as one",
            "download or copy it again",
        ) from None


class _Cursor:
    """Reads the integers and texts of a custom-format header (`ReadInt`, `ReadStr` in pg_backup_archiver.c)."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at
        self.integer_bytes = 4

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def integer(self) -> int:
        sign = self.byte()
        value = sum(self.byte() << 8 * place for place in range(self.integer_bytes))
        return -value if sign else value

    def text(self) -> str:
        length = self.integer()
        if length <= 0:
            return ""
        if length > LONGEST_TEXT or self._at + length > len(self._data):
            raise IndexError(length)
        self._at += length
        return self._data[self._at - length : self._at].decode(errors="replace")


def _refused(summary: str, expected: str, found: str, hint: str) -> ArchiveError:
    return ArchiveError(summary, expected=expected, found=found, kept=KEPT, hint=hint)
